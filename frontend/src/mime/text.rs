//! Text for rows: without control characters, white space folded, bounded at character borders.

/// `text` without control characters; line breaks and tabs become spaces, runs of white space one space. At most `bytes_max`
/// bytes; what is beyond is not looked at.
pub(super) fn folded(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut space = false;
    for c in text.chars() {
        if c.is_whitespace() {
            // Leading white space is dropped: a space is owed only once something stands before it.
            space = !out.is_empty();
        } else if !is_dropped(c) {
            let owed = usize::from(space);
            if out.len() + owed + c.len_utf8() > bytes_max {
                break;
            }
            if space {
                out.push(' ');
                space = false;
            }
            out.push(c);
        }
    }
    out
}

/// The beginning of `text`, at most `bytes_max` bytes, ended at a character's border.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Characters that no row keeps: controls, and what turns the direction of the text around it (Unicode TR 36 section 2.5.4:
/// they let a file name or a sender's name read as another).
fn is_dropped(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn white_space_is_folded_and_controls_go() {
        assert_eq!(folded("  a\r\n\tb\0c \u{7}\u{a0} d  ", 100), "a bc d");
        assert_eq!(folded("invoice\u{202e}fdp.exe", 100), "invoicefdp.exe");
    }

    #[test]
    fn ends_between_characters() {
        assert_eq!(folded("한글 편지", 7), "한글");
        assert_eq!(head("한글", 4), "한");
    }

    proptest! {
        #[test]
        fn never_longer_than_asked_for(text in "\\PC*|[\\x00-\\x7f]*", max in 0usize..64) {
            let out = folded(&text, max);
            prop_assert!(out.len() <= max);
            prop_assert!(!out.chars().any(char::is_control));
            prop_assert!(!out.starts_with(' ') && !out.ends_with(' '));
            prop_assert!(head(&text, max).len() <= max);
        }
    }
}
