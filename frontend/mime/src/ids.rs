//! Message identifiers and their hashes: what threads are made of.
//!
//! An id is what stands between angle brackets without white space or another bracket, in the raw value, folds included: an id
//! that a fold tears apart is none. That is how the thread oracle of the test suites reads them, and every mail program's ids
//! pass it unchanged.

use std::collections::HashSet;

use bytes::Bytes;
use postrider_api::id::MessageIdHash;
use postrider_api::limit::REFERENCES_MAX;

/// The ids in a raw value, in order.
pub(super) fn ids(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    // Collected so that the newest can be taken from the end; a header section is bounded, and so is this.
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = memchr::memchr(b'<', &value[at..]) {
        let start = at + open + 1;
        let length = value[start..].iter().position(|byte| ends_id(*byte)).unwrap_or(value.len() - start);
        at = start + length;
        if length > 0 && value.get(at) == Some(&b'>') {
            found.push(&value[start..at]);
            at += 1;
        }
    }
    found.into_iter()
}

/// White space is what Unicode calls so within ASCII, the four separators included.
fn ends_id(byte: u8) -> bool {
    matches!(byte, b'<' | b'>' | b' ' | b'\t'..=b'\r' | 0x1c..=0x1f)
}

/// Hashes of References, or else of the first id in In-Reply-To (RFC 5256), oldest first, without repetition; the newest
/// `REFERENCES_MAX` of them.
pub(super) fn reference_hashes(references: &[u8], in_reply_to: &[u8]) -> Vec<Bytes> {
    let mut hashes = Vec::new();
    let mut seen = HashSet::new();
    for id in ids(references).rev() {
        if hashes.len() == REFERENCES_MAX {
            break;
        }
        if seen.insert(id) {
            hashes.push(MessageIdHash::of(id).to_bytes());
        }
    }
    hashes.reverse();
    if hashes.is_empty() {
        hashes.extend(ids(in_reply_to).next().map(|id| MessageIdHash::of(id).to_bytes()));
    }
    hashes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &[u8]) -> Vec<&[u8]> {
        ids(value).collect()
    }

    #[test]
    fn ids_are_what_the_expression_finds() {
        assert_eq!(found(b" <a@b> (x) <c>\r\n\t<d@e>"), [&b"a@b"[..], b"c", b"d@e"]);
        assert_eq!(found(b"<a\r\n b> <<c> <> <d"), [&b"c"[..]]);
        assert!(found(b"a@b").is_empty());
    }

    #[test]
    fn references_win_over_in_reply_to() {
        let hash = |id: &[u8]| MessageIdHash::of(id).to_bytes();
        assert_eq!(reference_hashes(b"<a> <b> <a>", b"<c>"), [hash(b"b"), hash(b"a")]);
        assert_eq!(reference_hashes(b"none", b"<c> <d>"), [hash(b"c")]);
        assert!(reference_hashes(b"", b"").is_empty());
    }

    #[test]
    fn the_newest_references_are_kept() {
        let value: String = (0..500).map(|at| format!("<{at}@x>\r\n ")).collect();
        let hashes = reference_hashes(value.as_bytes(), b"");
        assert_eq!(hashes.len(), REFERENCES_MAX);
        assert_eq!(hashes.last(), Some(&MessageIdHash::of(b"499@x").to_bytes()));
        assert_eq!(hashes.first(), Some(&MessageIdHash::of(b"400@x").to_bytes()));
    }
}
