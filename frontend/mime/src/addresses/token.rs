//! A field taken apart (RFC 5322 section 3.2.3): atoms, quoted strings, comments, domain literals, encoded words, specials.

use super::super::encoded_word::EncodedWord;
use super::super::lexical::{Brackets, literal};

/// What no encoded word of a name holds: an address in angle brackets has begun.
const WORD_STOPS: &[u8] = b"<>";

/// One token, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Whether white space stands before it.
    pub(super) is_apart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Without specials and white space.
    Atom(&'a str),
    Encoded(EncodedWord<'a>),
    /// Between its quotes, escapes as they stand.
    Quoted(&'a str),
    /// Between its parentheses, escapes as they stand.
    Comment(&'a str),
    /// With its brackets.
    Literal(&'a str),
    /// What separates, and brackets and quotes that open or close nothing.
    Special(u8),
}

/// The tokens of a field.
#[derive(Debug)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
    brackets: Brackets,
    last_semicolon: Option<usize>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let last_semicolon = memchr::memrchr(b';', text.as_bytes());
        Self { text, at: 0, brackets: Brackets::default(), last_semicolon }
    }

    /// Where the last semicolon of the field stands.
    pub(super) fn last_semicolon(&self) -> Option<usize> {
        self.last_semicolon
    }

    fn read(&mut self, at: usize) -> (Kind<'a>, usize) {
        let (text, bytes) = (self.text, self.text.as_bytes());
        let special = (Kind::Special(bytes[at]), at + 1);
        match bytes[at] {
            b'(' => match self.brackets.comment(bytes, at) {
                Some(end) => (Kind::Comment(&text[at + 1..end - 1]), end),
                None => special,
            },
            b'"' => match self.brackets.quoted(bytes, at) {
                Some(end) => (Kind::Quoted(&text[at + 1..end - 1]), end),
                None => special,
            },
            b'[' => match literal(bytes, at) {
                Some(end) => (Kind::Literal(&text[at..end]), end),
                None => special,
            },
            byte if is_special(byte) => special,
            b'=' => match EncodedWord::at(text, at, WORD_STOPS) {
                Some((word, end)) => (Kind::Encoded(word), end),
                None => self.atom(at),
            },
            _ => self.atom(at),
        }
    }

    fn atom(&self, at: usize) -> (Kind<'a>, usize) {
        let bytes = self.text.as_bytes();
        let ends = |(offset, byte): (usize, &u8)| {
            let begins_word =
                || offset > 0 && *byte == b'=' && EncodedWord::at(self.text, at + offset, WORD_STOPS).is_some();
            is_special(*byte) || byte.is_ascii_whitespace() || begins_word()
        };
        let length = bytes[at..].iter().enumerate().position(ends).unwrap_or(bytes.len() - at);
        (Kind::Atom(&self.text[at..at + length]), at + length)
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let bytes = self.text.as_bytes();
        let start = self.at + bytes[self.at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        let (kind, end) = self.read(start);
        let token = Token { kind, start, end, is_apart: start > self.at };
        self.at = end;
        Some(token)
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b':' | b';' | b'@' | b'\\' | b',' | b'.' | b'"')
}
