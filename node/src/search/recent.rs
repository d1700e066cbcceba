//! The messages that the index has not got yet, turned round: by field and word. Kept between the searches of one mailbox, so that each
//! message is turned round once and a query looks its words up instead of reading everything that has arrived.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::index::Doc;
use super::plan::Element;

/// Messages that may be here although an index has them by now; with more everything is turned round again.
const STALE_MAX: usize = 256;
/// What one entry of a map takes beside its key, bytes.
const ENTRY_BYTES: usize = 64;

/// Where a word stands.
#[derive(Clone, Copy)]
struct Posting {
    /// Of the message in [`Recent::docs`].
    slot: u32,
    position: u32,
}

/// The words of some messages.
#[derive(Default)]
pub(super) struct Recent {
    docs: Vec<Arc<Doc>>,
    /// Each message's number in the mailbox; `None` where it is not among those that are asked for.
    numbers: Vec<Option<usize>>,
    /// By the change that made the message.
    slots: BTreeMap<u64, usize>,
    /// By field and word, as [`super::words::Words`] writes them.
    lines: BTreeMap<Box<str>, Vec<Posting>>,
    bytes: usize,
}

impl Recent {
    /// From now on it is about these messages, of which `number` tells the place in the mailbox.
    pub(super) fn bring(&mut self, docs: &[Arc<Doc>], number: impl Fn(u64) -> Option<usize>) {
        if self.docs.len() > docs.len() + STALE_MAX {
            *self = Self::default();
        }
        self.numbers.iter_mut().for_each(|number| *number = None);
        for doc in docs {
            let slot = match self.slots.get(&doc.sequence) {
                Some(slot) => *slot,
                None => self.add(doc),
            };
            self.numbers[slot] = number(doc.sequence);
        }
    }

    fn add(&mut self, doc: &Arc<Doc>) -> usize {
        let slot = self.docs.len();
        for (line, position) in doc.words.lines() {
            let posting = Posting { slot: slot as u32, position };
            self.bytes += size_of::<Posting>();
            match self.lines.get_mut(line) {
                Some(postings) => postings.push(posting),
                None => {
                    self.bytes += line.len() + ENTRY_BYTES;
                    self.lines.insert(line.into(), vec![posting]);
                }
            }
        }
        self.slots.insert(doc.sequence, slot);
        self.bytes += ENTRY_BYTES + doc.bytes();
        self.docs.push(doc.clone());
        self.numbers.push(None);
        slot
    }

    /// Memory that it takes, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages with their numbers.
    pub(super) fn docs(&self) -> impl Iterator<Item = (usize, &Doc)> {
        self.numbers.iter().zip(&self.docs).filter_map(|(number, doc)| Some(((*number)?, &**doc)))
    }

    /// Gives each message in which some elements stand next to each other in a field: its number, the message and how often.
    pub(super) fn find(&self, of: u8, elements: &[Element], mut take: impl FnMut(usize, &Doc, u32)) {
        let mut lists = Vec::with_capacity(elements.len());
        for (n, element) in elements.iter().enumerate() {
            // Counted from where the first would stand; no position is that small that it matters.
            let shift = (elements.len() - n) as u32;
            let places = self.postings(of, element).map(|posting| (posting.slot, posting.position + shift));
            let mut places: Vec<(u32, u32)> = places.collect();
            if places.is_empty() {
                return;
            }
            places.sort_unstable();
            lists.push(places);
        }
        let Some((first, others)) = lists.split_first() else { return };
        let together = first.iter().filter(|place| others.iter().all(|list| list.binary_search(place).is_ok()));
        let mut together = together.map(|(slot, _)| *slot as usize).peekable();
        while let Some(slot) = together.next() {
            let mut frequency = 1;
            while together.next_if_eq(&slot).is_some() {
                frequency += 1;
            }
            if let Some(number) = self.numbers[slot] {
                take(number, &self.docs[slot], frequency);
            }
        }
    }

