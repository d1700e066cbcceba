//! The seven-bit charsets of ISO 2022: ISO-2022-JP with its successors (RFC 1468, 1554, 2237), -KR (RFC 1557), -CN (RFC 1922).
//!
//! One decoder reads all of them, because programs mix what the RFCs keep apart: half-width katakana and JIS X 0212 stand under the
//! name of ISO-2022-JP. Each run of two-byte characters is written as the EUC form of its set, which encoding_rs has a table for.

use encoding_rs::{EUC_JP, EUC_KR, Encoding, GB18030};

use super::label::Family;

const ESCAPE: u8 = 0x1b;
const SHIFT_OUT: u8 = 0x0e;
const SHIFT_IN: u8 = 0x0f;

/// A set of characters that a byte, or two, choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    Ascii,
    /// ASCII with a yen sign and an overline (JIS X 0201).
    Roman,
    Katakana,
    Jis0208,
    Jis0212,
    Ksc5601,
    Gb2312,
    /// Two bytes of a set that there is no table for.
    Unknown,
}

/// Whether the text holds the escape that begins Japanese, Chinese or Korean.
pub(super) fn is_announced(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b"\x1b$").is_some()
}

/// `bytes` as text.
pub(super) fn decode(bytes: &[u8], family: Family) -> String {
    let mut decoder = Iso2022 {
        family,
        g0: Set::Ascii,
        g1: match family {
            Family::Japanese => Set::Katakana,
            Family::Korean => Set::Ksc5601,
            Family::Chinese => Set::Gb2312,
        },
        is_shifted: false,
        out: String::with_capacity(bytes.len()),
        run: Vec::new(),
        table: EUC_JP,
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[decoder.step(rest)..];
    }
    decoder.end_run();
    decoder.out
}

struct Iso2022 {
    family: Family,
    g0: Set,
    g1: Set,
    /// Whether `g1` is in use, between shift out and shift in.
    is_shifted: bool,
    out: String,
    /// Bytes in the EUC form of `table`.
    run: Vec<u8>,
    table: &'static Encoding,
}

impl Iso2022 {
    /// Reads what stands at the beginning of `rest`, and says how many bytes it took.
    fn step(&mut self, rest: &[u8]) -> usize {
        let set = if self.is_shifted { self.g1 } else { self.g0 };
        match (rest[0], set) {
            (ESCAPE, _) => self.escape(&rest[1..]) + 1,
            (SHIFT_OUT, _) => {
                self.is_shifted = true;
                1
            }
            (SHIFT_IN, _) => {
                self.is_shifted = false;
                1
            }
            (byte @ 0x21..=0x7e, Set::Katakana) => self.katakana(byte),
            (byte @ 0x21..=0x7e, Set::Ascii | Set::Roman) => {
                self.push(match (byte, set) {
                    (b'\\', Set::Roman) => '¥',
                    (b'~', Set::Roman) => '‾',
                    _ => char::from(byte),
                });
                1
            }
            (first @ 0x21..=0x7e, set) => match rest.get(1) {
                Some(&second) if (0x21..=0x7e).contains(&second) => self.pair(set, first, second),
                // Half a character: what it was is not known.
                _ => {
                    self.push(char::REPLACEMENT_CHARACTER);
                    1
                }
            },
            (0x80.., _) => self.eight_bit(rest),
            (byte, _) => {
                // RFC 1557 and 1922: a line begins in ASCII.
                self.is_shifted &= byte != b'\n';
                self.push(char::from(byte));
                1
            }
        }
    }

    fn pair(&mut self, set: Set, first: u8, second: u8) -> usize {
        let pair = [first | 0x80, second | 0x80];
        match set {
            Set::Jis0208 => self.push_run(EUC_JP, &pair),
            Set::Jis0212 => self.push_run(EUC_JP, &[0x8f, pair[0], pair[1]]),
            Set::Ksc5601 => self.push_run(EUC_KR, &pair),
            Set::Gb2312 => self.push_run(GB18030, &pair),
            _ => self.push(char::REPLACEMENT_CHARACTER),
        }
        2
    }

    fn katakana(&mut self, byte: u8) -> usize {
        // Two bytes of EUC-JP for each half-width katakana.
        if byte <= 0x5f {
            self.push_run(EUC_JP, &[0x8e, byte | 0x80]);
        } else {
            self.push(char::REPLACEMENT_CHARACTER);
        }
        1
    }

    /// What is no seven-bit text at all: half-width katakana in Japan, elsewhere the EUC form under the wrong name.
    fn eight_bit(&mut self, rest: &[u8]) -> usize {
        let table = match self.family {
            Family::Japanese if (0xa1..=0xdf).contains(&rest[0]) => return self.katakana(rest[0] & 0x7f),
            Family::Japanese => {
                self.push(char::REPLACEMENT_CHARACTER);
                return 1;
            }
            Family::Korean => EUC_KR,
            Family::Chinese => GB18030,
        };
        let length = rest.len().min(2);
        self.push_run(table, &rest[..length]);
        length
    }

