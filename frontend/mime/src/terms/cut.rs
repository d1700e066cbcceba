//! The cut itself: stretches of the text that belong together, each folded by itself so that every term knows where it stands.

use std::ops::Range;

use super::TERM_BYTES_MAX;
use super::fold::fold;
use super::script::{Class, class};

/// What a term is of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TermKind {
    /// A word, or a symbol.
    Whole,
    /// Two characters of a run that is cut into pairs.
    Pair,
    /// The last character of such a run, which the pair before it has as well, where there is one.
    Last,
}

/// One term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term<'t> {
    /// Folded, at most [`TERM_BYTES_MAX`] bytes.
    pub text: &'t str,
    /// Its number in the text, from 0.
    pub position: u32,
    /// What it is of its run.
    pub kind: TermKind,
    /// What of the text it was made of, bytes.
    pub source: Range<usize>,
}

/// Gives each term of `text` to `take`, in order.
pub fn cut(text: &str, mut take: impl FnMut(&Term<'_>)) {
    let mut cutter =
        Cutter { position: 0, word: String::new(), run: Vec::new(), folded: String::new(), take: &mut take };
    let mut at = 0;
    while at < text.len() {
        let end = cutter.stretch(text, at);
        at = end;
    }
}

/// A character of a run, folded, and where it came from.
struct Paired {
    c: char,
    source: Range<usize>,
}

struct Cutter<'c, F> {
    position: u32,
    word: String,
    run: Vec<Paired>,
    folded: String,
    take: &'c mut F,
}

impl<F: FnMut(&Term<'_>)> Cutter<'_, F> {
    /// Cuts what stands between two gaps, from `start` on; where it ended.
    fn stretch(&mut self, text: &str, start: usize) -> usize {
        let rest = &text.as_bytes()[start..];
        let ascii = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let is_plain = rest.get(ascii).is_none_or(u8::is_ascii);
        if is_plain {
            if ascii > 0 {
                self.word.clear();
                self.word.push_str(&text[start..start + ascii.min(TERM_BYTES_MAX)]);
                self.word.make_ascii_lowercase();
                self.end_word(start..start + ascii);
                return start + ascii;
            }
            return start + rest.iter().take_while(|byte| byte.is_ascii() && !byte.is_ascii_alphanumeric()).count();
        }
        self.mixed(text, start)
    }

    /// The same where other scripts come in: up to the first gap.
    fn mixed(&mut self, text: &str, start: usize) -> usize {
        self.word.clear();
        self.run.clear();
        let mut word = start..start;
        let mut at = start;
        while at < text.len() {
            let end = cluster(text, at);
            let mut folded = std::mem::take(&mut self.folded);
            fold(&text[at..end], &mut folded);
            let mut is_gap = false;
            for c in folded.chars() {
                match class(c) {
                    Class::Word => {
                        self.end_run();
                        if self.word.is_empty() {
                            word = at..end;
                        }
                        word.end = end;
                        if self.word.len() + c.len_utf8() <= TERM_BYTES_MAX {
                            self.word.push(c);
                        }
                    }
                    Class::Paired => {
                        self.end_word(word.clone());
                        self.run.push(Paired { c, source: at..end });
                    }
                    Class::Symbol => {
                        self.end_word(word.clone());
                        self.end_run();
                        self.word.push(c);
                        self.end_word(at..end);
                    }
                    Class::Ignored => {}
                    Class::Gap => {
                        self.end_word(word.clone());
                        self.end_run();
                        is_gap = true;
                    }
                }
            }
            self.folded = folded;
            at = end;
            if is_gap {
                break;
            }
        }
        self.end_word(word);
        self.end_run();
        at
    }

    fn end_word(&mut self, source: Range<usize>) {
        if !self.word.is_empty() {
            let term = Term { text: &self.word, position: self.position, kind: TermKind::Whole, source };
            (self.take)(&term);
            self.position += 1;
            self.word.clear();
        }
    }

    fn end_run(&mut self) {
        let mut text = String::new();
        for (n, first) in self.run.iter().enumerate() {
            text.clear();
            text.push(first.c);
            let (kind, source) = match self.run.get(n + 1) {
                Some(second) => {
                    text.push(second.c);
                    (TermKind::Pair, first.source.start..second.source.end)
                }
                None => (TermKind::Last, first.source.clone()),
            };
            (self.take)(&Term { text: &text, position: self.position, kind, source });
            self.position += 1;
        }
        self.run.clear();
    }
}

/// Marks that are looked at together with the character they stand on. More of them are a text that was made to be long.
const MARKS_MAX: usize = 32;

/// The end of the character at `at` with the marks that stand on it: they may compose with it. A syllable of Hangul that is written in
/// jamo is one, too.
fn cluster(text: &str, at: usize) -> usize {
    let mut chars = text[at..].char_indices();
    let Some((_, first)) = chars.next() else { return text.len() };
    let is_jamo = is_jamo(first);
    for (n, (offset, c)) in chars.enumerate() {
        let joins =
            unicode_normalization::char::is_combining_mark(c) || is_half_mark(c) || (is_jamo && is_vowel_or_tail(c));
        if !joins || n >= MARKS_MAX {
            return at + offset;
        }
    }
    text.len()
}

fn is_jamo(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{a960}'..='\u{a97c}')
}

fn is_vowel_or_tail(c: char) -> bool {
    matches!(c, '\u{1160}'..='\u{11ff}' | '\u{d7b0}'..='\u{d7fb}')
}

/// Marks of half-width Katakana, which become combining ones.
fn is_half_mark(c: char) -> bool {
    matches!(c, '\u{ff9e}' | '\u{ff9f}')
}
