//! Cursors: where the next page begins, authenticated.
//!
//! Invariant (P-9): a cursor opens only for the user, the list, the folder or label and the filter, or the search, that it was made for. These are
//! not in it but under its tag, so that nothing of them can be changed and nothing can be learned.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use postrider_api::id::{EmailId, UserId};
use sha2::Sha256;

use crate::rest::problem::{Kind, Problem};

/// Which form of cursor this is; another one is refused.
const VERSION: u8 = 1;
/// Bytes of the tag: HMAC-SHA256, cut to 128 bits (RFC 2104 section 5).
const TAG_BYTES: usize = 16;
const BYTES: usize = 1 + 16 + TAG_BYTES;
/// A search's cursor has a score as well.
const SEARCH_BYTES: usize = 1 + 16 + 8 + TAG_BYTES;
/// Characters of a cursor.
const CHARS: usize = BYTES.div_ceil(3) * 4;
/// Characters of a search's cursor.
const SEARCH_CHARS: usize = (SEARCH_BYTES * 4).div_ceil(3);
/// Under the tag of a search's cursor, where others have [`List::tag`].
const SEARCH: u8 = 255;

/// The list that a cursor goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// Messages of a folder: all, or only read or unread ones.
    Messages {
        /// The filter.
        is_read: Option<bool>,
    },
    /// Conversations of a folder.
    Threads,
    /// Flagged messages of a folder.
    Flagged,
    /// What is on its way.
    Outbox,
    /// What came back.
    Feedback,
    /// Messages that have a label: all, or only read or unread ones.
    Labelled {
        /// The filter.
        is_read: Option<bool>,
    },
}

impl List {
    fn tag(self) -> u8 {
        match self {
            List::Messages { is_read: None } => 0,
            List::Messages { is_read: Some(false) } => 1,
            List::Messages { is_read: Some(true) } => 2,
            List::Threads => 3,
            List::Flagged => 4,
            List::Outbox => 8,
            List::Feedback => 9,
            List::Labelled { is_read: None } => 5,
            List::Labelled { is_read: Some(false) } => 6,
            List::Labelled { is_read: Some(true) } => 7,
        }
    }
}

/// What a cursor is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Whose list.
    pub(crate) user: UserId,
    /// The number of the folder, or of the label where the list is of one.
    pub(crate) number: u32,
    /// Which list of it.
    pub(crate) list: List,
}

/// What a cursor of a search is bound to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SearchPlace {
    /// Who searches.
    pub(crate) user: UserId,
    /// A hash of all that he asks for: the text, the filters, the order, and whether for messages or conversations.
    pub(crate) question: [u8; 32],
}

/// Makes and opens cursors.
#[derive(Clone)]
pub(crate) struct Cursors {
    mac: Hmac<Sha256>,
}

