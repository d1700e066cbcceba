//! Which characters make terms, and of which kind.

/// What a character is for the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Of a word.
    Word,
    /// Of a run that is cut into pairs.
    Paired,
    /// A term of its own.
    Symbol,
    /// Stands within a word and is nothing of it: a soft hyphen, a joiner, a mark of direction.
    Ignored,
    /// Between terms.
    Gap,
}

/// Whether the text's characters are cut into pairs: a lone one is looked for by the terms that begin with it.
pub fn is_paired(text: &str) -> bool {
    text.chars().next().is_some_and(|c| class(c) == Class::Paired)
}

/// The class of a character that has been folded.
pub(super) fn class(c: char) -> Class {
    match c {
        'a'..='z' | '0'..='9' | 'A'..='Z' => Class::Word,
        '\0'..='\x7f' => Class::Gap,
        // Soft hyphen, zero-width space excepted: that one separates.
        '\u{ad}'
        | '\u{200c}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}'
        | '\u{2066}'..='\u{2069}' => Class::Ignored,
        '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{61c}' | '\u{640}' => Class::Ignored,
        c if is_paired_script(c) => Class::Paired,
        c if is_modifier(c) => Class::Ignored,
        c if is_symbol(c) => Class::Symbol,
        c if c.is_alphanumeric() || is_mark(c) => Class::Word,
        _ => Class::Gap,
    }
}

/// Scripts without spaces between words, and Hangul, whose particles are written to the word.
fn is_paired_script(c: char) -> bool {
    matches!(c,
        // Thai, Lao with their vowels and tones; Burmese; Khmer.
        '\u{e01}'..='\u{e3a}' | '\u{e40}'..='\u{e4e}' | '\u{e81}'..='\u{ece}' | '\u{edc}'..='\u{edf}'
        | '\u{1000}'..='\u{103f}' | '\u{1050}'..='\u{109f}' | '\u{1780}'..='\u{17d3}' | '\u{17dc}'
        // Hangul: jamo, compatibility jamo, syllables, extensions.
        | '\u{1100}'..='\u{11ff}' | '\u{3131}'..='\u{318e}' | '\u{a960}'..='\u{a97c}' | '\u{ac00}'..='\u{d7a3}' | '\u{d7b0}'..='\u{d7fb}'
        // 々 〆 〇, Hiragana, Katakana with the mark of length, Bopomofo.
        | '\u{3005}'..='\u{3007}' | '\u{3041}'..='\u{3096}' | '\u{3099}' | '\u{309a}' | '\u{309d}'..='\u{309f}'
        | '\u{30a1}'..='\u{30fa}' | '\u{30fc}'..='\u{30ff}' | '\u{3105}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{31f0}'..='\u{31ff}'
        // Han.
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

/// Skin and hair of an emoji, and the tags of a flag.
fn is_modifier(c: char) -> bool {
    matches!(c, '\u{1f3fb}'..='\u{1f3ff}' | '\u{1f9b0}'..='\u{1f9b3}' | '\u{e0020}'..='\u{e007f}' | '\u{20e3}')
}

/// Pictures: the blocks that emoji come from.
fn is_symbol(c: char) -> bool {
    matches!(c,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{20a0}'..='\u{20cf}' | '\u{2139}' | '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}'
        | '\u{25a0}'..='\u{27bf}' | '\u{2900}'..='\u{297f}' | '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1f3fa}' | '\u{1f400}'..='\u{1faff}')
}

/// Vowel signs and the like, without which the words of many scripts of India are not words. Those that folding drops do not get here.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}
