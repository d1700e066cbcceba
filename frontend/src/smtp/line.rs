//! Cuts command lines out of what was read.
//!
//! Invariant: a line ends with CRLF and holds neither CR nor LF besides; nothing behind another ending is ever a command.
//! Invariant: what is kept of an unfinished line is bounded; the rest of a line that is too long is thrown away, and bounded too.

use bytes::{Buf as _, Bytes, BytesMut};

use super::limit::{COMMAND_BYTES_MAX, LINE_DISCARD_BYTES_MAX, PATH_COMMAND_BYTES_MAX};

/// What stands at the front of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// Not a whole line yet.
    Unfinished,
    /// A line with its CRLF.
    Line(Bytes),
    /// A line that was too long; it is gone.
    TooLong,
    /// A bare CR or LF. What follows cannot be trusted to be a command.
    BareEnding,
    /// A line without end.
    Endless,
}

/// Remembers what was looked at already.
#[derive(Debug, Default)]
pub struct Cutter {
    /// Bytes at the front of the input that hold no ending.
    seen: usize,
    /// Bytes of the current line that were thrown away.
    discarded: u64,
}

impl Cutter {
    /// The next line of `input`, which is not touched unless a line came or one is too long.
    pub fn cut(&mut self, input: &mut BytesMut) -> Cut {
        self.cut_within(input, line_bytes_max)
    }

    /// The same of a line that is no command but a response of an exchange (RFC 4954 section 4.5).
    pub fn cut_response(&mut self, input: &mut BytesMut) -> Cut {
        self.cut_within(input, |_| PATH_COMMAND_BYTES_MAX)
    }

    fn cut_within(&mut self, input: &mut BytesMut, bytes_max: impl Fn(&[u8]) -> usize) -> Cut {
        let Some(found) = memchr::memchr2(b'\r', b'\n', &input[self.seen..]) else {
            return self.unfinished(input, input.len());
        };
        let at = self.seen + found;
        match (input[at], input.get(at + 1)) {
            (b'\r', Some(b'\n')) => {
                let line = input.split_to(at + 2).freeze();
                self.seen = 0;
                if std::mem::take(&mut self.discarded) > 0 || line.len() > bytes_max(&line) {
                    Cut::TooLong
                } else {
                    Cut::Line(line)
                }
            }
            (b'\r', None) => self.unfinished(input, at),
            _ => Cut::BareEnding,
        }
    }

    /// `seen` bytes hold no ending.
    fn unfinished(&mut self, input: &mut BytesMut, seen: usize) -> Cut {
        self.seen = seen;
        if self.discarded > 0 || seen > PATH_COMMAND_BYTES_MAX {
            self.discarded += seen as u64;
            input.advance(seen);
            self.seen = 0;
        }
        if self.discarded > LINE_DISCARD_BYTES_MAX { Cut::Endless } else { Cut::Unfinished }
    }
}

fn line_bytes_max(line: &[u8]) -> usize {
    // AUTH has its initial response in it.
    let is_long = line
        .get(..4)
        .is_some_and(|verb| [b"MAIL", b"RCPT", b"AUTH"].iter().any(|long| verb.eq_ignore_ascii_case(*long)));
    if is_long { PATH_COMMAND_BYTES_MAX } else { COMMAND_BYTES_MAX }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(reads: &[&[u8]]) -> Vec<Cut> {
        let mut cutter = Cutter::default();
        let mut input = BytesMut::new();
        let mut cuts = Vec::new();
        for read in reads {
            input.extend_from_slice(read);
            loop {
                match cutter.cut(&mut input) {
                    Cut::Unfinished => break,
                    cut @ (Cut::BareEnding | Cut::Endless) => {
                        cuts.push(cut);
                        return cuts;
                    }
                    cut => cuts.push(cut),
                }
            }
            assert!(input.len() <= PATH_COMMAND_BYTES_MAX + 1);
        }
        cuts
    }

    fn line(text: &'static str) -> Cut {
        Cut::Line(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn lines_in_any_split() {
        let text = b"NOOP\r\nQUIT\r\n";
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(all(&[head, tail]), [line("NOOP\r\n"), line("QUIT\r\n")], "{at}");
        }
    }

    #[test]
    fn bare_endings() {
        for text in ["NOOP\nQUIT\r\n", "NOOP\rQUIT\r\n", "NOOP\r\r\n", "\n", "NOOP\n"] {
            assert_eq!(all(&[text.as_bytes()]), [Cut::BareEnding], "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(all(&bytes), [Cut::BareEnding], "{text:?}");
        }
    }

    #[test]
    fn long_lines() {
        let noop = [b"NOOP ".as_slice(), &[b'x'; 505], b"\r\n"].concat();
        assert_eq!(noop.len(), COMMAND_BYTES_MAX);
        assert!(matches!(all(&[&noop])[..], [Cut::Line(_)]));
        let noop = [b"NOOP ".as_slice(), &[b'x'; 506], b"\r\nQUIT\r\n"].concat();
        assert_eq!(all(&[&noop]), [Cut::TooLong, line("QUIT\r\n")]);
        let rcpt = [b"rcpt TO:<".as_slice(), &[b'x'; 506], b">\r\n"].concat();
        assert!(matches!(all(&[&rcpt])[..], [Cut::Line(_)]));
        let long = [b'x'; 5000];
        assert_eq!(all(&[&long, &long, b"\r\nQUIT\r\n"]), [Cut::TooLong, line("QUIT\r\n")]);
        assert_eq!(all(&[&long, b"\r", b"\nQUIT\r\n"]), [Cut::TooLong, line("QUIT\r\n")]);
        let endless: Vec<&[u8]> = std::iter::repeat_n(&long[..], 20).collect();
        assert_eq!(all(&endless), [Cut::Endless]);
    }
}
