//! Header fields: where they stand in the raw message, and what their values say.
//!
//! Where a header section ends, and which fields it has, is decided as Python's `email` does, which the thread oracle reads
//! with: a section ends at the first empty line, or before the first line that is no field, no continuation and no `From `
//! line of a mailbox file. The one difference: white space before the colon is taken (RFC 5322 section 4.5).

use std::borrow::Cow;
use std::ops::Range;

use mail_parser::parsers::MessageStream;
use mail_parser::{Address, ContentType, HeaderValue};

use super::charset::to_text;
use super::limit::FIELD_BYTES_MAX;

/// The fields that this module knows by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    From,
    To,
    Cc,
    Bcc,
    ReplyTo,
    Subject,
    Date,
    MessageId,
    InReplyTo,
    References,
    ContentType,
    ContentTransferEncoding,
    ContentDisposition,
    ContentId,
}

const NAMES: [(&[u8], Name); 14] = [
    (b"from", Name::From),
    (b"to", Name::To),
    (b"cc", Name::Cc),
    (b"bcc", Name::Bcc),
    (b"reply-to", Name::ReplyTo),
    (b"subject", Name::Subject),
    (b"date", Name::Date),
    (b"message-id", Name::MessageId),
    (b"in-reply-to", Name::InReplyTo),
    (b"references", Name::References),
    (b"content-type", Name::ContentType),
    (b"content-transfer-encoding", Name::ContentTransferEncoding),
    (b"content-disposition", Name::ContentDisposition),
    (b"content-id", Name::ContentId),
];

/// One field as it stands in the raw message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Range<usize>,
    /// With its line breaks, the last included.
    pub(super) value: Range<usize>,
}

/// The first field of each known name.
#[derive(Debug, Clone, Default)]
pub(super) struct Known([Option<Range<usize>>; NAMES.len()]);

impl Known {
    /// Keeps the field if its name is known and it is the first of that name.
    pub(super) fn keep(&mut self, raw: &[u8], field: &Field) {
        let name = &raw[field.name.clone()];
        let known = NAMES.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        if let Some((_, known)) = known {
            self.0[*known as usize].get_or_insert_with(|| field.value.clone());
        }
    }

    /// The value as it stands in the raw message; empty where there is no such field.
    pub(super) fn value<'a>(&self, raw: &'a [u8], name: Name) -> &'a [u8] {
        self.0[name as usize].clone().map_or(&[], |range| &raw[range])
    }
}

/// The line that begins at `at`: its end without the line break, and where the next begins.
pub(super) fn line(raw: &[u8], at: usize) -> (usize, usize) {
    match memchr::memchr(b'\n', &raw[at..]) {
        Some(length) => {
            let end = at + length;
            let text_end = if end > at && raw[end - 1] == b'\r' { end - 1 } else { end };
            (text_end, end + 1)
        }
        None => (raw.len(), raw.len()),
    }
}

/// How a header section ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionEnd {
    /// The body begins here.
    Body(usize),
    /// A line that `stop` knows begins here: there is no body.
    Stopped(usize),
}

/// Walks the header section that begins at `start`, giving each field of its first `bytes_max` bytes to `visit`. A line for
/// which `stop` says so ends it.
pub(super) fn walk_section(
    raw: &[u8],
    start: usize,
    bytes_max: usize,
    mut stop: impl FnMut(&[u8]) -> bool,
    mut visit: impl FnMut(Field),
) -> SectionEnd {
    let mut field: Option<Field> = None;
    let mut at = start;
    let end = loop {
        if at >= raw.len() {
            break SectionEnd::Body(raw.len());
        }
        let (text_end, next) = line(raw, at);
        let text = &raw[at..text_end];
        if text.starts_with(b"--") && stop(text) {
            break SectionEnd::Stopped(at);
        }
        if text.is_empty() {
            break SectionEnd::Body(next);
        }
        let in_view = next - start <= bytes_max;
        if matches!(text[0], b' ' | b'\t') {
            // A continuation without a field before it belongs to nothing.
            if let Some(field) = field.as_mut().filter(|_| in_view) {
                field.value.end = next;
            }
        } else {
            if let Some(field) = field.take() {
                visit(field);
            }
            if let Some(name) = name_length(text) {
                field = in_view.then(|| Field { name: at..at + name.length, value: at + name.colon + 1..next });
            } else if !text.starts_with(b"From ") {
                break SectionEnd::Body(at);
            }
        }
        at = next;
    };
    if let Some(field) = field {
        visit(field);
    }
    end
}

struct NameLength {
    length: usize,
    colon: usize,
}

/// Printable ASCII without the colon, then white space, then the colon (RFC 5322 sections 3.6.8 and 4.5).
fn name_length(text: &[u8]) -> Option<NameLength> {
    let length = text.iter().position(|byte| !(b'!'..=b'~').contains(byte) || *byte == b':')?;
    let space = text[length..].iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    let colon = length + space;
    // `From ` begins the line of a mailbox file, not a field with white space behind its name.
    let is_mbox = space > 0 && &text[..length] == b"From";
    (length > 0 && text[colon] == b':' && !is_mbox).then_some(NameLength { length, colon })
}

