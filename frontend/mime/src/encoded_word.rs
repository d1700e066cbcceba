//! Encoded words (RFC 2047), as they stand and as senders write them.
//!
//! Words that follow each other in one charset are joined before they are decoded: RFC 2047 section 5 forbids a sender to cut a
//! character over two words, and senders do it.
//!
//! Invariant: linear. A word that is none is given up at the next `=?`, where the next attempt begins.

use std::borrow::Cow;

use super::charset::{Charset, to_text};
use super::decode::{Base64, Decoder};
use super::limit::CHARSET_BYTES_MAX;

/// One encoded word, not decoded yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EncodedWord<'a> {
    /// Without the language of RFC 2231 section 5.
    charset: &'a str,
    is_base64: bool,
    text: &'a str,
}

impl<'a> EncodedWord<'a> {
    /// The word that begins at `at`, and where it ends. `None` if none does. White space within is taken: many senders encode too
    /// little. `stops` are bytes that no word may hold where it stands.
    pub(super) fn at(text: &'a str, at: usize, stops: &[u8]) -> Option<(Self, usize)> {
        let rest = text[at..].strip_prefix("=?")?;
        let is_charset = |byte: &u8| byte.is_ascii_graphic() && *byte != b'?' && *byte != b'=';
        let named = rest.bytes().take(2 * CHARSET_BYTES_MAX).take_while(is_charset).count();
        let charset = &rest[..named];
        let rest = rest[named..].strip_prefix('?')?;
        let is_base64 = match rest.as_bytes() {
            [b'b' | b'B', b'?', ..] => true,
            [b'q' | b'Q', b'?', ..] => false,
            _ => return None,
        };
        let rest = &rest[2..];
        let length = word_length(rest.as_bytes(), stops)?;
        let charset = charset.split('*').next().filter(|charset| !charset.is_empty())?;
        let end = text.len() - rest.len() + length + 2;
        Some((Self { charset, is_base64, text: &rest[..length] }, end))
    }
}

/// How much of `rest` stands before the `?=` that ends the word.
fn word_length(rest: &[u8], stops: &[u8]) -> Option<usize> {
    for (at, &byte) in rest.iter().enumerate() {
        let next = rest.get(at + 1);
        match byte {
            b'?' if next == Some(&b'=') => return Some(at),
            // The beginning of another word; but `=?=` is an escape that was cut off, and the end.
            b'=' if next == Some(&b'?') && rest.get(at + 2) != Some(&b'=') => return None,
            _ if stops.contains(&byte) => return None,
            _ => {}
        }
    }
    None
}

/// `text` with its encoded words decoded, as an unstructured field (RFC 5322 section 3.2.5) holds them.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    if memchr::memmem::find(text.as_bytes(), b"=?").is_none() {
        return Cow::Borrowed(text);
    }
    let mut words = Words::default();
    words.push_unstructured(text);
    Cow::Owned(words.finish())
}

/// Text while words are added to it.
#[derive(Default)]
pub(super) struct Words<'a> {
    out: String,
    /// The words that are not decoded yet, because the next may belong to them.
    run: Option<Run<'a>>,
    /// White space behind the run: it separates only from what is no encoded word (RFC 2047 section 6.2).
    space: &'a str,
}

struct Run<'a> {
    charset: &'a str,
    bytes: Vec<u8>,
    base64: Option<Base64>,
}

impl<'a> Words<'a> {
    /// Adds text as it is.
    pub(super) fn push_text(&mut self, text: &str) {
        if !text.is_empty() {
            self.end_run();
            self.out.push_str(text);
        }
    }

    /// Adds white space, which goes where it stands between two encoded words.
    pub(super) fn push_space(&mut self, space: &'a str) {
        if self.run.is_some() {
            self.space = space;
        } else {
            self.out.push_str(space);
        }
    }

    /// Adds an encoded word.
    pub(super) fn push_word(&mut self, word: EncodedWord<'a>) {
        let continues = |run: &Run<'_>| run.charset.eq_ignore_ascii_case(word.charset);
        if !self.run.as_ref().is_some_and(continues) || !Charset::of(word.charset).is_joined() {
            // What stands between two words goes, whatever their charsets are.
            self.space = "";
            self.end_run();
        }
        self.space = "";
        let run = self.run.get_or_insert_with(|| Run { charset: word.charset, bytes: Vec::new(), base64: None });
        run.push(&word);
    }

    /// Adds text that may hold encoded words.
    pub(super) fn push_unstructured(&mut self, text: &'a str) {
        let finder = memchr::memmem::Finder::new(b"=?");
        let mut done = 0;
        let mut from = 0;
        while let Some(found) = finder.find(&text.as_bytes()[from..]) {
            let at = from + found;
            let Some((word, end)) = EncodedWord::at(text, at, b"") else {
                from = at + 2;
                continue;
            };
            self.push_between(&text[done..at]);
            self.push_word(word);
            (done, from) = (end, end);
        }
        self.push_between(&text[done..]);
    }

