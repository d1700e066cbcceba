//! The MIME tree of a raw message: one pass along the lines that could be boundaries (RFC 2046 section 5.1).
//!
//! Invariant: every byte is looked at a bounded number of times. At most `MIME_DEPTH_MAX` boundaries are open at once, and each
//! line that begins with `--` is compared with those.
//! Invariant: bodies of leaves do not overlap, and lie in the raw message in the order of the nodes.

use std::ops::Range;

use memchr::memmem;
use postrider_api::limit::PARTS_MAX;
use postrider_api::pb::TransferEncoding;

use super::field::{self, Known, Name, SectionEnd};
use super::limit::{
    BOUNDARY_BYTES_MAX, CHARSET_BYTES_MAX, CONTENT_ID_BYTES_MAX, CONTENT_TYPE_BYTES_MAX, DISPOSITION_BYTES_MAX,
    EXTENSION_BYTES_MAX, FILENAME_BYTES_MAX, HEADER_BYTES_MAX, HEADERS_BYTES_MAX, MIME_DEPTH_MAX, PART_FIELD_BYTES_MAX,
};
use super::parameters::Parameterised;
use super::text::{file_name, folded};

/// Nodes of the tree, multiparts included: what lies behind them is not looked at.
const NODES_MAX: usize = 2 * PARTS_MAX;

/// How often the walk may go over one byte: as a line of a header, as the line that ends it, in search of a boundary, and as a
/// line that could be one.
pub(super) const LOOKS_MAX: usize = 4;

/// The tree.
pub(super) struct Structure {
    /// The fields of the message itself.
    pub(super) top: Known,
    /// In the order of the raw message, parents before children; the first is the message itself.
    pub(super) nodes: Vec<Node>,
}

/// One entity of the message.
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) header: PartHeader,
    /// Still encoded; without the line break that belongs to the boundary behind it.
    pub(super) body: Range<usize>,
    pub(super) children: Vec<usize>,
}

/// What an entity holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Leaf,
    Multipart(Multipart),
    /// A message within a message: one child.
    Message,
}

/// The kinds of multipart that are shown in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Multipart {
    Alternative,
    Related,
    Digest,
    Other,
}

/// What the header of an entity says about its body.
#[derive(Debug, Clone, Default)]
pub(super) struct PartHeader {
    /// Type and subtype in lower case.
    pub(super) content_type: String,
    pub(super) charset: String,
    pub(super) encoding: TransferEncoding,
    pub(super) disposition: String,
    pub(super) filename: String,
    pub(super) content_id: String,
    /// Of multipart/related: the Content-ID of its root, and its media type (RFC 2387 section 3); empty where they are not said.
    pub(super) root: Root,
    boundary: Vec<u8>,
}

/// What a multipart/related says about its root.
#[derive(Debug, Clone, Default)]
pub(super) struct Root {
    pub(super) content_id: String,
    pub(super) content_type: String,
}

/// The tree of `raw`.
pub(super) fn parse(raw: &[u8]) -> Structure {
    let (structure, looked_at) = walk(raw);
    debug_assert!(looked_at <= LOOKS_MAX * raw.len(), "the walk is linear");
    structure
}

/// The tree of `raw`, and how many bytes the walk went over, those that it went over again included.
pub(super) fn walk(raw: &[u8]) -> (Structure, usize) {
    let mut walker = Walker {
        raw,
        nodes: Vec::new(),
        open: Vec::new(),
        leaf: None,
        top: Known::default(),
        headers_left: HEADERS_BYTES_MAX,
        looked_at: 0,
        dashes: memmem::Finder::new(b"\n--"),
    };
    walker.walk();
    (Structure { top: walker.top, nodes: walker.nodes }, walker.looked_at)
}

struct Walker<'a> {
    raw: &'a [u8],
    nodes: Vec<Node>,
    /// The multiparts and messages that are not over yet, outermost first.
    open: Vec<Open>,
    /// The leaf whose body is being read.
    leaf: Option<usize>,
    top: Known,
    headers_left: usize,
    looked_at: usize,
    dashes: memmem::Finder<'static>,
}

struct Open {
    node: usize,
    /// Empty for a message within a message.
    boundary: Vec<u8>,
}

