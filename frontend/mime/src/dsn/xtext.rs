//! xtext (RFC 3461 section 4): how ENVID and ORCPT carry what is not printable.

/// Whether the text is xtext already.
pub fn is_xtext(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let is_hex = |byte: Option<u8>| matches!(byte, Some(b'0'..=b'9' | b'A'..=b'F'));
        match byte {
            b'+' => {
                if !(is_hex(bytes.next()) && is_hex(bytes.next())) {
                    return false;
                }
            }
            b'=' => return false,
            b'!'..=b'~' => {}
            _ => return false,
        }
    }
    true
}

/// What xtext stands for; the text itself where it is none, or stands for no text.
pub fn from_xtext(text: &str) -> String {
    if !is_xtext(text) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, left)) = rest.split_first() {
        rest = left;
        if *byte != b'+' {
            out.push(*byte);
            continue;
        }
        // Two digits follow, as was looked at above.
        let (digits, left) = rest.split_at(2);
        rest = left;
        let value = digits.iter().fold(0, |value, digit| value * 16 + (*digit as char).to_digit(16).unwrap_or(0));
        // Two hexadecimal digits are a byte.
        out.push(value as u8);
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_read() {
        assert_eq!(from_xtext("a+2Bb+20c+3D"), "a+b c=");
        for text in ["a+b", "a=b", "a b", "a+2", "a+2g", "ü", "+FF"] {
            assert_eq!(from_xtext(text), text);
        }
        assert!(is_xtext("") && is_xtext("a+2B") && !is_xtext("a+2b"));
    }
}
