//! Keywords of messages: those that IANA registers for IMAP and JMAP and that programs act upon. A set of them is one number in
//! rows and commands.
//!
//! A user's own words are not here: they are labels (ADR 075).

use std::fmt;
use std::ops::BitOr;

/// A set of keywords. The bits of a row that this build does not know stay as they are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Keywords(pub u32);

/// Each with its name in JMAP (RFC 8621 section 4.1.1). IMAP writes the first five of RFC 9051 section 2.3.2 with a backslash.
const NAMES: [(Keywords, &str); 9] = [
    (Keywords::SEEN, "$seen"),
    (Keywords::FLAGGED, "$flagged"),
    (Keywords::ANSWERED, "$answered"),
    (Keywords::FORWARDED, "$forwarded"),
    (Keywords::DRAFT, "$draft"),
    (Keywords::JUNK, "$junk"),
    (Keywords::NOTJUNK, "$notjunk"),
    (Keywords::PHISHING, "$phishing"),
    (Keywords::MDNSENT, "$mdnsent"),
];

impl Keywords {
    /// It was read.
    pub const SEEN: Self = Self(1);
    /// The user has marked it.
    pub const FLAGGED: Self = Self(1 << 1);
    /// It was answered.
    pub const ANSWERED: Self = Self(1 << 2);
    /// It was forwarded.
    pub const FORWARDED: Self = Self(1 << 3);
    /// It is being written.
    pub const DRAFT: Self = Self(1 << 4);
    /// The user says that it is junk.
    pub const JUNK: Self = Self(1 << 5);
    /// The user says that it is no junk.
    pub const NOTJUNK: Self = Self(1 << 6);
    /// It is likely to be phishing.
    pub const PHISHING: Self = Self(1 << 7);
    /// A disposition notification was sent for it, or must not be (RFC 3503).
    pub const MDNSENT: Self = Self(1 << 8);
    /// Every keyword that this build knows.
    pub const ALL: Self = Self((1 << 9) - 1);
    /// Of which a message has at most one: the registration of `$Junk` calls the two exclusive.
    const VERDICT: Self = Self(Self::JUNK.0 | Self::NOTJUNK.0);

    /// The keyword of a name, in whatever case (RFC 8621 section 4.1.1).
    pub fn named(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(keyword, _)| *keyword)
    }

    /// The names of those in the set, in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().filter(move |(keyword, _)| self.has(*keyword)).map(|(_, name)| name)
    }

    /// Whether all of `other` are in the set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the message was read.
    pub fn is_read(self) -> bool {
        self.has(Self::SEEN)
    }

    /// Whether the message is flagged.
    pub fn is_flagged(self) -> bool {
        self.has(Self::FLAGGED)
    }

    /// The set with `add` and without `remove`. The newer verdict on junk takes the place of the older.
    #[must_use]
    pub fn changed(self, add: Self, remove: Self) -> Self {
        let replaced = if add.0 & Self::VERDICT.0 == 0 { 0 } else { Self::VERDICT.0 };
        Self((self.0 & !replaced | add.0) & !remove.0)
    }

    /// What is wrong with a wish to add some and to remove others; `None` when nothing is.
    pub fn conflict(add: Self, remove: Self) -> Option<&'static str> {
        if (add.0 | remove.0) & !Self::ALL.0 != 0 {
            return Some("a keyword that is not known here");
        }
        if add.0 & remove.0 != 0 {
            return Some("a keyword is added or removed, not both");
        }
        if add.has(Self::VERDICT) {
            return Some("a message is $junk or $notjunk, not both");
        }
        None
    }
}

impl BitOr for Keywords {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Keywords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keyword_has_one_name_and_one_bit() {
        let mut all = Keywords::default();
        for (keyword, name) in NAMES {
            assert_eq!(keyword.0.count_ones(), 1);
            assert!(!all.has(keyword), "{name}");
            all = all | keyword;
            assert_eq!(Keywords::named(name), Some(keyword));
            assert_eq!(Keywords::named(&name.to_uppercase()), Some(keyword));
            assert_eq!(keyword.names().collect::<Vec<_>>(), [name]);
        }
        assert_eq!(all, Keywords::ALL);
        assert_eq!(all.names().count(), NAMES.len());
        assert_eq!(Keywords::named("$Important"), None);
        assert_eq!(Keywords::named(""), None);
    }

    #[test]
    fn the_newer_verdict_counts() {
        let junk = Keywords::JUNK | Keywords::SEEN;
        let none = Keywords::default();
        assert_eq!(junk.changed(Keywords::NOTJUNK, none), Keywords::NOTJUNK | Keywords::SEEN);
        assert_eq!(junk.changed(Keywords::FLAGGED, Keywords::SEEN), Keywords::JUNK | Keywords::FLAGGED);
        assert_eq!(junk.changed(Keywords::JUNK, none), junk);
        // What a newer build has set is not lost.
        assert_eq!(Keywords(1 << 20).changed(Keywords::JUNK, none), Keywords(1 << 20 | Keywords::JUNK.0));
    }

    #[test]
    fn a_wish_does_not_contradict_itself() {
        let none = Keywords::default();
        assert_eq!(Keywords::conflict(Keywords::SEEN, Keywords::FLAGGED), None);
        for (add, remove) in [
            (Keywords::SEEN, Keywords::SEEN | Keywords::DRAFT),
            (Keywords::JUNK | Keywords::NOTJUNK, none),
            (Keywords(1 << 9), none),
            (none, Keywords(1 << 31)),
        ] {
            assert!(Keywords::conflict(add, remove).is_some(), "{add:?} {remove:?}");
        }
    }
}