/// A line that separates the parts of `open[level]`, or ends them.
struct Delimiter {
    level: usize,
    line: usize,
    next_line: usize,
    closes: bool,
}

impl Walker<'_> {
    fn walk(&mut self) {
        let mut at = 0;
        loop {
            let body = self.enter(at);
            let next = match body {
                // The header of a message within follows at once.
                Entered { is_message: true, body } => Some(body),
                Entered { is_message: false, body } => self.next_part(body),
            };
            match next {
                Some(next) if self.nodes.len() < NODES_MAX => at = next,
                _ => break,
            }
        }
        self.close_down_to(0, self.raw.len());
    }

    /// Takes in the entity whose header begins at `at`.
    fn enter(&mut self, at: usize) -> Entered {
        let bytes_max = HEADER_BYTES_MAX.min(self.headers_left);
        let mut known = Known::default();
        let (raw, open) = (self.raw, &self.open);
        let stop = |line: &[u8]| match_boundary(open, line).is_some();
        let end = field::walk_section(raw, at, bytes_max, stop, |field| known.keep(raw, &field));
        let (body, has_body) = match end {
            SectionEnd::Body(body) => (body, true),
            SectionEnd::Stopped(line) => (line, false),
        };
        self.headers_left -= bytes_max.min(body - at);
        self.looked_at += field::line(raw, body).1 - at;
        let parent = self.open.last().map(|open| self.nodes[open.node].kind);
        if !has_body && body == at && matches!(parent, Some(Kind::Multipart(_))) {
            // One boundary behind the other: nothing is between them.
            return Entered { is_message: false, body };
        }
        let in_digest = parent == Some(Kind::Multipart(Multipart::Digest));
        let header = PartHeader::read(raw, &known, in_digest);
        if self.nodes.is_empty() {
            self.top = known;
        }
        let node = self.nodes.len();
        if let Some(parent) = self.open.last() {
            self.nodes[parent.node].children.push(node);
        }
        let (kind, boundary) = header.kind(has_body && self.open.len() < MIME_DEPTH_MAX);
        if kind == Kind::Leaf {
            self.leaf = Some(node);
        } else {
            self.open.push(Open { node, boundary });
        }
        self.nodes.push(Node { kind, header, body: body..body, children: Vec::new() });
        Entered { is_message: kind == Kind::Message, body }
    }

    /// Where the header of the next part begins, if there is one at or behind the line that begins at `from`.
    fn next_part(&mut self, mut from: usize) -> Option<usize> {
        loop {
            let found = self.find_delimiter(from);
            self.looked_at += found.as_ref().map_or(self.raw.len(), |delimiter| delimiter.next_line) - from;
            let delimiter = found?;
            let end = before_line_break(self.raw, delimiter.line);
            self.close_down_to(delimiter.level + 1, end);
            if !delimiter.closes {
                return Some(delimiter.next_line);
            }
            // What stands between the end of a multipart and the next boundary around it belongs to nobody.
            self.close_down_to(delimiter.level, end);
            from = delimiter.next_line;
        }
    }

    fn find_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.iter().all(|open| open.boundary.is_empty()) {
            return None;
        }
        let mut line = from;
        loop {
            let mut search = line;
            if self.raw[line..].starts_with(b"--") {
                let (text_end, next_line) = field::line(self.raw, line);
                if let Some((level, closes)) = match_boundary(&self.open, &self.raw[line..text_end]) {
                    return Some(Delimiter { level, line, next_line, closes });
                }
                // The line break itself begins the next match.
                search = next_line - 1;
            }
            line = search + self.dashes.find(&self.raw[search..])? + 1;
        }
    }

    /// Ends the leaf that is being read and everything that is open at `level` and within.
    fn close_down_to(&mut self, level: usize, end: usize) {
        if let Some(leaf) = self.leaf.take() {
            let body = &mut self.nodes[leaf].body;
            body.end = end.max(body.start);
        }
        while self.open.len() > level {
            let Some(open) = self.open.pop() else { return };
            let node = &mut self.nodes[open.node];
            node.body.end = end.max(node.body.start);
            if node.children.is_empty() {
                // Promised parts and has none: what is there is shown as text.
                node.kind = Kind::Leaf;
                node.header.content_type = TEXT_PLAIN.to_owned();
            }
        }
    }
}

