//! Text within HTML.

/// Appends text as an element's content.
pub(crate) fn text(out: &mut String, text: &str) {
    escaped(out, text, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    });
}

/// Appends ` name="value"`.
pub(crate) fn attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    escaped(out, value, |c| match c {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        // Some old readers take it for a quote.
        '`' => Some("&#96;"),
        _ => None,
    });
    out.push('"');
}

fn escaped(out: &mut String, text: &str, reference: impl Fn(char) -> Option<&'static str>) {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let instead = match c {
            // A parser makes U+FFFD or nothing of it, depending on where it stands.
            '\0' => Some(""),
            c => reference(c),
        };
        if let Some(instead) = instead {
            out.push_str(&text[from..at]);
            out.push_str(instead);
            from = at + c.len_utf8();
        }
    }
    out.push_str(&text[from..]);
}

/// The beginning of `text`, at most `bytes_max` of it.
pub(crate) fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}