    /// Reads what stands behind an escape character.
    fn escape(&mut self, rest: &[u8]) -> usize {
        let (into_g1, set, length) = match rest {
            [b'(', b'B' | b'H', ..] => (false, Set::Ascii, 2),
            [b'(', b'J', ..] => (false, Set::Roman, 2),
            [b'(', b'I', ..] => (false, Set::Katakana, 2),
            [b')', b'I', ..] => (true, Set::Katakana, 2),
            [b'$', b'@' | b'B', ..] => (false, Set::Jis0208, 2),
            [b'$', b'A', ..] => (false, Set::Gb2312, 2),
            // JIS X 0213's first plane agrees with JIS X 0208 in nearly everything that is written.
            [b'$', b'(', b'@' | b'B' | b'O' | b'Q', ..] => (false, Set::Jis0208, 3),
            [b'$', b'(', b'D', ..] => (false, Set::Jis0212, 3),
            [b'$', b'(', b'C', ..] => (false, Set::Ksc5601, 3),
            [b'$', b'(', b'A', ..] => (false, Set::Gb2312, 3),
            [b'$', b'(', _, ..] => (false, Set::Unknown, 3),
            [b'$', b')', b'C', ..] => (true, Set::Ksc5601, 3),
            [b'$', b')', b'A', ..] => (true, Set::Gb2312, 3),
            [b'$', b')', _, ..] => (true, Set::Unknown, 3),
            // JIS X 0208 in its revision of 1990; the escape that chooses it follows.
            [b'&', b'@', ..] => return 2,
            // RFC 1922 and 1554: a third set, for the next character only. There is no table for any of them.
            [b'$', b'*', _, ..] => return 3,
            [b'N', _, _, ..] if self.family == Family::Chinese => {
                self.push(char::REPLACEMENT_CHARACTER);
                return 3;
            }
            [b'.', b'A' | b'F', ..] => return 2,
            // An escape that nobody knows is a control character.
            _ => return 0,
        };
        if into_g1 {
            self.g1 = set
        } else {
            self.g0 = set
        }
        length
    }

    fn push(&mut self, c: char) {
        self.end_run();
        self.out.push(c);
    }

    fn push_run(&mut self, table: &'static Encoding, bytes: &[u8]) {
        if self.table != table {
            self.end_run();
            self.table = table;
        }
        self.run.extend_from_slice(bytes);
    }

    fn end_run(&mut self) {
        if !self.run.is_empty() {
            self.out.push_str(&self.table.decode_without_bom_handling(&self.run).0);
            self.run.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn korean() {
        let text = b"Q3 report 4711: \x1b$)C\x0eH8@G7O@;\x0f \x0e:83;\x0f \x0e5e834O4Y\x0f";
        assert_eq!(decode(text, Family::Korean), "Q3 report 4711: 회의록을 보내 드립니다");
        // The header may be missing, and the end of a shift too.
        assert_eq!(decode(b"\x0e>H3g\r\nplain", Family::Korean), "안녕\r\nplain");
        assert_eq!(decode(b"\xbe\xc8\xb3\xe7 ok", Family::Korean), "안녕 ok");
    }

    #[test]
    fn japanese() {
        assert_eq!(decode(b"a \x1b$B2q5D\x1b(B b", Family::Japanese), "a 会議 b");
        assert_eq!(decode(b"\x1b$@2q5D\x1b(J\\~", Family::Japanese), "会議¥‾");
        assert_eq!(decode(b"\x1b(I6@6E\x1b(B", Family::Japanese), "ｶﾀｶﾅ");
        assert_eq!(decode(b"\x0e6@6E\x0f", Family::Japanese), "ｶﾀｶﾅ");
        assert_eq!(decode(b"\xb6\xc0\xb6\xc5", Family::Japanese), "ｶﾀｶﾅ");
        assert_eq!(decode(b"\x1b$(D0\"\x1b(B", Family::Japanese), "丄");
        assert_eq!(decode(b"\x1b&@\x1b$B-!\x1b(B", Family::Japanese), "①");
        assert_eq!(decode(b"\x1b$(C>H3g\x1b$A;aRi\x1b(B", Family::Japanese), "안녕会议");
    }

    #[test]
    fn chinese() {
        assert_eq!(decode(b"\x1b$)A\x0e;aRi\x0f ok", Family::Chinese), "会议 ok");
    }

    #[test]
    fn what_is_broken_loses_nothing_else() {
        assert_eq!(decode(b"\x1b$B2", Family::Japanese), "\u{fffd}");
        assert_eq!(decode(b"\x1b$B2\r\n\x1b(Bok", Family::Japanese), "\u{fffd}\r\nok");
        assert_eq!(decode(b"\x1b", Family::Japanese), "");
        assert_eq!(decode(b"\x1b[1mbold", Family::Japanese), "[1mbold");
    }
}