struct Entered {
    is_message: bool,
    /// Where the body begins, or the boundary that stands in its place.
    body: usize,
}

/// The end of what stands before the line that begins at `line`: the line break belongs to the boundary (RFC 2046 section
/// 5.1.1).
fn before_line_break(raw: &[u8], line: usize) -> usize {
    let text = &raw[..line];
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.strip_suffix(b"\r").unwrap_or(text).len()
}

/// The innermost boundary that `line` is, and whether it is the last one of its multipart.
fn match_boundary(open: &[Open], line: &[u8]) -> Option<(usize, bool)> {
    let text = line.strip_prefix(b"--")?.trim_ascii_end();
    if text.len() > BOUNDARY_BYTES_MAX + 2 {
        return None;
    }
    let inner = text.strip_suffix(b"--");
    open.iter().enumerate().rev().filter(|(_, open)| !open.boundary.is_empty()).find_map(|(level, open)| {
        if text == open.boundary {
            Some((level, false))
        } else {
            (inner == Some(&open.boundary)).then_some((level, true))
        }
    })
}

const TEXT_PLAIN: &str = "text/plain";
const OCTETS: &str = "application/octet-stream";

impl PartHeader {
    fn read(raw: &[u8], known: &Known, in_digest: bool) -> Self {
        let parameters = |name, charset: &str| field::parameters(known.value(raw, name), charset, PART_FIELD_BYTES_MAX);
        let content_type = parameters(Name::ContentType, "");
        let attribute = |name| content_type.get(name).unwrap_or_default();
        let charset = charset_name(&attribute("charset"));
        let disposition = parameters(Name::ContentDisposition, &charset);
        let filename = disposition.name("filename").filter(|name| !name.is_empty());
        let filename = filename.or_else(|| content_type.name("name")).unwrap_or_default();
        let boundary = attribute("boundary").trim_ascii_end().as_bytes().to_vec();
        let media_type = media_type(&content_type.value, in_digest);
        Self {
            encoding: transfer_encoding(known.value(raw, Name::ContentTransferEncoding)),
            disposition: token(&disposition.value, DISPOSITION_BYTES_MAX).unwrap_or_default().to_ascii_lowercase(),
            filename: file_name(&filename, FILENAME_BYTES_MAX, EXTENSION_BYTES_MAX),
            content_id: content_id(known.value(raw, Name::ContentId)),
            root: if media_type == "multipart/related" { Root::of(&content_type) } else { Root::default() },
            content_type: match media_type {
                // Without a boundary there are no parts: what is there is shown as text.
                media if media.starts_with("multipart/") && boundary.is_empty() => TEXT_PLAIN.to_owned(),
                media => media,
            },
            charset,
            boundary,
        }
    }

    fn kind(&self, may_hold_parts: bool) -> (Kind, Vec<u8>) {
        if !may_hold_parts {
            return (Kind::Leaf, Vec::new());
        }
        // RFC 2046 section 5.2.1: no encoding but 7bit, 8bit and binary is permitted for a message within a message.
        let is_message = matches!(self.content_type.as_str(), "message/rfc822" | "message/global");
        if is_message && self.encoding == TransferEncoding::Identity {
            return (Kind::Message, Vec::new());
        }
        let has_boundary = (1..=BOUNDARY_BYTES_MAX).contains(&self.boundary.len());
        match self.content_type.strip_prefix("multipart/") {
            Some(subtype) if has_boundary => {
                let multipart = match subtype {
                    "alternative" => Multipart::Alternative,
                    "related" => Multipart::Related,
                    "digest" => Multipart::Digest,
                    _ => Multipart::Other,
                };
                (Kind::Multipart(multipart), self.boundary.clone())
            }
            _ => (Kind::Leaf, Vec::new()),
        }
    }
}

