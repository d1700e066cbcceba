//! Texts of many languages, and any text at all.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn terms(text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    cut(text, |term| {
        assert_eq!(term.position as usize, terms.len());
        terms.push(term.text.to_owned());
    });
    terms
}

#[test]
fn words_are_folded() {
    assert_eq!(terms("The Café, a STRASSE"), ["the", "cafe", "a", "strasse"]);
    assert_eq!(terms("straße Straẞe"), ["strasse", "strasse"]);
    assert_eq!(terms("cafe\u{301} ﬁn Ｆｕｌｌ １２"), ["cafe", "fin", "full", "12"]);
    assert_eq!(
        terms("l'amour don’t foo.bar a_b ada@mail.example"),
        ["l", "amour", "don", "t", "foo", "bar", "a", "b", "ada", "mail", "example"]
    );
    assert_eq!(terms("Øre Łódź Ærø cœur"), ["ore", "lodz", "aero", "coeur"]);
    assert_eq!(terms("Donau\u{ad}dampf\u{200d}schiff"), ["donaudampfschiff"]);
    assert_eq!(terms("Ärger im Büro"), ["arger", "im", "buro"]);
}

#[test]
fn the_four_i_of_turkish_are_one() {
    assert_eq!(terms("İstanbul ISTANBUL ıstanbul istanbul"), ["istanbul"; 4]);
    assert_eq!(terms("ŞİŞLİ şişli"), ["sisli", "sisli"]);
}

#[test]
fn greek_cyrillic_arabic_hebrew_and_hindi() {
    assert_eq!(terms("ΟΔΟΣ οδός"), ["οδοσ", "οδοσ"]);
    assert_eq!(terms("Ёлка ёлка елка"), ["елка"; 3]);
    assert_eq!(terms("كِتَاب كتاب كـتـاب"), ["كتاب"; 3]);
    assert_eq!(terms("أحمد احمد مدرسة مدرسه"), ["احمد", "احمد", "مدرسه", "مدرسه"]);
    assert_eq!(terms("שָׁלוֹם שלום"), ["שלום", "שלום"]);
    // Vowels of Devanagari are not diacritics.
    assert_eq!(terms("हिन्दी हन्द"), ["हिन्दी", "हन्द"]);
}

#[test]
fn scripts_without_spaces_make_pairs() {
    assert_eq!(terms("東京都"), ["東京", "京都", "都"]);
    assert_eq!(terms("회의를 합니다"), ["회의", "의를", "를", "합니", "니다", "다"]);
    assert_eq!(terms("회"), ["회"]);
    assert_eq!(
        terms("カタカナ ｶﾞｯｺｳ ガッコウ"),
        ["カタ", "タカ", "カナ", "ナ", "ガッ", "ッコ", "コウ", "ウ", "ガッ", "ッコ", "コウ", "ウ"]
    );
    // Another sound is another term.
    assert_ne!(terms("か"), terms("が"));
    // In jamo, as file systems write it.
    assert_eq!(terms("\u{1112}\u{116c}\u{110b}\u{1174}"), ["회의", "의"]);
    assert_eq!(terms("iPhone15プロ東京"), ["iphone15", "プロ", "ロ東", "東京", "京"]);
    assert_eq!(terms("我们。下午"), ["我们", "们", "下午", "午"]);
    assert_eq!(terms("ประชุม")[0], "ปร");
}

#[test]
fn emoji_are_terms() {
    assert_eq!(terms("party🎉!"), ["party", "🎉"]);
    assert_eq!(terms("👍🏽 👍"), ["👍", "👍"]);
    assert_eq!(terms("👨\u{200d}👩\u{200d}👧"), ["👨", "👩", "👧"]);
    assert_eq!(terms("❤\u{fe0f}"), ["❤"]);
    assert_eq!(terms("🇰🇷"), ["🇰", "🇷"]);
}

#[test]
fn terms_know_where_they_stand() {
    let text = "Ein Café in 東京都 🎉";
    let mut found = String::new();
    cut(text, |term| {
        let _ = write!(found, "{}={} ", term.text, &text[term.source.clone()]);
    });
    assert_eq!(found, "ein=Ein cafe=Café in=in 東京=東京 京都=京都 都=都 🎉=🎉 ");
}

#[test]
fn long_words_are_kept_by_their_beginning() {
    assert_eq!(terms(&"a".repeat(1000)), ["a".repeat(TERM_BYTES_MAX)]);
    assert!(terms(&"é".repeat(1000))[0].len() <= TERM_BYTES_MAX);
    // Marks without end.
    assert!(terms(&format!("a{}", "\u{301}".repeat(100_000))).len() < 2);
}

proptest! {
    #[test]
    fn any_text_is_cut(text in "\\PC{0,200}") {
        let mut last = 0;
        cut(&text, |term| {
            assert!(!term.text.is_empty() && term.text.len() <= TERM_BYTES_MAX, "{term:?}");
            assert!(text.get(term.source.clone()).is_some() && term.source.start >= last, "{term:?}");
            last = term.source.start;
        });
    }

    #[test]
    fn a_term_is_cut_into_itself(text in "\\PC{0,100}") {
        for term in terms(&text) {
            let again = terms(&term);
            prop_assert_eq!(&again[0], &term);
        }
    }
}
