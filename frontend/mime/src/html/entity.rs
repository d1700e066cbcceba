//! Character references (HTML Standard, section 13.2.5.72).

use std::char::REPLACEMENT_CHARACTER;

use mail_parser::decoders::html::add_html_token;

/// The longest name of a reference, bytes, with the ampersand and the semicolon.
const REFERENCE_BYTES_MAX: usize = 34;

/// Names that browsers know without their semicolon, as far as mail has them.
const WITHOUT_SEMICOLON: [&str; 12] =
    ["nbsp", "amp", "lt", "gt", "quot", "copy", "reg", "shy", "auml", "ouml", "uuml", "szlig"];

/// What bytes 0x80 to 0x9f mean where they are given by number: the characters of windows-1252.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Gives `text` piece by piece, its references decoded.
pub(super) fn decode(text: &str, mut push: impl FnMut(&str)) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'&', rest.as_bytes()) {
        push(&rest[..at]);
        rest = &rest[at..];
        match reference(rest) {
            Some((decoded, length)) => {
                push(&decoded);
                rest = &rest[length..];
            }
            None => {
                push("&");
                rest = &rest[1..];
            }
        }
    }
    push(rest);
}

/// The reference that `text` begins with, and its length.
fn reference(text: &str) -> Option<(String, usize)> {
    let bytes = text.as_bytes();
    if bytes.get(1) == Some(&b'#') {
        return number(bytes);
    }
    let length = bytes[1..].iter().take(REFERENCE_BYTES_MAX).take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let name = &text[1..1 + length];
    if length > 0 && bytes.get(1 + length) == Some(&b';') {
        let token = &text[..length + 2];
        let mut decoded = String::new();
        add_html_token(&mut decoded, token.as_bytes(), false);
        // A name that the table does not know comes back as it is.
        return (decoded != token).then_some((decoded, token.len()));
    }
    let known = WITHOUT_SEMICOLON.iter().find(|known| name.starts_with(**known))?;
    let mut decoded = String::new();
    add_html_token(&mut decoded, format!("&{known};").as_bytes(), false);
    Some((decoded, known.len() + 1))
}

fn number(bytes: &[u8]) -> Option<(String, usize)> {
    let is_hex = matches!(bytes.get(2), Some(b'x' | b'X'));
    let from = if is_hex { 3 } else { 2 };
    let is_digit = |byte: &u8| if is_hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_digit() };
    let digits = bytes[from..].iter().take_while(|byte| is_digit(byte)).count();
    if digits == 0 {
        return None;
    }
    let radix = if is_hex { 16 } else { 10 };
    let code = bytes[from..from + digits].iter().fold(0u32, |code, digit| {
        code.saturating_mul(radix).saturating_add(char::from(*digit).to_digit(radix).unwrap_or(0))
    });
    let c = match code {
        0 => REPLACEMENT_CHARACTER,
        0x80..=0x9f => WINDOWS_1252[code as usize - 0x80],
        code => char::from_u32(code).unwrap_or(REPLACEMENT_CHARACTER),
    };
    let end = from + digits;
    Some((c.to_string(), end + usize::from(bytes.get(end) == Some(&b';'))))
}