impl Root {
    fn of(related: &Parameterised) -> Self {
        let start = related.get("start").unwrap_or_default();
        let bare = start.trim_ascii().trim_start_matches('<').trim_end_matches('>');
        Self {
            content_id: folded(bare, CONTENT_ID_BYTES_MAX),
            content_type: related.get("type").unwrap_or_default().trim_ascii().to_ascii_lowercase(),
        }
    }
}

fn content_id(value: &[u8]) -> String {
    let id = super::ids::ids(value).next();
    id.map(|id| folded(&String::from_utf8_lossy(id), CONTENT_ID_BYTES_MAX)).unwrap_or_default()
}

/// The name of a charset, without what senders put around it.
fn charset_name(attribute: &str) -> String {
    let ends = |c: char| c.is_ascii_whitespace() || matches!(c, ';' | ',' | '"' | '\'');
    let name = attribute.split(ends).find(|name| !name.is_empty()).unwrap_or_default();
    token(name, CHARSET_BYTES_MAX).unwrap_or_default()
}

/// RFC 2045 section 5.2: what has no type, or one that cannot be read, is text; in a digest it is a message (RFC 2046
/// section 5.1.5).
fn media_type(value: &str, in_digest: bool) -> String {
    if value.is_empty() {
        return if in_digest { "message/rfc822" } else { TEXT_PLAIN }.to_owned();
    }
    let Some((kind, subtype)) = value.split_once('/') else { return TEXT_PLAIN.to_owned() };
    let (kind, subtype) = (kind.trim_ascii(), subtype.trim_ascii());
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_token_byte);
    let fits = kind.len() + 1 + subtype.len() <= CONTENT_TYPE_BYTES_MAX;
    if fits && is_token(kind) && is_token(subtype) {
        format!("{kind}/{subtype}").to_ascii_lowercase()
    } else {
        OCTETS.to_owned()
    }
}

/// RFC 2045 section 6.1. What is not known is taken as it is: a reader gets the bytes that came.
fn transfer_encoding(value: &[u8]) -> TransferEncoding {
    let value = value.trim_ascii();
    let word =
        value.split(|byte| matches!(byte, b' ' | b'\t' | b';' | b'(' | b'\r' | b'\n')).next().unwrap_or_default();
    if word.eq_ignore_ascii_case(b"base64") {
        TransferEncoding::Base64
    } else if word.eq_ignore_ascii_case(b"quoted-printable") {
        TransferEncoding::QuotedPrintable
    } else {
        TransferEncoding::Identity
    }
}

