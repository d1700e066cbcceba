//! The list of parts: section numbers, and which parts are the text, the HTML and the attachments (RFC 8621 section 4.1.4).

use prost::Message as _;

use postrider_api::limit::PARTS_MAX;
use postrider_api::pb;

use super::limit::{CROWDED_FILENAME_BYTES_MAX, EXTENSION_BYTES_MAX, FILENAME_BYTES_MAX, PARTS_BYTES_MAX};
use super::structure::{Kind, Multipart, Node, Structure};
use super::text::file_name;

/// What a part takes for the hash that cutting may add, bytes.
const BLOB_FIELD_BYTES: usize = 40;

/// One leaf of the tree on its way to a row.
pub(super) struct Listed {
    pub(super) node: usize,
    pub(super) part: pb::Part,
}

/// Leaves and messages within, in the order of the raw message. What goes beyond `PARTS_MAX` or `PARTS_BYTES_MAX` is left out; names
/// are cut before a part is.
pub(super) fn list(structure: &Structure) -> Vec<Listed> {
    let nodes = &structure.nodes;
    let (paths, roles) = (paths(nodes), roles(nodes));
    let is_listed = |node: &&Node| !matches!(node.kind, Kind::Multipart(_));
    let wanted = nodes.iter().filter(is_listed).count().min(PARTS_MAX);
    let listed = with_names(nodes, &paths, &roles, FILENAME_BYTES_MAX);
    if listed.len() == wanted {
        return listed;
    }
    with_names(nodes, &paths, &roles, CROWDED_FILENAME_BYTES_MAX)
}

fn with_names(nodes: &[Node], paths: &[String], roles: &[Role], name_bytes_max: usize) -> Vec<Listed> {
    let mut bytes = 0;
    let mut listed = Vec::new();
    for (at, node) in nodes.iter().enumerate().filter(|(_, node)| !matches!(node.kind, Kind::Multipart(_))) {
        let header = &node.header;
        let part = pb::Part {
            path: paths[at].clone(),
            content_type: header.content_type.clone(),
            charset: header.charset.clone(),
            encoding: header.encoding.into(),
            disposition: header.disposition.clone(),
            filename: file_name(&header.filename, name_bytes_max, EXTENSION_BYTES_MAX),
            content_id: header.content_id.clone(),
            offset: node.body.start as u64,
            length: node.body.len() as u64,
            decoded_size: node.body.len() as u64,
            is_text_body: roles[at].text,
            is_html_body: roles[at].html,
            is_attachment: roles[at].attachment,
            blob: bytes::Bytes::new(),
        };
        bytes += part.encoded_len() + BLOB_FIELD_BYTES;
        if listed.len() == PARTS_MAX || bytes > PARTS_BYTES_MAX {
            break;
        }
        listed.push(Listed { node: at, part });
    }
    listed
}

/// Whether a list of messages shows a paper clip. RFC 8621 section 4.1.4: not for what is shown within the text.
pub(super) fn has_attachments(parts: &[pb::Part]) -> bool {
    parts.iter().any(|part| part.is_attachment && part.disposition != "inline" && !is_image_of_html(part))
}

fn is_image_of_html(part: &pb::Part) -> bool {
    part.disposition.is_empty() && !part.content_id.is_empty() && part.content_type.starts_with("image/")
}

/// Section numbers of RFC 3501 section 6.4.5; empty for a multipart that has none of its own.
fn paths(nodes: &[Node]) -> Vec<String> {
    let mut paths = vec![String::new(); nodes.len()];
    if nodes.first().is_some_and(|root| !matches!(root.kind, Kind::Multipart(_))) {
        paths[0] = "1".to_owned();
    }
    // Parents come before their children.
    for (at, node) in nodes.iter().enumerate() {
        for (number, &child) in (1..).zip(&node.children) {
            let is_body_of_message = node.kind == Kind::Message;
            paths[child] = match (paths[at].as_str(), &nodes[child].kind) {
                // The parts of a message's multipart are numbered as if they were the message's own.
                (path, Kind::Multipart(_)) if is_body_of_message => path.to_owned(),
                ("", _) => number.to_string(),
                (path, _) => format!("{path}.{number}"),
            };
        }
    }
    paths
}

#[derive(Clone, Copy, Default)]
struct Role {
    text: bool,
    html: bool,
    attachment: bool,
}