impl Cursors {
    /// All frontends of a cluster have the same key: a client may change between them.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self { mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length") }
    }

    fn mac(&self, place: Place, before: EmailId) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&[VERSION, place.list.tag()]);
        mac.update(&place.user.0);
        mac.update(&place.number.to_be_bytes());
        mac.update(&before.0);
        mac
    }

    /// The page behind `before`.
    pub(crate) fn seal(&self, place: Place, before: EmailId) -> String {
        let mut bytes = [0; BYTES];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&before.0);
        bytes[17..].copy_from_slice(&self.mac(place, before).finalize().into_bytes()[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Where the page begins.
    ///
    /// # Errors
    /// [`Kind::InvalidCursor`], whatever is wrong with it.
    pub(crate) fn open(&self, place: Place, cursor: &str) -> Result<EmailId, Problem> {
        self.try_open(place, cursor).ok_or_else(|| Problem::new(Kind::InvalidCursor))
    }

    fn search_mac(&self, place: &SearchPlace, email: EmailId, score: u64) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&[VERSION, SEARCH]);
        mac.update(&place.user.0);
        mac.update(&place.question);
        mac.update(&email.0);
        mac.update(&score.to_be_bytes());
        mac
    }

    /// The page of a search behind a hit.
    pub(crate) fn seal_search(&self, place: &SearchPlace, email: EmailId, score: u64) -> String {
        let mut bytes = [0; SEARCH_BYTES];
        bytes[0] = VERSION;
        bytes[1..17].copy_from_slice(&email.0);
        bytes[17..25].copy_from_slice(&score.to_be_bytes());
        bytes[25..].copy_from_slice(&self.search_mac(place, email, score).finalize().into_bytes()[..TAG_BYTES]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Behind which hit the page of a search begins.
    ///
    /// # Errors
    /// [`Kind::InvalidCursor`], whatever is wrong with it.
    pub(crate) fn open_search(&self, place: &SearchPlace, cursor: &str) -> Result<(EmailId, u64), Problem> {
        self.try_open_search(place, cursor).ok_or_else(|| Problem::new(Kind::InvalidCursor))
    }

    fn try_open_search(&self, place: &SearchPlace, cursor: &str) -> Option<(EmailId, u64)> {
        if cursor.len() != SEARCH_CHARS {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok().filter(|bytes| bytes.len() == SEARCH_BYTES)?;
        let (email, rest) = bytes.strip_prefix(&[VERSION])?.split_at_checked(16)?;
        let (score, tag) = rest.split_first_chunk()?;
        let (email, score) = (EmailId::try_from(email).ok()?, u64::from_be_bytes(*score));
        self.search_mac(place, email, score).verify_truncated_left(tag).ok()?;
        Some((email, score))
    }

    fn try_open(&self, place: Place, cursor: &str) -> Option<EmailId> {
        if cursor.len() > CHARS {
            return None;
        }
        let mut bytes = [0; BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(cursor, &mut bytes).ok()?;
        if length != BYTES || bytes[0] != VERSION {
            return None;
        }
        let before = EmailId::try_from(&bytes[1..17]).ok()?;
        self.mac(place, before).verify_truncated_left(&bytes[17..]).ok()?;
        Some(before)
    }
}

/// For fuzzing: only the text that was given out opens.
///
/// # Panics
/// When another one does: that is the finding.
pub fn fuzz_cursor(text: &str) {
    let cursors = Cursors::new(&[1; 32]);
    let place = Place { user: UserId([2; 16]), number: 3, list: List::Threads };
    if let Ok(before) = cursors.open(place, text) {
        assert_eq!(cursors.seal(place, before), text);
    }
    let place = SearchPlace { user: UserId([2; 16]), question: [3; 32] };
    if let Ok((email, score)) = cursors.open_search(&place, text) {
        assert_eq!(cursors.seal_search(&place, email, score), text);
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};
    use proptest::prelude::*;

    use super::*;

    fn place(user: u8, number: u32, list: List) -> Place {
        Place { user: UserId::new(ZoneId(1), Slot(1), [user; 12]), number, list }
    }

    #[test]
    fn opens_only_where_it_was_made() {
        let cursors = Cursors::new(&[1; 32]);
        let all = List::Messages { is_read: None };
        let before = EmailId::new(1_790_000_000_000, [3; 10]);
        let cursor = cursors.seal(place(1, 1, all), before);
        assert_eq!(cursor.len(), CHARS);
        assert_eq!(cursors.open(place(1, 1, all), &cursor).unwrap(), before);
        for other in [
            place(2, 1, all),
            place(1, 2, all),
            place(1, 1, List::Threads),
            place(1, 1, List::Messages { is_read: Some(false) }),
            place(1, 1, List::Messages { is_read: Some(true) }),
            place(1, 1, List::Flagged),
            place(1, 1, List::Labelled { is_read: None }),
            place(1, 1, List::Labelled { is_read: Some(false) }),
            place(1, 1, List::Labelled { is_read: Some(true) }),
        ] {
            assert_eq!(cursors.open(other, &cursor).unwrap_err().kind(), Kind::InvalidCursor, "{other:?}");
        }
        assert!(Cursors::new(&[2; 32]).open(place(1, 1, all), &cursor).is_err());
        for length in 0..cursor.len() {
            assert!(cursors.open(place(1, 1, all), &cursor[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn a_search_goes_on_where_it_was() {
        let cursors = Cursors::new(&[1; 32]);
        let place = |user: u8, question: u8| SearchPlace {
            user: UserId::new(ZoneId(1), Slot(1), [user; 12]),
            question: [question; 32],
        };
        let email = EmailId::new(1_790_000_000_000, [3; 10]);
        let cursor = cursors.seal_search(&place(1, 1), email, 77);
        assert_eq!(cursor.len(), SEARCH_CHARS);
        assert_eq!(cursors.open_search(&place(1, 1), &cursor).unwrap(), (email, 77));
        for other in [place(2, 1), place(1, 2)] {
            assert_eq!(cursors.open_search(&other, &cursor).unwrap_err().kind(), Kind::InvalidCursor, "{other:?}");
        }
        assert!(Cursors::new(&[2; 32]).open_search(&place(1, 1), &cursor).is_err());
        for at in 0..cursor.len() {
            let other = if &cursor[at..=at] == "A" { "B" } else { "A" };
            let forged = format!("{}{other}{}", &cursor[..at], &cursor[at + 1..]);
            assert!(cursors.open_search(&place(1, 1), &forged).is_err(), "{at}");
            assert!(cursors.open_search(&place(1, 1), &cursor[..at]).is_err(), "{at}");
        }
        // Neither is the other.
        let list = super::Place { user: place(1, 1).user, number: 1, list: List::Threads };
        assert!(cursors.open(list, &cursor).is_err());
        assert!(cursors.open_search(&place(1, 1), &cursors.seal(list, email)).is_err());
    }

    proptest! {
        #[test]
        fn no_other_text_opens(at in 0..CHARS, replacement in "[A-Za-z0-9_-]") {
            let cursors = Cursors::new(&[1; 32]);
            let place = place(1, 1, List::Threads);
            let cursor = cursors.seal(place, EmailId::new(7, [3; 10]));
            let mut forged = cursor.clone();
            forged.replace_range(at..=at, &replacement);
            prop_assert_eq!(cursors.open(place, &forged).is_ok(), forged == cursor);
        }

        #[test]
        fn junk_never_opens(junk in ".{0,64}") {
            let place = place(1, 1, List::Threads);
            prop_assert!(Cursors::new(&[1; 32]).open(place, &junk).is_err());
        }
    }
}
