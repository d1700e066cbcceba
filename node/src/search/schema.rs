//! What a document of the index is: the words of a message, each behind its user's prefix, and four numbers.
//!
//! Invariant (P-9): every term begins with the user whose message it is, so whoever walks the dictionary or a list of one user's terms meets
//! nobody else's.

use postrider_api::id::{EmailId, UserId};
use tantivy::schema::{
    BytesOptions, FAST, Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{TextAnalyzer, Token, TokenStream, Tokenizer};

use super::words::{Lines, Words};

/// Raised with every change of what is indexed, or how: an index of another version is thrown away.
pub(super) const VERSION: u32 = 2;
const TOKENIZER: &str = "postrider";

/// Fields of a document.
#[derive(Clone)]
pub(super) struct Fields {
    pub(super) schema: Schema,
    pub(super) words: Field,
    /// What a deletion finds it by.
    pub(super) key: Field,
    /// The user's change that made the message.
    pub(super) sequence: Field,
    /// [`Words::length`].
    pub(super) length: Field,
    /// Bytes of the message as it arrived.
    pub(super) size: Field,
    /// [`Words::checksum`].
    pub(super) checksum: Field,
}

pub(super) fn fields() -> Fields {
    let mut schema = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions)
        .set_fieldnorms(false);
    let words = schema.add_text_field("words", TextOptions::default().set_indexing_options(indexing));
    let key = schema.add_bytes_field("key", BytesOptions::default().set_indexed());
    let number = NumericOptions::from(FAST);
    let sequence = schema.add_u64_field("sequence", number.clone());
    let length = schema.add_u64_field("length", number.clone());
    let size = schema.add_u64_field("size", number.clone());
    let checksum = schema.add_u64_field("checksum", number);
    Fields { schema: schema.build(), words, key, sequence, length, size, checksum }
}

pub(super) fn register(index: &tantivy::Index) {
    index.tokenizers().register(TOKENIZER, TextAnalyzer::from(TermLines::default()));
}

/// Characters of a user's prefix.
pub(super) const PREFIX_CHARS: usize = 22;

/// What the terms of a user begin with: 16 bytes, six bits a character.
pub(super) fn prefix(user: UserId) -> String {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
    let number = u128::from_be_bytes(user.0);
    (0..PREFIX_CHARS).rev().map(|n| char::from(DIGITS[(number >> (6 * n)) as usize & 63])).collect()
}

/// The user of a prefix.
pub(super) fn user_of(prefix: &[u8]) -> Option<UserId> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'Z' => Some(byte - b'A' + 10),
        b'_' => Some(36),
        b'a'..=b'z' => Some(byte - b'a' + 37),
        b'~' => Some(63),
        _ => None,
    };
    let digits = prefix.get(..PREFIX_CHARS)?;
    let number = digits.iter().try_fold(0u128, |number, byte| Some(number << 6 | u128::from(digit(byte)?)))?;
    Some(UserId(number.to_be_bytes()))
}

/// What a message is deleted by.
pub(super) type DocKey = [u8; 16];

pub(super) fn key(user: UserId, email: EmailId) -> DocKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&user.0);
    hasher.update(&email.0);
    let mut key = DocKey::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// What the tokenizer takes: the user's prefix in a line of its own, then the words.
pub(super) fn text(user: UserId, words: &Words) -> String {
    let mut text = prefix(user);
    text.reserve(words.text().len() + 1);
    text.push('\n');
    text.push_str(words.text());
    text
}

/// Gives the lines of [`text`] as terms.
#[derive(Clone, Default)]
struct TermLines {
    token: Token,
}

struct TermStream<'t> {
    lines: Lines<'t>,
    token: &'t mut Token,
}

impl Tokenizer for TermLines {
    type TokenStream<'t> = TermStream<'t>;

    fn token_stream<'t>(&'t mut self, text: &'t str) -> TermStream<'t> {
        let (prefix, lines) = text.split_once('\n').unwrap_or_default();
        self.token.reset();
        self.token.text.push_str(prefix);
        TermStream { lines: Lines { text: lines, position: 0 }, token: &mut self.token }
    }
}

impl TokenStream for TermStream<'_> {
    fn advance(&mut self) -> bool {
        let Some((line, position)) = self.lines.next() else { return false };
        self.token.text.truncate(PREFIX_CHARS);
        self.token.text.push_str(line);
        self.token.position = position as usize;
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_of_one_user() {
        for user in [UserId([0; 16]), UserId([0xff; 16]), UserId(*b"0123456789abcdef")] {
            assert_eq!(user_of(prefix(user).as_bytes()), Some(user));
        }
        assert_eq!(user_of(b"short"), None);
    }
}