fn roles(nodes: &[Node]) -> Vec<Role> {
    let mut bodies = Bodies { nodes, roles: vec![Role::default(); nodes.len()], text: Vec::new(), html: Vec::new() };
    bodies.visit(&[0], 0, Scope { multipart: Multipart::Other, in_alternative: false, text: true, html: true });
    let mut roles = bodies.roles;
    for node in bodies.text {
        roles[node].text = nodes[node].header.content_type.starts_with("text/");
    }
    for node in bodies.html {
        roles[node].html = nodes[node].header.content_type.starts_with("text/");
    }
    roles
}

/// The algorithm of RFC 8621 section 4.1.4, with two differences: a picture or sound that stands among the text is an attachment
/// too, because our readers have no other way to it; and the root of a multipart/related is the part that it names (RFC 2387), which
/// need not be the first.
struct Bodies<'a> {
    nodes: &'a [Node],
    roles: Vec<Role>,
    text: Vec<usize>,
    html: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Scope {
    multipart: Multipart,
    in_alternative: bool,
    /// Whether parts still go to the text body, and to the HTML body.
    text: bool,
    html: bool,
}

impl Bodies<'_> {
    /// Recursion is as deep as the tree, which is bounded.
    fn visit(&mut self, children: &[usize], root: usize, mut scope: Scope) {
        let (text_before, html_before) = (self.text.len(), self.html.len());
        for (index, &child) in children.iter().enumerate() {
            let nodes = self.nodes;
            let node = &nodes[child];
            if let Kind::Multipart(multipart) = node.kind {
                let in_alternative = scope.in_alternative || multipart == Multipart::Alternative;
                self.visit(&node.children, root_of(node, nodes), Scope { multipart, in_alternative, ..scope });
            } else if !is_inline(node, index == root, scope.multipart) {
                self.roles[child].attachment = true;
            } else {
                self.add_inline(child, &mut scope);
            }
        }
        if scope.multipart == Multipart::Alternative && scope.text && scope.html {
            let (text_after, html_after) = (self.text.len(), self.html.len());
            if text_after == text_before && html_after != html_before {
                self.text.extend_from_slice(&self.html[html_before..]);
            } else if html_after == html_before && text_after != text_before {
                self.html.extend_from_slice(&self.text[text_before..]);
            }
        }
    }

    fn add_inline(&mut self, child: usize, scope: &mut Scope) {
        let content_type = self.nodes[child].header.content_type.as_str();
        if scope.multipart == Multipart::Alternative {
            match content_type {
                "text/plain" => self.text.push(child),
                "text/html" => self.html.push(child),
                _ => self.roles[child].attachment = true,
            }
            return;
        }
        if scope.in_alternative {
            match content_type {
                "text/plain" => scope.html = false,
                "text/html" => scope.text = false,
                _ => {}
            }
        }
        if scope.text {
            self.text.push(child);
        }
        if scope.html {
            self.html.push(child);
        }
        self.roles[child].attachment = is_media(content_type);
    }
}

/// Which child of a multipart is its root: the first, but of a multipart/related the one that it names, or else the first of the
/// media type that it promises.
fn root_of(node: &Node, nodes: &[Node]) -> usize {
    let root = &node.header.root;
    let first = |is_it: &dyn Fn(&super::structure::PartHeader) -> bool| {
        node.children.iter().position(|&child| is_it(&nodes[child].header))
    };
    let named = (!root.content_id.is_empty()).then(|| first(&|header| header.content_id == root.content_id)).flatten();
    let promised = || {
        // What the first part is when it is none of the kinds that text comes in.
        let is_text = |header: &super::structure::PartHeader| {
            header.content_type.starts_with("text/") || header.content_type.starts_with("multipart/")
        };
        if first(&is_text) == Some(0) { None } else { first(&|header| header.content_type == root.content_type) }
    };
    named.or_else(promised).unwrap_or(0)
}

fn is_inline(node: &Node, is_root: bool, multipart: Multipart) -> bool {
    let header = &node.header;
    let is_media = is_media(&header.content_type);
    header.disposition != "attachment"
        && node.kind == Kind::Leaf
        && (is_media || matches!(header.content_type.as_str(), "text/plain" | "text/html"))
        && (is_root || (multipart != Multipart::Related && (is_media || header.filename.is_empty())))
}

fn is_media(content_type: &str) -> bool {
    ["image/", "audio/", "video/"].iter().any(|media| content_type.starts_with(media))
}

#[cfg(test)]
mod tests {
    use super::super::structure::parse;
    use super::*;

    /// Path, type and roles (t, h, a) of each part.
    fn parts(raw: &str) -> Vec<String> {
        list(&parse(raw.as_bytes()))
            .iter()
            .map(|listed| {
                let part = &listed.part;
                let role = |is: bool, name: &'static str| if is { name } else { "" };
                let (text, html) = (role(part.is_text_body, "t"), role(part.is_html_body, "h"));
                format!("{} {} {text}{html}{}", part.path, part.content_type, role(part.is_attachment, "a"))
            })
            .collect()
    }

