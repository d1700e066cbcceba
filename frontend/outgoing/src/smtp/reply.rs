//! Replies, as they come from a stranger (RFC 5321 section 4.2, RFC 2034, RFC 3463).
//!
//! Invariant: what is kept is bounded, in lines and bytes, and has no control characters: it is shown to people and written into
//! reports.

use std::fmt;

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

use crate::limit::{REPLY_LINE_BYTES_MAX, REPLY_LINES_MAX, REPLY_TEXT_BYTES_MAX};

/// An enhanced status code (RFC 3463): class, subject, detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl Enhanced {
    /// Reads the code that a reply's text begins with, if its class is that of the reply's own code.
    fn of_text(code: u16, text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.splitn(3, '.').map(|number| match number.len() {
            1..=3 if number.bytes().all(|byte| byte.is_ascii_digit()) => number.parse::<u16>().ok(),
            _ => None,
        });
        let (class, subject, detail) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let is_of_reply = class == code / 100 && matches!(class, 2 | 4 | 5);
        // Classes are one digit.
        is_of_reply.then_some((Self(class as u8, subject, detail), rest))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The enhanced code, if there is one of the same class.
    pub enhanced: Option<Enhanced>,
    /// The text of each line, without codes.
    pub lines: Vec<String>,
}

impl Reply {
    /// 2yz.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The enhanced code that it has, or the plainest one of its class.
    pub fn status(&self) -> String {
        self.enhanced.map_or_else(|| format!("{}.0.0", self.code / 100), |enhanced| enhanced.to_string())
    }
}

impl fmt::Display for Reply {
    /// One line for people and reports.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.code.to_string();
        if let Some(enhanced) = self.enhanced {
            text.push_str(&format!(" {enhanced}"));
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            text.push(' ');
            text.push_str(line);
            if text.len() > REPLY_TEXT_BYTES_MAX {
                break;
            }
        }
        f.write_str(&text[..text.floor_char_boundary(REPLY_TEXT_BYTES_MAX)])
    }
}

/// What came is no reply.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// A line without an end.
    #[error("a line is longer than {REPLY_LINE_BYTES_MAX} bytes")]
    LongLine,
    /// Too many lines.
    #[error("it has more than {REPLY_LINES_MAX} lines")]
    ManyLines,
    /// A line that does not begin with a code.
    #[error("a line does not begin with a code: {0:?}")]
    NoCode(String),
    /// Lines of one reply with different codes.
    #[error("its lines have different codes: {0} and {1}")]
    MixedCodes(u16, u16),
}

/// Puts replies together, however their bytes come.
#[derive(Debug, Default)]
pub struct ReplyReader {
    code: Option<u16>,
    lines: Vec<String>,
    /// Bytes of the buffer in which no end of a line was found.
    looked: usize,
}

impl ReplyReader {
    /// Takes one reply from the front of `buffer`; `None` while it is not complete.
    ///
    /// # Errors
    /// When it is none; the connection is then out of step for good.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, Malformed> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &buffer[self.looked..]).map(|at| self.looked + at) else {
                self.looked = buffer.len();
                return if buffer.len() > REPLY_LINE_BYTES_MAX { Err(Malformed::LongLine) } else { Ok(None) };
            };
            if end > REPLY_LINE_BYTES_MAX {
                return Err(Malformed::LongLine);
            }
            let line = buffer.split_to(end);
            buffer.advance(1);
            self.looked = 0;
            if let Some(reply) = self.line(line.strip_suffix(b"\r").unwrap_or(&line))? {
                return Ok(Some(reply));
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Reply>, Malformed> {
        let no_code = || Malformed::NoCode(text(&line[..line.len().min(80)]));
        let (code, rest) = line.split_first_chunk::<3>().ok_or_else(no_code)?;
        // RFC 5321 section 4.2: the first digit is 2 to 5, the second 0 to 5; what the second one is does not matter here.
        if !(matches!(code[0], b'2'..=b'5') && code[1].is_ascii_digit() && code[2].is_ascii_digit()) {
            return Err(no_code());
        }
        let code = code.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let is_last = match rest.first() {
            Some(b'-') => false,
            Some(b' ' | b'\t') | None => true,
            Some(_) => return Err(no_code()),
        };
        match self.code {
            Some(first) if first != code => return Err(Malformed::MixedCodes(first, code)),
            _ => self.code = Some(code),
        }
        if self.lines.len() == REPLY_LINES_MAX {
            return Err(Malformed::ManyLines);
        }
        self.lines.push(text(rest.get(1..).unwrap_or_default()));
        Ok(is_last.then(|| self.finish(code)))
    }

    fn finish(&mut self, code: u16) -> Reply {
        self.code = None;
        let mut lines = std::mem::take(&mut self.lines);
        let mut enhanced = None;
        for line in &mut lines {
            if let Some((found, rest)) = Enhanced::of_text(code, line) {
                enhanced = enhanced.or(Some(found));
                *line = rest.trim_start().to_owned();
            }
        }
        Reply { code, enhanced, lines }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Reply>, Malformed> {
        ReplyReader::default().take(&mut BytesMut::from(bytes))
    }

    #[test]
    fn replies_are_read() {
        for (bytes, code, enhanced, text) in [
            ("250 2.1.5 Ok\r\n", 250, Some("2.1.5"), "250 2.1.5 Ok"),
            ("250\r\n", 250, None, "250"),
            ("250 Ok\n", 250, None, "250 Ok"),
            ("550-5.1.1 No such\r\n550 5.1.1 user\r\n", 550, Some("5.1.1"), "550 5.1.1 No such user"),
            // A class that is not the reply's is text.
            ("450 5.1.1 odd\r\n", 450, None, "450 5.1.1 odd"),
            ("421 4.7.0 \x1b[31mred\r\n", 421, Some("4.7.0"), "421 4.7.0 [31mred"),
        ] {
            let reply = read(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(reply.code, code);
            assert_eq!(reply.enhanced.map(|code| code.to_string()).as_deref(), enhanced);
            assert_eq!(reply.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        assert!(matches!(read(b"HTTP/1.1 400\r\n"), Err(Malformed::NoCode(_))));
        assert!(matches!(read(b"\r\n"), Err(Malformed::NoCode(_))));
        assert!(matches!(read(b"2500 ok\r\n"), Err(Malformed::NoCode(_))));
        assert!(matches!(read(b"199 ok\r\n"), Err(Malformed::NoCode(_))));
        assert!(matches!(read(b"250-a\r\n550 b\r\n"), Err(Malformed::MixedCodes(250, 550))));
        assert_eq!(read(&vec![b'2'; REPLY_LINE_BYTES_MAX + 1]), Err(Malformed::LongLine));
        assert_eq!(read(&b"250-a\r\n".repeat(REPLY_LINES_MAX + 1)), Err(Malformed::ManyLines));
        assert_eq!(read(b"250-a\r\n250"), Ok(None));
    }

    proptest! {
        #[test]
        fn bytes_may_come_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..300_usize) {
            let cut = cut.min(bytes.len());
            let whole = read(&bytes);
            let (mut reader, mut buffer) = (ReplyReader::default(), BytesMut::from(&bytes[..cut]));
            let first = reader.take(&mut buffer);
            let pieces = match first {
                Ok(None) => {
                    buffer.extend_from_slice(&bytes[cut..]);
                    reader.take(&mut buffer)
                }
                other => other,
            };
            prop_assert_eq!(pieces, whole);
        }
    }
}