/// `text` if it is a token (RFC 2045 section 5.1) of at most `bytes_max` bytes.
fn token(text: &str, bytes_max: usize) -> Option<String> {
    let text = text.trim();
    (text.len() <= bytes_max && text.bytes().all(is_token_byte)).then(|| text.to_owned())
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kind, type and body of each node, indented by depth.
    fn outline(raw: &str) -> Vec<String> {
        fn add(structure: &Structure, raw: &str, node: usize, depth: usize, out: &mut Vec<String>) {
            let it = &structure.nodes[node];
            let body = if it.kind == Kind::Leaf { &raw[it.body.clone()] } else { "" };
            out.push(format!("{}{} {body:?}", "  ".repeat(depth), it.header.content_type));
            for child in &it.children {
                add(structure, raw, *child, depth + 1, out);
            }
        }
        let mut out = Vec::new();
        add(&parse(raw.as_bytes()), raw, 0, 0, &mut out);
        out
    }

    #[test]
    fn a_message_without_mime_is_one_leaf() {
        assert_eq!(outline("Subject: x\r\n\r\nhello\r\n"), [r#"text/plain "hello\r\n""#]);
        assert_eq!(outline("\r\nhello"), [r#"text/plain "hello""#]);
        assert_eq!(outline(""), [r#"text/plain """#]);
    }

    #[test]
    fn multiparts_nest_and_end_at_the_boundaries_around_them() {
        let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\npreamble\r\n--a\r\n\
                   Content-Type: multipart/alternative; boundary=\"b b\"\r\n\r\n--b b\r\n\r\nplain\r\n--b b \t\r\n\
                   Content-Type: text/html\r\n\r\n<p>\r\n--a\r\nContent-Type: image/png\r\n\r\n\r\n--ab\r\npng\r\n--a--\r\nepilogue";
        assert_eq!(
            outline(raw),
            [
                "multipart/mixed \"\"",
                "  multipart/alternative \"\"",
                "    text/plain \"plain\"",
                "    text/html \"<p>\"",
                "  image/png \"\\r\\n--ab\\r\\npng\"",
            ]
        );
    }

    #[test]
    fn a_message_within_a_message_has_its_own_tree() {
        let raw = "Content-Type: multipart/digest; boundary=a\r\n\r\n--a\r\n\r\nSubject: x\r\n\
                   Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\none\r\n--c--\r\n\r\n--a\r\n\
                   Content-Type: message/rfc822\r\n\r\nSubject: y\r\n\r\ntwo\r\n--a--\r\n";
        assert_eq!(
            outline(raw),
            [
                "multipart/digest \"\"",
                "  message/rfc822 \"\"",
                "    multipart/mixed \"\"",
                "      text/plain \"one\"",
                "  message/rfc822 \"\"",
                "    text/plain \"two\"",
            ]
        );
    }

    #[test]
    fn a_multipart_without_parts_is_text() {
        let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\nno part here\r\n";
        assert_eq!(outline(raw), [r#"text/plain "no part here\r\n""#]);
        let raw = "Content-Type: multipart/mixed\r\n\r\nno boundary\r\n";
        assert_eq!(outline(raw), [r#"text/plain "no boundary\r\n""#]);
    }

    #[test]
    fn a_header_that_a_boundary_ends_has_no_body() {
        let raw =
            "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: image/png\r\n--a\r\n\r\nx\r\n--a--";
        assert_eq!(outline(raw), ["multipart/mixed \"\"", "  image/png \"\"", "  text/plain \"x\""]);
    }

    #[test]
    fn repeated_boundaries_make_no_parts() {
        let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n--a\r\n\r\nx\r\n--a\r\n--a--";
        assert_eq!(outline(raw), ["multipart/mixed \"\"", "  text/plain \"x\""]);
    }

    #[test]
    fn headers_of_parts_are_read() {
        let raw = b"Content-Type: text/html; charset=\"EUC-KR\"; name=fallback.html\r\n\
            Content-Transfer-Encoding: Base64 (really)\r\nContent-ID: <one@x>\r\n\
            Content-Disposition: ATTACHMENT; filename*=utf-8''%EC%95%88%0A.html\r\n\r\n";
        let header = &parse(raw).nodes[0].header;
        assert_eq!(header.content_type, "text/html");
        assert_eq!(header.charset, "EUC-KR");
        assert_eq!(header.encoding, TransferEncoding::Base64);
        assert_eq!(header.disposition, "attachment");
        assert_eq!(header.filename, "안 .html");
        assert_eq!(header.content_id, "one@x");
    }

    #[test]
    fn depth_and_number_of_parts_are_bounded() {
        let deep: String =
            (0..10_000).map(|at| format!("Content-Type: multipart/mixed; boundary=b{at}\r\n\r\n--b{at}\r\n")).collect();
        assert_eq!(parse(deep.as_bytes()).nodes.len(), MIME_DEPTH_MAX + 1);
        let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
        assert_eq!(parse(deep.as_bytes()).nodes.len(), MIME_DEPTH_MAX + 1);
        let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\n".repeat(100_000));
        assert_eq!(parse(wide.as_bytes()).nodes.len(), NODES_MAX);
    }

    proptest! {
        #[test]
        fn bodies_are_ordered_and_apart(lines in proptest::collection::vec(proptest::sample::select(vec![
            "", "Content-Type: multipart/mixed; boundary=a", "Content-Type: multipart/digest; boundary=b", "--a", "--b", "--a--",
            "--b--", "text", "Content-Type: message/rfc822", "--"]), 0..40), crlf: bool) {
            let raw = lines.join(if crlf { "\r\n" } else { "\n" });
            let structure = parse(raw.as_bytes());
            let mut end = 0;
            for node in structure.nodes.iter().filter(|node| node.kind == Kind::Leaf) {
                prop_assert!(node.body.start >= end && node.body.end >= node.body.start);
                end = node.body.end;
            }
            prop_assert!(end <= raw.len());
        }
    }
}
