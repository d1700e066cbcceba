//! The lexical tokens of structured fields (RFC 5322 section 3.2): comments, quoted strings and domain literals.
//!
//! Invariant: linear and without recursion, whatever is open and never closed: what closes nothing is text, and once it is known
//! that nothing closes, nobody looks for it again.

/// Finds where brackets close in one field.
#[derive(Debug, Default)]
pub(super) struct Brackets {
    /// No comment, and no quoted string, that begins behind the one that was looked at has an end.
    comments_stay_open: bool,
    quotes_stay_open: bool,
}

impl Brackets {
    /// The end of the comment that begins at `at`, behind its parenthesis. Comments nest.
    pub(super) fn comment(&mut self, text: &[u8], at: usize) -> Option<usize> {
        if self.comments_stay_open {
            return None;
        }
        let end = comment_end(text, at);
        self.comments_stay_open = end.is_none();
        end
    }

    /// The end of the quoted string that begins at `at`, behind its quote.
    pub(super) fn quoted(&mut self, text: &[u8], at: usize) -> Option<usize> {
        if self.quotes_stay_open {
            return None;
        }
        let end = unescaped(text, at + 1, b'"').map(|quote| quote + 1);
        self.quotes_stay_open = end.is_none();
        end
    }
}

/// The end of the domain literal that begins at `at`, behind its bracket. It holds no brackets, angles or commas: the search for
/// its end goes no further than the next of them.
pub(super) fn literal(text: &[u8], at: usize) -> Option<usize> {
    let is_end = |byte: &u8| matches!(byte, b'[' | b']' | b'<' | b'>' | b',');
    let end = at + 1 + text[at + 1..].iter().position(is_end)?;
    (text[end] == b']').then_some(end + 1)
}

fn comment_end(text: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = at;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'(' => depth += 1,
            b')' if depth == 1 => return Some(at + 1),
            b')' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where `wanted` stands at or behind `at`, not behind a backslash.
fn unescaped(text: &[u8], mut at: usize, wanted: u8) -> Option<usize> {
    loop {
        at += memchr::memchr2(wanted, b'\\', text.get(at..)?)?;
        if text[at] == wanted {
            return Some(at);
        }
        at += 2;
    }
}

/// What a quoted string or a comment says: its quoted pairs without their backslashes (RFC 5322 section 3.2.1).
pub(super) fn unquoted(inner: &str) -> String {
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_close() {
        let mut brackets = Brackets::default();
        assert_eq!(brackets.comment(b"(a (b \\) c) d) e", 0), Some(14));
        assert_eq!(brackets.quoted(b"\"a \\\" b\" c", 0), Some(8));
        assert_eq!(literal(b"[192.0.2.1]>", 0), Some(11));
        assert_eq!(literal(b"[<a@b>]", 0), None);
        assert_eq!(unquoted("a \\\" \\\\ b\\"), "a \" \\ b");
    }

    #[test]
    fn what_stays_open_is_looked_for_once() {
        let mut brackets = Brackets::default();
        assert_eq!(brackets.comment(b"((a) b (c)", 0), None);
        assert_eq!(brackets.comment(b"((a) b (c)", 1), None);
        assert_eq!(brackets.quoted(b"\"a\\\"", 0), None);
        assert_eq!(brackets.quoted(b"\"a\\\"", 3), None);
    }
}
