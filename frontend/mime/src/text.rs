//! Text for rows: without control characters, white space folded, bounded at character borders.
//!
//! Invariant: white space that is not ASCII stays what it is, where the value is somebody's words: a wide space parts a Japanese
//! subject, a narrow one stands in the names of screenshots.

/// `text` without control characters; line breaks and tabs become spaces, runs of white space one space, what stands at the ends
/// goes. At most `bytes_max` bytes; what is beyond is not looked at.
pub(super) fn folded(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut space = false;
    for c in text.chars() {
        if is_folded(c) || c == '\u{a0}' {
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

/// `text` as its writer meant it, in one line: control characters go, those that break lines become spaces, and so do the spaces at
/// the ends. At most `bytes_max` bytes.
pub(super) fn in_line(text: &str, bytes_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    for c in text.chars() {
        let c = if is_folded(c) { ' ' } else { c };
        if is_dropped(c) || (c == ' ' && out.is_empty()) {
            continue;
        }
        if out.len() + c.len_utf8() > bytes_max {
            break;
        }
        out.push(c);
    }
    let length = out.trim_end_matches(' ').len();
    out.truncate(length);
    out
}

/// A file name as it may be shown and saved (RFC 2183 section 2.3): one step of a path, in one line, at most `bytes_max` bytes. The
/// end of a longer one is kept where it is an extension of at most `extension_bytes_max` bytes, because a file without it does not
/// open.
pub(super) fn file_name(text: &str, bytes_max: usize, extension_bytes_max: usize) -> String {
    let is_separator = |c: char| matches!(c, '/' | '\\');
    let text = if is_path(text) { text.rsplit(is_separator).next().unwrap_or_default() } else { text };
    let name = in_line(text, text.len()).replace(is_separator, "_");
    if matches!(name.as_str(), "." | "..") {
        return String::new();
    }
    if name.len() <= bytes_max {
        return name;
    }
    let extension = name.rfind('.').map_or("", |dot| &name[dot..]);
    if extension.len() > extension_bytes_max || extension.contains(' ') {
        return head(&name, bytes_max).to_owned();
    }
    head(&name, bytes_max - extension.len()).to_owned() + extension
}

/// Whether the text is a path rather than a name with a separator in it, as a date has.
fn is_path(text: &str) -> bool {
    let has_drive = matches!(text.as_bytes(), [b'A'..=b'Z' | b'a'..=b'z', b':', b'/' | b'\\', ..]);
    let steps_up = text.split(['/', '\\']).any(|step| matches!(step, "." | ".."));
    has_drive || text.starts_with(['/', '\\', '~']) && text.contains(['/', '\\']) || steps_up
}

/// The beginning of `text`, at most `bytes_max` bytes, ended at a character's border.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// White space that breaks a line, and that of ASCII.
fn is_folded(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
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
        assert_eq!(folded("件名\u{3000}二つ", 100), "件名\u{3000}二つ");
    }

    #[test]
    fn words_stay_as_they_are_written() {
        assert_eq!(in_line(" 件名\u{3000}二つ  a\u{a0}b\r\n\tc ", 100), "件名\u{3000}二つ  a\u{a0}b   c");
        assert_eq!(in_line("a\u{202e}b\u{7}\u{2028}c", 100), "ab c");
        assert_eq!(in_line("한글 편지", 7), "한글");
    }

    #[test]
    fn file_names_are_one_step_of_a_path() {
        let name = |text: &str| file_name(text, 20, 8);
        assert_eq!(name("a  b.pdf"), "a  b.pdf");
        assert_eq!(name("../../etc/passwd"), "passwd");
        assert_eq!(name("C:\\docs\\a.pdf"), "a.pdf");
        assert_eq!(name("\\\\host\\a.pdf"), "a.pdf");
        assert_eq!(name("/etc/passwd"), "passwd");
        assert_eq!(name("Invoice 03/2026.pdf"), "Invoice 03_2026.pdf");
        assert_eq!(name("AC\\DC.mp3"), "AC_DC.mp3");
        assert_eq!(name(".."), "");
        assert_eq!(name("a/.."), "");
        assert_eq!(name(".profile"), ".profile");
        assert_eq!(name("in\u{202e}voice\0\r\n.pdf"), "invoice  .pdf");
    }

    #[test]
    fn long_file_names_keep_their_extension() {
        assert_eq!(file_name("a long name of a file.pdf", 20, 8), "a long name of a.pdf");
        assert_eq!(file_name("한글 편지 한글.pdf", 15, 8), "한글 편.pdf");
        assert_eq!(file_name("a long name. And a sentence", 20, 8), "a long name. And a s");
        assert_eq!(file_name("no extension but long", 10, 8), "no extensi");
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
            let line = in_line(&text, max);
            prop_assert!(line.len() <= max && !line.chars().any(char::is_control));
            let name = file_name(&text, max + 8, 8);
            prop_assert!(name.len() <= max + 8 && !name.contains(['/', '\\']));
            prop_assert!(head(&text, max).len() <= max);
        }
    }
}
