//! One character folded: what its compatibility form, its case and its diacritics are is forgotten.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Folds a text into `into`, which is cleared. Composed (NFC), so that a syllable of Hangul is one character again.
pub(super) fn fold(text: &str, into: &mut String) {
    into.clear();
    if text.is_ascii() {
        into.push_str(text);
        into.make_ascii_lowercase();
        return;
    }
    let folded = text.nfkd().filter(|c| !is_dropped(*c)).flat_map(case).flat_map(plain);
    // Case folding may have made what decomposes; its marks go as well.
    into.extend(folded.nfkd().filter(|c| !is_dropped(*c)).nfc());
}

/// A letter by way of its capital: ß is ss, ς is σ, ı is i. Made small before that: ẞ is its own capital.
fn case(c: char) -> impl Iterator<Item = char> {
    c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
}

/// Marks above and below letters of Latin, Greek, Cyrillic, Hebrew, Arabic and Syriac. Those of other scripts are vowels, and those of
/// Kana another sound.
fn is_dropped(c: char) -> bool {
    is_combining_mark(c)
        && matches!(c,
            '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}'
            | '\u{670}' | '\u{6d6}'..='\u{6ed}' | '\u{711}' | '\u{730}'..='\u{74a}' | '\u{8d3}'..='\u{8ff}' | '\u{1ab0}'..='\u{1aff}'
            | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20f0}' | '\u{fe20}'..='\u{fe2f}')
}

/// Letters with a stroke or joined to another, which do not decompose; letters of Arabic that are written for each other.
fn plain(c: char) -> Plain {
    match c {
        'ø' => Plain::one('o'),
        'đ' | 'ð' => Plain::one('d'),
        'ł' => Plain::one('l'),
        'ħ' => Plain::one('h'),
        'ŧ' => Plain::one('t'),
        'æ' => Plain::two('a', 'e'),
        'œ' => Plain::two('o', 'e'),
        'þ' => Plain::two('t', 'h'),
        'ى' => Plain::one('ي'),
        'ة' => Plain::one('ه'),
        c => Plain::one(c),
    }
}

/// One or two characters.
struct Plain([Option<char>; 2]);

impl Plain {
    fn one(c: char) -> Self {
        Self([Some(c), None])
    }

    fn two(first: char, second: char) -> Self {
        Self([Some(first), Some(second)])
    }
}

impl IntoIterator for Plain {
    type Item = char;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<char>, 2>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}
