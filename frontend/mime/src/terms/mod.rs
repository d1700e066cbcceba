//! The terms of a text: what a search index keeps of it, and what a query asks for. Both are cut by this code and no other.
//!
//! A language is not guessed; each character's script decides:
//!
//! * letters and digits of alphabetic scripts make **words**, folded: compatibility forms (NFKC), case (ß is ss, and all four of the
//!   Turkish i are one), diacritics. `Café` and `cafe` are one term, `STRASSE` and `straße`, `foo.bar` and `l'amour` are two each;
//! * scripts that are written without spaces between words, or whose words take endings (Han, Hiragana, Katakana, Hangul; Thai, Lao,
//!   Khmer, Burmese), make overlapping **pairs**, and the last character of a run one of its own: of 東京都 they are 東京, 京都, 都. A run that is
//!   looked for is found wherever it stands in a longer one, and a single character by the terms that begin with it;
//! * an **emoji** is a term, whatever its skin or hair; flags are two.
//!
//! Terms are numbered in their order, so that what stands next to each other is known.
//!
//! Invariant: the work is linear in the text, a term has at most [`TERM_BYTES_MAX`] bytes, and no text makes it fail.

mod cut;
mod fold;
mod script;

pub use cut::{Term, TermKind, cut};
pub use script::is_paired;

/// A longer word is kept by its beginning, bytes: what nobody types in full is still found by how it starts.
pub const TERM_BYTES_MAX: usize = 60;

#[cfg(test)]
mod tests;
