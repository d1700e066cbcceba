//! Header fields: where they stand in the raw message, and what their values say.
//!
//! Where a header section ends, and which fields it has, is decided as Python's `email` does, which the thread oracle reads
//! with: a section ends at the first empty line, or before the first line that is no field, no continuation and no `From `
//! line of a mailbox file. The one difference: white space before the colon is taken (RFC 5322 section 4.5), behind `From` too,
//! because the line of a mailbox file has no colon there.

use std::borrow::Cow;
use std::ops::Range;

use super::addresses::{self, Addresses, Separator};
use super::charset::header_text;
use super::limit::FIELD_BYTES_MAX;
use super::parameters::{self, Parameterised};
use super::{date, encoded_word};

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
    (length > 0 && text[colon] == b':').then_some(NameLength { length, colon })
}

/// A value as the grammars want it: text of bounded length, unfolded (RFC 5322 section 2.2.3), without white space at its ends.
/// White space that holds a line break becomes one space.
fn prepared<'a>(value: &'a [u8], charset: &str) -> Cow<'a, str> {
    let text = header_text(value[..value.len().min(FIELD_BYTES_MAX)].trim_ascii(), charset);
    if memchr::memchr2(b'\r', b'\n', text.as_bytes()).is_none() {
        return text;
    }
    let mut unfolded = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest.as_bytes()) {
        unfolded.push_str(rest[..at].trim_ascii_end());
        unfolded.push(' ');
        rest = rest[at..].trim_ascii_start();
    }
    unfolded.push_str(rest);
    Cow::Owned(unfolded)
}

/// An unstructured value (RFC 5322 section 3.2.5) with its encoded words decoded (RFC 2047). `charset` is what bytes that
/// are not UTF-8 are taken for.
pub(super) fn unstructured(value: &[u8], charset: &str) -> String {
    encoded_word::decoded(&prepared(value, charset)).into_owned()
}

/// Gives the mailboxes of a list (RFC 5322 section 3.4) to `take`, groups flattened, until it has enough.
pub(super) fn addresses(
    value: &[u8],
    charset: &str,
    separator: Separator,
    take: impl FnMut(addresses::HeaderMailbox) -> std::ops::ControlFlow<()>,
) {
    let text = prepared(value, charset);
    let list: Addresses<'_> = addresses::addresses(&text, separator);
    let is_cut = value.len() > FIELD_BYTES_MAX;
    let mut list = if is_cut { list.cut_off() } else { list };
    let _ = list.try_for_each(take);
}

/// A value with parameters (RFC 2045 section 5.1, RFC 2231). `charset` is what bytes that are not UTF-8 are taken for.
pub(super) fn parameters(value: &[u8], charset: &str, bytes_max: usize) -> Parameterised {
    parameters::parameters(&prepared(&value[..value.len().min(bytes_max)], charset))
}

/// A date (RFC 5322 section 3.3) in milliseconds since the Unix epoch.
pub(super) fn date_ms(value: &[u8]) -> Option<i64> {
    date::date_ms(&prepared(value, ""))
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
        assert_eq!(unstructured(b" a\r\n\t b  c \r\n", ""), "a b  c");
        assert_eq!(unstructured(b" \x1b$B2q5D\x1b(B", ""), "会議");
        assert_eq!(date_ms(b" Mon, 21 Sep 2026\r\n 14:13:20 +0200\r\n"), Some(1_789_992_800_000));
        let value = parameters(b" attachment;\r\n filename*0*=utf-8''%EC%95%88;\r\n filename*1=\".pdf\"", "", 4096);
        assert_eq!(value.get("filename").as_deref(), Some("안.pdf"));
    }

    #[test]
    fn a_list_longer_than_any_field_ends_with_a_whole_address() {
        let many = "a@field.example, ".repeat(FIELD_BYTES_MAX / 17) + "x@field.example.but.longer, b@field.example\r\n";
        let mut emails = Vec::new();
        addresses(many.as_bytes(), "", Separator::Comma, |one| {
            emails.push(one.email);
            std::ops::ControlFlow::Continue(())
        });
        assert!(emails.len() > 1000 && emails.iter().all(|email| email == "a@field.example"));
    }

    #[test]
    fn white_space_before_the_colon_is_taken() {
        let (found, _) = fields(b"From ada Mon Jan 1\r\nFrom : a\r\nTo\t: b\r\nDate  : c\r\n\r\n");
        assert_eq!(found, [pair("From", " a\r\n"), pair("To", " b\r\n"), pair("Date", " c\r\n")]);
    }

    proptest! {
        #[test]
        fn any_value_is_read(value in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"=?utf-8qQbB;*'%\"\\<>()@,: \t\r\n0129+-".to_vec()), any::<u8>()], 0..120)) {
            unstructured(&value, "euc-kr");
            addresses(&value, "", Separator::Comma, |_| std::ops::ControlFlow::Continue(()));
            parameters(&value, "", 4096);
            date_ms(&value);
        }
    }
}
