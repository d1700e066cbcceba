//! A message's bytes on their way out: what they need of the peer, and dot-stuffing.

use thiserror::Error;

/// A message that cannot leave as it is.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Unsendable {
    /// RFC 5321 section 2.3.8: CR and LF stand together only. Peers that read a bare one as the end of a line can be made to see
    /// a second message in the first.
    #[error("the message has a bare CR at byte {0}: such a message does not leave")]
    BareCr(usize),
    /// The same.
    #[error("the message has a bare LF at byte {0}: such a message does not leave")]
    BareLf(usize),
}

/// What a message's bytes are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Some byte is above 127: 8BITMIME.
    pub is_eight_bit: bool,
    /// The same of its header section: SMTPUTF8, where the sender asked for it.
    pub is_header_eight_bit: bool,
}

/// Looks at every byte of the message once.
///
/// # Errors
/// When it must not leave.
pub fn shape(message: &[u8]) -> Result<Shape, Unsendable> {
    for at in memchr::memchr2_iter(b'\r', b'\n', message) {
        match message[at] {
            b'\r' if message.get(at + 1) != Some(&b'\n') => return Err(Unsendable::BareCr(at)),
            b'\n' if at == 0 || message[at - 1] != b'\r' => return Err(Unsendable::BareLf(at)),
            _ => {}
        }
    }
    let header = memchr::memmem::find(message, b"\r\n\r\n").map_or(message, |end| &message[..end]);
    Ok(Shape { is_eight_bit: !message.is_ascii(), is_header_eight_bit: !header.is_ascii() })
}

/// The message in pieces, with a dot in front of each line that begins with one (RFC 5321 section 4.5.2), and at the end of a line.
pub fn stuffed(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    let mut at_start = true;
    let pieces = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // A line that begins with a dot is given as a dot, and then with its own.
        if at_start && rest[0] == b'.' {
            at_start = false;
            return Some(&b"."[..]);
        }
        at_start = false;
        let end = match memchr::memmem::find(rest, b"\r\n.") {
            Some(found) => {
                at_start = true;
                found + 2
            }
            None => rest.len(),
        };
        let (piece, left) = rest.split_at(end);
        rest = left;
        Some(piece)
    });
    let end = if message.is_empty() || message.ends_with(b"\r\n") { &b""[..] } else { b"\r\n" };
    pieces.chain(std::iter::once(end)).filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(message: &[u8]) -> Vec<u8> {
        stuffed(message).collect::<Vec<_>>().concat()
    }

    #[test]
    fn dots_are_stuffed_and_the_last_line_ends() {
        assert_eq!(whole(b".\r\n..\r\na.b\r\n"), b"..\r\n...\r\na.b\r\n");
        assert_eq!(whole(b"no end"), b"no end\r\n");
        assert_eq!(whole(b""), b"");
    }

    #[test]
    fn a_bare_cr_or_lf_is_found_wherever_it_stands() {
        for (message, error) in [
            (&b"\n"[..], Unsendable::BareLf(0)),
            (b"a\nb\r\n", Unsendable::BareLf(1)),
            (b"a\r\n\n", Unsendable::BareLf(3)),
            (b"a\r", Unsendable::BareCr(1)),
            (b"a\r\r\n", Unsendable::BareCr(1)),
            (b"x\r\n.\r\r\nMAIL", Unsendable::BareCr(4)),
        ] {
            assert_eq!(shape(message), Err(error));
        }
        let eight_bit = shape("Subject: a\r\n\r\nü\r\n".as_bytes()).unwrap();
        assert!(eight_bit.is_eight_bit && !eight_bit.is_header_eight_bit);
    }

    proptest! {
        #[test]
        fn no_line_is_a_lone_dot_and_nothing_else_changes(
            lines in proptest::collection::vec("[.a ]{0,3}", 0..20),
        ) {
            let message = lines.join("\r\n").into_bytes();
            let sent = whole(&message);
            prop_assert!(!sent.windows(5).any(|window| window == b"\r\n.\r\n") && !sent.starts_with(b".\r\n"));
            let text = String::from_utf8(sent).unwrap();
            let undone: Vec<_> = text.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line)).collect();
            let mut expected = lines.join("\r\n");
            if !expected.is_empty() && !expected.ends_with("\r\n") {
                expected.push_str("\r\n");
            }
            prop_assert_eq!(undone.join("\r\n"), expected);
        }
    }
}
