//! The first words of a message, for lists.

use postrider_api::limit::PREVIEW_BYTES_MAX;
use postrider_api::pb;

use super::charset::{html_text, to_text};
use super::decode::decoded_head;
use super::html::html_to_text;
use super::limit::{PREVIEW_HTML_BYTES_MAX, PREVIEW_TEXT_BYTES_MAX};
use super::text::folded;

/// Decoded HTML that is tried first, bytes: most messages have their first words in it.
const HTML_TRY_BYTES: usize = 8 * 1024;

/// Body parts that are looked at.
const BODIES_MAX: usize = 8;

/// The first words of the text body, or of the HTML body where there is no text.
pub(super) fn preview(raw: &[u8], parts: &[pb::Part]) -> String {
    let bodies = || parts.iter().filter(|part| part.is_text_body || part.is_html_body).take(BODIES_MAX);
    let is_html = |part: &&pb::Part| part.content_type == "text/html";
    let plain = bodies().filter(|part| !is_html(part)).map(|part| text(raw, part, PREVIEW_TEXT_BYTES_MAX));
    let html = bodies().filter(is_html).map(|part| words_of_html(raw, part));
    plain.chain(html).map(|text| folded(&text, PREVIEW_BYTES_MAX)).find(|words| !words.is_empty()).unwrap_or_default()
}

fn words_of_html(raw: &[u8], part: &pb::Part) -> String {
    let words = html_to_text(&text(raw, part, HTML_TRY_BYTES));
    if words.len() >= PREVIEW_BYTES_MAX || part.length <= HTML_TRY_BYTES as u64 {
        return words;
    }
    html_to_text(&text(raw, part, PREVIEW_HTML_BYTES_MAX))
}

fn text(raw: &[u8], part: &pb::Part, bytes_max: usize) -> String {
    // Offsets of parts that ingest has just made lie within the raw message.
    let body = &raw[part.offset as usize..(part.offset + part.length) as usize];
    let head = decoded_head(part.encoding(), body, bytes_max);
    let text = if part.content_type == "text/html" { html_text } else { to_text };
    text(&head, &part.charset).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::parts::list;
    use super::super::structure::parse;
    use super::*;

    fn of(raw: &str) -> String {
        let parts: Vec<_> = list(&parse(raw.as_bytes())).into_iter().map(|listed| listed.part).collect();
        preview(raw.as_bytes(), &parts)
    }

    #[test]
    fn first_words_of_the_text() {
        assert_eq!(of("Subject: x\r\n\r\n  Hello,\r\n\r\nworld\t!\r\n"), "Hello, world !");
        assert_eq!(of("Content-Transfer-Encoding: base64\r\n\r\n7JWI64WV\r\n"), "안녕");
        assert_eq!(of("Subject: x\r\n\r\n"), "");
        assert_eq!(of(&format!("\r\n{}", "word ".repeat(1000))).len(), PREVIEW_BYTES_MAX);
    }

    #[test]
    fn html_is_read_where_there_is_no_text() {
        let style = format!("<style>{}</style>", "p { color: red }".repeat(1000));
        let raw = format!("Content-Type: text/html\r\n\r\n<html><head>{style}</head><p>Hello&nbsp;<b>you</b></p>");
        assert_eq!(of(&raw), "Hello you");
    }
}
