//! Bytes to text by the charset that a part names.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;

/// What bytes that are not UTF-8 are taken for where no charset is named, or one that nobody knows: every byte has a
/// character in it, and it is what most senders of undeclared 8-bit mail meant.
const FALLBACK: &[u8] = b"windows-1252";

/// `bytes` as text. `charset` is a name as it stands in the mail; empty where there is none.
pub(super) fn to_text<'a>(bytes: &'a [u8], charset: &str) -> Cow<'a, str> {
    // What claims to be ASCII or claims nothing is most often UTF-8 when it has 8-bit bytes at all.
    let undeclared = charset.is_empty() || charset.eq_ignore_ascii_case("us-ascii") || is_utf8(charset);
    if undeclared {
        match std::str::from_utf8(bytes) {
            Ok(text) => return Cow::Borrowed(text),
            // A sender who says UTF-8 and is wrong in a few places, or was cut in the middle of a character.
            Err(_) if is_utf8(charset) => return String::from_utf8_lossy(bytes),
            Err(error) if error.error_len().is_none() => return String::from_utf8_lossy(bytes),
            Err(_) => {}
        }
    }
    let name = if undeclared { FALLBACK } else { charset.as_bytes() };
    match charset_decoder(name).or_else(|| charset_decoder(FALLBACK)) {
        Some(decoder) => Cow::Owned(decoder(bytes)),
        None => String::from_utf8_lossy(bytes),
    }
}

fn is_utf8(charset: &str) -> bool {
    charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_charsets_are_read() {
        assert_eq!(to_text(b"\xbe\xc8\xb3\xe7", "EUC-KR"), "안녕");
        assert_eq!(to_text(b"caf\xe9", "iso-8859-1"), "café");
        assert_eq!(to_text("안녕".as_bytes(), "utf-8"), "안녕");
    }

    #[test]
    fn undeclared_bytes_are_utf_8_if_they_can_be() {
        assert_eq!(to_text("안녕".as_bytes(), ""), "안녕");
        assert_eq!(to_text("안녕".as_bytes(), "us-ascii"), "안녕");
        assert_eq!(to_text(b"caf\xe9!", ""), "café!");
        assert_eq!(to_text(b"caf\xe9!", "x-nobody-knows"), "café!");
    }
}
