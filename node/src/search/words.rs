//! A message as its terms: what the index takes in, and what a query is held against where the index has not taken it in yet. Both
//! read the same, so that it makes no difference where a message is found.
//!
//! One line a term: a letter for the field, then the term. An empty line is a gap: nothing stands next to each other across it.

use postrider_mime::terms;

/// Terms kept of one message. What is beyond is not found.
pub(super) const TERMS_MAX: u32 = 200_000;

/// Where a term stands in a message.
pub(super) mod field {
    pub(in crate::search) const FROM: u8 = b'f';
    pub(in crate::search) const TO: u8 = b't';
    pub(in crate::search) const CC: u8 = b'c';
    pub(in crate::search) const BCC: u8 = b'b';
    pub(in crate::search) const SUBJECT: u8 = b's';
    pub(in crate::search) const BODY: u8 = b'x';
    pub(in crate::search) const FILENAME: u8 = b'n';
    /// Labels of the List-Id.
    pub(in crate::search) const LIST: u8 = b'l';
    /// The hash of the Message-ID.
    pub(in crate::search) const MESSAGE_ID: u8 = b'm';
    /// It has attachments.
    pub(in crate::search) const ATTACHMENTS: u8 = b'a';
    /// Whom it is from, as address and name.
    pub(in crate::search) const SENDER: u8 = b'p';
    /// Whom it is to.
    pub(in crate::search) const RECIPIENT: u8 = b'q';
    /// Every message has it.
    pub(in crate::search) const ANY_MESSAGE: u8 = b'u';
}

/// The terms of one message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    text: String,
    terms: u32,
}

impl Words {
    /// Adds the terms of a text of one field, and a gap.
    pub(super) fn add(&mut self, field: u8, text: &str) {
        let before = self.terms;
        terms::cut(text, |term| self.push(field, term.text));
        if self.terms > before {
            self.text.push('\n');
        }
    }

    /// Adds one term as it is.
    pub(super) fn push(&mut self, field: u8, term: &str) {
        debug_assert!(!term.contains('\n'));
        if self.terms < TERMS_MAX {
            self.text.push(char::from(field));
            self.text.push_str(term);
            self.text.push('\n');
            self.terms += 1;
        }
    }

    /// Field and term together, and position of each.
    pub(super) fn lines(&self) -> Lines<'_> {
        Lines { text: &self.text, position: 0 }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// How long it is, as relevance takes it: the binary logarithm of the number of terms.
    pub(super) fn length(&self) -> u8 {
        (self.terms + 1).ilog2() as u8
    }

    /// Tells two texts apart.
    pub(super) fn checksum(&self) -> u32 {
        let hash = blake3::hash(self.text.as_bytes());
        let [a, b, c, d, ..] = *hash.as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Memory that it takes, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + size_of::<Self>()
    }
}

/// The lines of [`Words`] with their positions.
pub(super) struct Lines<'w> {
    pub(super) text: &'w str,
    pub(super) position: u32,
}

impl<'w> Iterator for Lines<'w> {
    type Item = (&'w str, u32);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (line, rest) = self.text.split_once('\n')?;
            self.text = rest;
            let position = self.position;
            self.position += 1;
            if !line.is_empty() {
                return Some((line, position));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_keep_their_field_and_place() {
        let mut words = Words::default();
        words.add(field::SUBJECT, "Re: Café");
        words.add(field::BODY, "..");
        words.add(field::BODY, "one");
        let found: Vec<_> = words.lines().collect();
        assert_eq!(found, [("sre", 0), ("scafe", 1), ("xone", 3)]);
    }
}
