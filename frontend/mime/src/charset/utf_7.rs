//! UTF-7 (RFC 2152): UTF-16 in base64 between `+` and whatever is no base64, of which only `-` is absorbed.

use std::char::{REPLACEMENT_CHARACTER, decode_utf16};

/// `bytes` as text. What is no UTF-7 stays as it is.
pub(super) fn decode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'+', rest) {
        push_direct(&rest[..at], &mut out);
        let run = &rest[at + 1..];
        let length = run.iter().take_while(|byte| symbol(**byte).is_some()).count();
        let tail = &run[length..];
        rest = match (length, tail) {
            (0, [b'-', tail @ ..]) => {
                out.push('+');
                tail
            }
            // Rule 2: the run is ill-formed without a symbol. The plus is text.
            (0, _) => {
                out.push('+');
                tail
            }
            (_, tail) => {
                push_run(&run[..length], &mut out);
                tail.strip_prefix(b"-").unwrap_or(tail)
            }
        };
    }
    push_direct(rest, &mut out);
    out
}

/// Bytes beyond ASCII are not allowed; they are most often UTF-8.
fn push_direct(bytes: &[u8], out: &mut String) {
    out.push_str(&String::from_utf8_lossy(bytes));
}

fn push_run(symbols: &[u8], out: &mut String) {
    let (mut bits, mut held) = (0u32, 0u32);
    let units = symbols.iter().filter_map(|byte| symbol(*byte)).filter_map(|value| {
        bits = (bits << 6) | u32::from(value);
        held += 6;
        (held >= 16).then(|| {
            held -= 16;
            let unit = (bits >> held) as u16;
            bits &= (1 << held) - 1;
            unit
        })
    });
    out.extend(decode_utf16(units).map(|unit| unit.unwrap_or(REPLACEMENT_CHARACTER)));
}

fn symbol(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_2152_says() {
        assert_eq!(decode(b"Hi Mom -+Jjo--!"), "Hi Mom -☺-!");
        assert_eq!(decode(b"+ZeVnLIqe-"), "日本語");
        assert_eq!(decode(b"Item 3 is +AKM-1."), "Item 3 is £1.");
        assert_eq!(decode(b"A+ImIDkQ."), "A≢Α.");
        assert_eq!(decode(b"caf+AOk au lait, 1 +- 1 = 2, +2D3cGw."), "café au lait, 1 + 1 = 2, 🐛.");
        assert_eq!(decode(b"end +AOk"), "end é");
    }

    #[test]
    fn what_is_none_stays() {
        assert_eq!(decode(b"1 + 1"), "1 + 1");
        assert_eq!(decode(b"+"), "+");
        assert_eq!(decode("é+AOk-".as_bytes()), "éé");
        assert_eq!(decode(b"+2D0-"), "\u{fffd}");
    }
}