    fn push_between(&mut self, text: &'a str) {
        if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
            self.push_space(text);
        } else {
            self.push_text(text);
        }
    }

    /// What has come together.
    pub(super) fn finish(mut self) -> String {
        self.end_run();
        self.out
    }

    fn end_run(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.end_base64();
            self.out.push_str(&to_text(&run.bytes, run.charset));
        }
        self.out.push_str(std::mem::take(&mut self.space));
    }
}

impl Run<'_> {
    fn push(&mut self, word: &EncodedWord<'_>) {
        if word.is_base64 {
            // A group of four symbols that was cut goes on in the next word; one that only lacks its padding is complete.
            if self.base64.as_ref().is_some_and(|base64| !base64.is_cut()) {
                self.end_base64();
            }
            let base64 = self.base64.get_or_insert_with(Base64::default);
            base64.push(word.text.as_bytes(), &mut self.bytes);
        } else {
            self.end_base64();
            push_q(word.text, &mut self.bytes);
        }
    }

    fn end_base64(&mut self) {
        if let Some(base64) = self.base64.take() {
            let mut decoder = Decoder::Base64(base64);
            decoder.finish(&mut self.bytes);
        }
    }
}

/// The "Q" encoding (RFC 2047 section 4.2); what is no escape stays as it is.
fn push_q(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'_', _) => out.push(b' '),
            (b'=', [high, low, tail @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push((super::decode::hex_value(*high) << 4) | super::decode::hex_value(*low));
                rest = tail;
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_are_decoded_where_they_stand() {
        assert_eq!(decoded("plain = text?"), "plain = text?");
        assert_eq!(decoded("=?utf-8?Q?Gr=C3=BC=C3=9Fe?= =?utf-8?B?IGF1cw==?= Bonn"), "Grüße aus Bonn");
        assert_eq!(decoded("a =?ISO-8859-1*de?q?caf=E9_au?= lait"), "a café au lait");
        assert_eq!(decoded("=?utf-8?q?a?==?utf-8?q?b?=  c"), "ab  c");
        assert_eq!(decoded("Re:=?utf-8?q?a?=(b)"), "Re:a(b)");
        assert_eq!(decoded("=?utf-8?q?a?= =?iso-8859-1?q?=E9?= =?utf-8?q?b?="), "aéb");
    }

    #[test]
    fn a_character_cut_over_two_words_is_whole() {
        assert_eq!(decoded("=?UTF-8?Q?pasi=C5=BEad=C4?= =?utf-8?Q?=97jimas?="), "pasižadėjimas");
        assert_eq!(decoded("=?gb2312?B?1eLKx9I?= =?gb2312?B?u7fisuLK1NDF?="), "这是一封测试信");
        // The encodings may differ, and a group of base64 may be cut too.
        assert_eq!(decoded("=?utf-8?Q?=EC=95?= =?utf-8?B?iOuFlQ==?="), "안녕");
        assert_eq!(decoded("=?utf-8?B?7JWI6?= =?utf-8?B?4WV?="), "안녕");
        // In ISO-2022-JP each word begins anew and is joined all the same.
        assert_eq!(decoded("=?ISO-2022-JP?B?GyRCMnEbKEI=?= =?ISO-2022-JP?B?GyRCNUQbKEI=?="), "会議");
    }

    #[test]
    fn what_is_no_word_stays() {
        for text in ["=?utf-8?q?open", "=?utf-8?x?a?=", "=??q?a?=", "=?utf-8?q", "=?", "=?utf-8?=?="] {
            assert_eq!(decoded(text), text);
        }
        assert_eq!(decoded("=?utf-8?q?lost =?utf-8?q?found?="), "=?utf-8?q?lost found");
        assert_eq!(decoded("=?utf-8?q?what??="), "what?");
        assert_eq!(decoded("=?utf-8?q?a=?="), "a=");
        assert_eq!(decoded("=?utf-8?q?50=% off=zz?="), "50=% off=zz");
        assert_eq!(decoded("=?utf-8?q?two words, encoded little?="), "two words, encoded little");
    }

    #[test]
    fn charsets_that_nobody_knows_are_guessed() {
        assert_eq!(decoded("=?x-unknown?q?caf=C3=A9?="), "café");
        assert_eq!(decoded("=?x-unknown?q?caf=E9?="), "café");
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(=\\?|utf-8|\\?q\\?|\\?b\\?|\\?=|=C3| |_|\\PC){0,40}") {
            decoded(&text);
        }
    }
}