    fn multipart(subtype: &str, boundary: &str, parts: &[&str]) -> String {
        let mut raw = format!("Content-Type: multipart/{subtype}; boundary={boundary}\r\n\r\n");
        for part in parts {
            raw.push_str(&format!("--{boundary}\r\n{part}\r\n"));
        }
        raw + &format!("--{boundary}--\r\n")
    }

    const PLAIN: &str = "\r\nplain";
    const HTML: &str = "Content-Type: text/html\r\n\r\n<p>html";
    const PICTURE: &str = "Content-Type: image/png\r\nContent-ID: <p@x>\r\n\r\npng";
    const FILE: &str = "Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment\r\n\r\npdf";

    #[test]
    fn one_part_is_both_bodies() {
        assert_eq!(parts(PLAIN), ["1 text/plain th"]);
        assert_eq!(parts(HTML), ["1 text/html th"]);
        assert_eq!(parts(FILE), ["1 application/pdf a"]);
    }

    #[test]
    fn the_usual_shapes() {
        let alternative = multipart("alternative", "b", &[PLAIN, HTML]);
        assert_eq!(parts(&alternative), ["1 text/plain t", "2 text/html h"]);
        let mixed = multipart("mixed", "a", &[&alternative, FILE]);
        assert_eq!(parts(&mixed), ["1.1 text/plain t", "1.2 text/html h", "2 application/pdf a"]);
        let related = multipart("related", "c", &[HTML, PICTURE]);
        let alternative = multipart("alternative", "b", &[PLAIN, &related]);
        assert_eq!(parts(&alternative), ["1 text/plain t", "2.1 text/html h", "2.2 image/png a"]);
        let only_html = multipart("alternative", "b", &[HTML]);
        assert_eq!(parts(&only_html), ["1 text/html th"]);
        let footer = multipart("mixed", "a", &[PLAIN, PICTURE, PLAIN]);
        assert_eq!(parts(&footer), ["1 text/plain th", "2 image/png a", "3 text/plain th"]);
    }

    #[test]
    fn a_message_within_is_an_attachment_and_its_parts_are_numbered_below_it() {
        let inner = multipart("mixed", "c", &[PLAIN, FILE]);
        let outer = multipart("mixed", "a", &[PLAIN, &format!("Content-Type: message/rfc822\r\n\r\n{inner}")]);
        assert_eq!(parts(&outer), ["1 text/plain th", "2 message/rfc822 a", "2.1 text/plain ", "2.2 application/pdf "]);
        let simple = "Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhello";
        assert_eq!(parts(simple), ["1 message/rfc822 a", "1.1 text/plain "]);
    }

    #[test]
    fn a_picture_of_the_text_is_no_paper_clip() {
        let clip = |raw: &str| {
            let parts: Vec<_> = list(&parse(raw.as_bytes())).into_iter().map(|listed| listed.part).collect();
            has_attachments(&parts)
        };
        assert!(!clip(&multipart("related", "c", &[HTML, PICTURE])));
        assert!(clip(&multipart("mixed", "c", &[HTML, FILE])));
        assert!(!clip(PLAIN));
    }

    #[test]
    fn names_are_cut_before_a_part_is_left_out() {
        let part = format!("--b\r\nContent-Type: text/plain; name=\"{}.pdf\"\r\n\r\nx\r\n", "n".repeat(900));
        let many = |count| format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(count));
        let names = |count| -> Vec<usize> {
            list(&parse(many(count).as_bytes())).iter().map(|listed| listed.part.filename.len()).collect()
        };
        assert_eq!(names(100), [904; 100]);
        assert_eq!(names(400), [CROWDED_FILENAME_BYTES_MAX; 400]);
        assert!(list(&parse(many(400).as_bytes())).iter().all(|listed| listed.part.filename.ends_with(".pdf")));
    }

    #[test]
    fn the_list_is_bounded() {
        let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(5000));
        assert_eq!(list(&parse(wide.as_bytes())).len(), PARTS_MAX);
        let part = format!("--b\r\nContent-Type: text/plain; name={}\r\n\r\nx\r\n", "n".repeat(300));
        let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(5000));
        let listed = list(&parse(wide.as_bytes()));
        let bytes: usize = listed.iter().map(|listed| listed.part.encoded_len() + BLOB_FIELD_BYTES).sum();
        assert!(listed.len() < PARTS_MAX && bytes <= PARTS_BYTES_MAX);
    }
}
