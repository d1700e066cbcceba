//! Tags, as far as text needs them.

/// Bytes of a name that are kept: no element that matters has a longer one.
const NAME_BYTES_MAX: usize = 16;

/// A start tag or an end tag.
#[derive(Debug, Default)]
pub(super) struct Tag {
    /// In lower case.
    pub(super) name: String,
    pub(super) closes: bool,
    /// Whether its attributes say that the element is not shown.
    pub(super) is_hidden: bool,
}

impl Tag {
    /// The tag that `html` begins with, and its length. One that never ends takes all that follows, as in a browser.
    pub(super) fn read(html: &str) -> (Self, usize) {
        let bytes = html.as_bytes();
        let closes = bytes.get(1) == Some(&b'/');
        let mut at = 1 + usize::from(closes);
        let ends_name = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        let length = bytes[at..].iter().position(ends_name).unwrap_or(bytes.len() - at);
        let name = bytes[at..at + length].iter().take(NAME_BYTES_MAX).map(|byte| char::from(byte.to_ascii_lowercase()));
        let mut tag = Self { name: name.collect(), closes, is_hidden: false };
        at += length;
        loop {
            at += bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'/').count();
            match bytes.get(at) {
                None => return (tag, bytes.len()),
                Some(b'>') => return (tag, at + 1),
                Some(_) => at = tag.attribute(html, at),
            }
        }
    }

    /// Reads the attribute that begins at `at`, and says where it ends.
    fn attribute(&mut self, html: &str, at: usize) -> usize {
        let bytes = html.as_bytes();
        let ends_name = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>' | b'=');
        let length = bytes[at + 1..].iter().position(ends_name).unwrap_or(bytes.len() - at - 1) + 1;
        let name = &bytes[at..at + length];
        let mut end = at + length;
        let spaces = bytes[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let mut value = &bytes[..0];
        if bytes.get(end + spaces) == Some(&b'=') {
            end += spaces + 1;
            end += bytes[end..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            (value, end) = attribute_value(bytes, end);
        }
        self.is_hidden |= name.eq_ignore_ascii_case(b"hidden") || (name.eq_ignore_ascii_case(b"style") && hides(value));
        end
    }

    /// Whether the element has no content.
    pub(super) fn is_void(&self) -> bool {
        matches!(
            self.name.as_str(),
            "area"
                | "base"
                | "br"
                | "col"
                | "embed"
                | "hr"
                | "img"
                | "input"
                | "link"
                | "meta"
                | "source"
                | "track"
                | "wbr"
        )
    }
}

fn attribute_value(bytes: &[u8], at: usize) -> (&[u8], usize) {
    match bytes.get(at) {
        Some(quote @ (b'"' | b'\'')) => match memchr::memchr(*quote, &bytes[at + 1..]) {
            Some(length) => (&bytes[at + 1..at + 1 + length], at + length + 2),
            None => (&bytes[at..], bytes.len()),
        },
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'>';
            let length = bytes[at..].iter().position(ends).unwrap_or(bytes.len() - at);
            (&bytes[at..at + length], at + length)
        }
    }
}

/// Whether a style takes its element off the page.
fn hides(style: &[u8]) -> bool {
    style.split(|byte| *byte == b';').any(|declaration| {
        let Some(colon) = memchr::memchr(b':', declaration) else { return false };
        let (property, value) = (declaration[..colon].trim_ascii(), declaration[colon + 1..].trim_ascii());
        let first = value.split(|byte| byte.is_ascii_whitespace() || *byte == b'!').next().unwrap_or_default();
        let says = |name: &[u8], value: &[u8]| property.eq_ignore_ascii_case(name) && first.eq_ignore_ascii_case(value);
        says(b"display", b"none") || says(b"visibility", b"hidden")
    })
}
