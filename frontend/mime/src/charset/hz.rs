//! HZ (RFC 1843): GB 2312 between `~{` and `~}`, in seven bits.

use encoding_rs::GB18030;

/// `bytes` as text.
pub(super) fn decode(bytes: &[u8]) -> String {
    // Written as EUC-CN first, which the table knows.
    let mut out = Vec::with_capacity(bytes.len());
    let mut in_gb = false;
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'~', [b'{', tail @ ..]) => {
                in_gb = true;
                rest = tail;
            }
            (b'~', [b'}', tail @ ..]) if in_gb => {
                in_gb = false;
                rest = tail;
            }
            (b'~', [b'~', tail @ ..]) if !in_gb => {
                out.push(b'~');
                rest = tail;
            }
            // A line that goes on: neither the tilde nor the line break is text.
            (b'~', [b'\n', tail @ ..] | [b'\r', b'\n', tail @ ..]) if !in_gb => rest = tail,
            (0x21..=0x7e, [second @ 0x21..=0x7e, tail @ ..]) if in_gb => {
                out.extend_from_slice(&[byte | 0x80, second | 0x80]);
                rest = tail;
            }
            _ => {
                // A line ends in ASCII, whatever it forgot.
                in_gb &= byte != b'\n';
                out.push(byte);
            }
        }
    }
    GB18030.decode_without_bom_handling(&out).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_1843_says() {
        assert_eq!(decode(b"Q3: ~{;aRi<GB<#,Gk2iJU~} ok"), "Q3: 会议记录，请查收 ok");
        assert_eq!(decode(b"a~~b ~{;aRi~}c~\n d"), "a~b 会议c d");
        assert_eq!(decode(b"~{;aRi\r\nplain ~ and ~x"), "会议\r\nplain ~ and ~x");
        assert_eq!(decode(b"~{;"), ";");
    }
}