/// A value as the grammar wants it: text, of bounded length, ended by a line break.
fn prepared<'a>(value: &'a [u8], charset: &str) -> Cow<'a, [u8]> {
    let value = &value[..value.len().min(FIELD_BYTES_MAX)];
    let ended = value.ends_with(b"\n");
    if ended && value.is_ascii() {
        return Cow::Borrowed(value);
    }
    let mut text = to_text(value, charset).into_owned().into_bytes();
    if !text.ends_with(b"\n") {
        text.extend_from_slice(b"\r\n");
    }
    Cow::Owned(text)
}

/// An unstructured value (RFC 5322 section 3.2.5) with its encoded words decoded (RFC 2047). `charset` is what bytes that
/// are not UTF-8 are taken for.
pub(super) fn unstructured(value: &[u8], charset: &str) -> String {
    match MessageStream::new(&prepared(value, charset)).parse_unstructured() {
        HeaderValue::Text(text) => text.into_owned(),
        HeaderValue::TextList(list) => list.join(" "),
        _ => String::new(),
    }
}

/// Names and addresses of a list (RFC 5322 section 3.4), groups flattened.
pub(super) fn addresses(value: &[u8], charset: &str) -> Vec<(String, String)> {
    let value = prepared(value, charset);
    let HeaderValue::Address(address) = MessageStream::new(&value).parse_address() else { return Vec::new() };
    let flat = match address {
        Address::List(list) => list,
        Address::Group(groups) => groups.into_iter().flat_map(|group| group.addresses).collect(),
    };
    let text = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned).unwrap_or_default();
    flat.into_iter().map(|one| (text(one.name), text(one.address))).collect()
}

/// A value with parameters (RFC 2045 section 5.1), continuations and charsets of RFC 2231 decoded.
pub(super) fn parameters(value: &[u8], charset: &str, bytes_max: usize) -> Option<ContentType<'static>> {
    let value = prepared(&value[..value.len().min(bytes_max)], charset);
    match MessageStream::new(&value).parse_content_type().into_owned() {
        HeaderValue::ContentType(value) => Some(value),
        _ => None,
    }
}

/// A date (RFC 5322 section 3.3) in milliseconds since the Unix epoch.
pub(super) fn date_ms(value: &[u8]) -> Option<i64> {
    match MessageStream::new(&prepared(value, "")).parse_date() {
        HeaderValue::DateTime(date) if date.is_valid() => date.to_timestamp().checked_mul(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(raw: &[u8]) -> (Vec<(String, String)>, SectionEnd) {
        let mut found = Vec::new();
        let end = walk_section(
            raw,
            0,
            usize::MAX,
            |_| false,
            |field| {
                let text = |range: Range<usize>| String::from_utf8_lossy(&raw[range]).into_owned();
                found.push((text(field.name), text(field.value)));
            },
        );
        (found, end)
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_section_ends_at_the_empty_line() {
        let (found, end) = fields(b"A: 1\r\nB : 2\r\n\t3\r\n\r\nC: 4\r\n");
        assert_eq!(found, [pair("A", " 1\r\n"), pair("B", " 2\r\n\t3\r\n")]);
        assert_eq!(end, SectionEnd::Body(19));
    }

    #[test]
    fn a_section_ends_before_what_is_no_field() {
        let (found, end) = fields(b"From ada Mon Jan 1\r\nA: 1\r\nno field\r\nB: 2\r\n");
        assert_eq!(found, [pair("A", " 1\r\n")]);
        assert_eq!(end, SectionEnd::Body(26));
    }

    #[test]
    fn a_section_without_an_end() {
        assert_eq!(fields(b"A: 1"), (vec![pair("A", " 1")], SectionEnd::Body(4)));
        assert_eq!(fields(b""), (vec![], SectionEnd::Body(0)));
        assert_eq!(fields(b" lost\r\nA:\r\n").0, [pair("A", "\r\n")]);
    }

    #[test]
    fn values_are_decoded() {
        assert_eq!(
            unstructured(b" =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?B?IGF1cw==?= Bonn\r\n", ""),
            "Grüße aus Bonn"
        );
        assert_eq!(unstructured(b" \xbe\xc8\xb3\xe7", "euc-kr"), "안녕");
        assert_eq!(
            addresses(b" \"Lovelace, Ada\" <ada@a.example>, team: bob@b.example (Bob), <c@c.example>;\r\n", ""),
            [pair("Lovelace, Ada", "ada@a.example"), pair("Bob", "bob@b.example"), pair("", "c@c.example")]
        );
        assert_eq!(date_ms(b" Mon, 21 Sep 2026 14:13:20 +0200\r\n"), Some(1_789_992_800_000));
        assert_eq!(date_ms(b" yesterday\r\n"), None);
        let value = parameters(b" attachment; filename*0*=utf-8''%EC%95%88; filename*1=\".pdf\"", "", 4096).unwrap();
        assert_eq!(value.attribute("filename"), Some("안.pdf"));
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"=?utf-8qQbB;*'%\"\\<>()@,: \t\r\n0129+-".to_vec()), any::<u8>()], 0..120)) {
            unstructured(&value, "euc-kr");
            addresses(&value, "");
            parameters(&value, "", 4096);
            date_ms(&value);
        }
    }
}