    /// Gives each word of a field with the number of each message that it stands in.
    pub(super) fn each(&self, of: u8, mut take: impl FnMut(&str, usize)) {
        let any = Element { text: String::new(), is_prefix: true };
        for (line, postings) in self.lines(of, &any) {
            let mut slots: Vec<u32> = postings.iter().map(|posting| posting.slot).collect();
            slots.dedup();
            slots.iter().filter_map(|slot| self.numbers[*slot as usize]).for_each(|number| take(&line[1..], number));
        }
    }

    fn postings(&self, of: u8, element: &Element) -> impl Iterator<Item = Posting> {
        self.lines(of, element).flat_map(|(_, postings)| postings.iter().copied())
    }

    fn lines(&self, of: u8, element: &Element) -> impl Iterator<Item = (&str, &[Posting])> {
        let mut first = String::from(char::from(of));
        first.push_str(&element.text);
        let is_prefix = element.is_prefix;
        let lines = self.lines.range::<str, _>((Bound::Included(first.as_str()), Bound::Unbounded));
        let lines = lines.map(|(line, postings)| (&**line, &**postings));
        lines.take_while(move |(line, _)| if is_prefix { line.starts_with(&first) } else { *line == first })
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::id::UserId;

    use super::super::words::{Words, field};
    use super::*;

    fn doc(sequence: u64, subject: &str, body: &str) -> Arc<Doc> {
        let mut words = Words::default();
        words.add(field::SUBJECT, subject);
        words.add(field::BODY, body);
        Arc::new(Doc { user: UserId([7; 16]), key: u128::from(sequence).to_be_bytes(), sequence, size: 1, words })
    }

    fn element(text: &str, is_prefix: bool) -> Element {
        Element { text: text.to_owned(), is_prefix }
    }

    fn found(recent: &Recent, of: u8, elements: &[Element]) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        recent.find(of, elements, |number, _, frequency| found.push((number, frequency)));
        found
    }

    #[test]
    fn words_prefixes_and_phrases() {
        let mut recent = Recent::default();
        let docs = [doc(1, "red fox", "a red fox, a red foxglove"), doc(2, "fox", "fox red"), doc(3, "", "redder")];
        recent.bring(&docs, |sequence| Some(sequence as usize * 10));
        let (red, fox) = (element("red", false), element("fox", false));
        assert_eq!(found(&recent, field::SUBJECT, std::slice::from_ref(&red)), [(10, 1)]);
        assert_eq!(found(&recent, field::BODY, std::slice::from_ref(&red)), [(10, 2), (20, 1)]);
        assert_eq!(found(&recent, field::BODY, &[element("red", true)]), [(10, 2), (20, 1), (30, 1)]);
        assert_eq!(found(&recent, field::BODY, &[red.clone(), fox]), [(10, 1)]);
        assert_eq!(found(&recent, field::BODY, &[red, element("fox", true)]), [(10, 2)]);
        assert_eq!(found(&recent, field::FROM, &[element("", true)]), []);
    }

    #[test]
    fn what_the_index_has_by_now_is_not_found_here() {
        let mut recent = Recent::default();
        let docs: Vec<_> = (0..1_000).map(|n| doc(n, "x", "")).collect();
        let x = [element("x", false)];
        recent.bring(&docs, |sequence| Some(sequence as usize));
        assert_eq!(found(&recent, field::SUBJECT, &x).len(), 1_000);
        // The first are committed; one of the others was deleted.
        recent.bring(&docs[200..], |sequence| (sequence != 600).then_some(sequence as usize));
        let left = found(&recent, field::SUBJECT, &x);
        assert_eq!((left.len(), left[0].0), (799, 200));
        let full = recent.bytes();
        recent.bring(&docs[990..], |sequence| Some(sequence as usize));
        assert_eq!(found(&recent, field::SUBJECT, &x).len(), 10);
        assert!(recent.bytes() < full / 50, "what is stale is let go");
    }
}
