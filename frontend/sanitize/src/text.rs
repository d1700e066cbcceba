//! Text as HTML: quotations, links, and paragraphs that were wrapped for their way (RFC 3676).

use crate::escape;
use crate::limit::{INPUT_BYTES_MAX, OUTPUT_BYTES_MAX, QUOTE_DEPTH_MAX, URL_BYTES_MAX};
use crate::link::{Destination, destination};
use crate::page::{Paper, page};
use crate::report::Report;
use crate::{Theme, View, wall};

/// How lines belong together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TextFormat {
    /// Each line is one (RFC 3676: `format=fixed`, and what says nothing).
    #[default]
    Fixed,
    /// A line that ends in a blank goes on in the next (`format=flowed`).
    Flowed {
        /// Whether that blank is not part of the text (`delsp=yes`, as languages without blanks between words have it).
        deletes_space: bool,
    },
}

/// Makes what a sender wrote as text a document.
pub fn text(text: &str, format: TextFormat, theme: Theme) -> View {
    let read = escape::head(text, INPUT_BYTES_MAX);
    let mut writer = Writer { out: String::from("<div class=\"text\">"), depth: 0 };
    let mut is_truncated = read.len() < text.len();
    for paragraph in Paragraphs::new(read, format) {
        if writer.out.len() > OUTPUT_BYTES_MAX {
            is_truncated = true;
            break;
        }
        writer.paragraph(&paragraph);
    }
    writer.set_depth(0);
    writer.out.push_str("</div>");
    let report = Report { is_truncated, ..Report::default() };
    View { document: page(Paper::Page(theme), "", &wall::pass(&writer.out)), report }
}

/// Lines that are one to their reader.
struct Paragraph {
    depth: usize,
    text: String,
}

struct Paragraphs<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
    format: TextFormat,
}

impl<'a> Paragraphs<'a> {
    fn new(text: &'a str, format: TextFormat) -> Self {
        Self { lines: text.lines().peekable(), format }
    }
}

impl Iterator for Paragraphs<'_> {
    type Item = Paragraph;

    fn next(&mut self) -> Option<Paragraph> {
        let (depth, line) = unquoted(self.lines.next()?, self.format);
        let mut text = line.to_owned();
        let TextFormat::Flowed { deletes_space } = self.format else { return Some(Paragraph { depth, text }) };
        // RFC 3676 section 4.3: the separator of a signature is a line of its own, though it ends in a blank.
        while text.ends_with(' ') && text != "-- " {
            let next = self.lines.peek().map(|line| unquoted(line, self.format));
            let Some((_, line)) = next.filter(|(next, line)| *next == depth && *line != "-- ") else { break };
            if deletes_space {
                text.pop();
            }
            text.push_str(line);
            self.lines.next();
        }
        Some(Paragraph { depth, text })
    }
}

/// How often a line is quoted, and what is behind that.
fn unquoted(line: &str, format: TextFormat) -> (usize, &str) {
    let mut depth = 0;
    let mut rest = line;
    match format {
        // RFC 3676 section 4.5: the marks stand together, and one blank behind them was stuffed.
        TextFormat::Flowed { .. } => {
            while let Some(inner) = rest.strip_prefix('>') {
                (depth, rest) = (depth + 1, inner);
            }
            rest = rest.strip_prefix(' ').unwrap_or(rest);
        }
        // By custom, with or without blanks between them. ">From" is a line that mailboxes were protected from.
        TextFormat::Fixed => {
            while let Some(inner) = rest.strip_prefix('>').filter(|inner| !inner.starts_with("From ")) {
                depth += 1;
                rest = inner.strip_prefix(' ').unwrap_or(inner);
            }
        }
    }
    (depth, rest)
}

struct Writer {
    out: String,
    depth: usize,
}

impl Writer {
    fn set_depth(&mut self, depth: usize) {
        while self.depth > depth {
            self.out.push_str("</blockquote>");
            self.depth -= 1;
        }
        while self.depth < depth {
            self.out.push_str("<blockquote>");
            self.depth += 1;
        }
    }

    fn paragraph(&mut self, paragraph: &Paragraph) {
        self.set_depth(paragraph.depth.min(QUOTE_DEPTH_MAX));
        let mut rest = paragraph.text.as_str();
        while let Some((before, link, behind)) = next_link(rest) {
            escape::text(&mut self.out, before);
            self.link(link);
            rest = behind;
        }
        escape::text(&mut self.out, rest);
        self.out.push_str("<br>");
    }

    fn link(&mut self, shown: &str) {
        let lower = shown.get(..4).unwrap_or_default().to_ascii_lowercase();
        let href = match lower.as_str() {
            "www." => format!("https://{shown}"),
            _ => shown.to_owned(),
        };
        let (url, leads_to) = match destination(&href) {
            Some(Destination::Web { url, host, .. }) => (url, host),
            Some(Destination::Person { url, shown }) => (url, shown),
            Some(Destination::Within(_)) | None => {
                escape::text(&mut self.out, shown);
                return;
            }
        };
        self.out.push_str("<a");
        escape::attribute(&mut self.out, "href", &url);
        escape::attribute(&mut self.out, "target", "_blank");
        escape::attribute(&mut self.out, "rel", "noopener noreferrer nofollow");
        escape::attribute(&mut self.out, "data-destination", &leads_to);
        self.out.push('>');
        escape::text(&mut self.out, shown);
        self.out.push_str("</a>");
    }
}

/// How links begin in text.
const BEGINNINGS: &[&str] = &["https://", "http://", "www.", "mailto:"];

/// The first link of a text: what is before it, the link, what is behind it.
fn next_link(text: &str) -> Option<(&str, &str, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let begins_word = at == 0 || !bytes[at - 1].is_ascii_alphanumeric();
        let is_letter = matches!(bytes[at] | 0x20, b'h' | b'w' | b'm');
        if begins_word && is_letter {
            let begins = |beginning: &&&str| {
                bytes[at..].get(..beginning.len()).is_some_and(|head| head.eq_ignore_ascii_case(beginning.as_bytes()))
            };
            if let Some(beginning) = BEGINNINGS.iter().find(begins) {
                let end = at + link_length(&text[at..]);
                if end > at + beginning.len() {
                    return Some((&text[..at], &text[at..end], &text[end..]));
                }
                at += beginning.len();
                continue;
            }
        }
        at += 1;
    }
    None
}

/// Up to where a link reaches: not to the punctuation of the sentence that it stands in, nor to a bracket that it did not open.
fn link_length(text: &str) -> usize {
    let text = escape::head(text, URL_BYTES_MAX);
    let end = text.find(|c: char| c.is_whitespace() || c.is_control() || "<>\"`{}|\\^\u{300c}\u{300d}".contains(c));
    let mut link = &text[..end.unwrap_or(text.len())];
    let count = |c| link.matches(c).count();
    let opened = [count('('), count('[')];
    let mut closed = [count(')'), count(']')];
    while let Some(last) = link.chars().next_back() {
        let bracket = match last {
            '.' | ',' | ';' | ':' | '!' | '?' | '\'' | '\u{3002}' | '\u{3001}' | '*' | '_' | '~' => None,
            ')' if closed[0] > opened[0] => Some(0),
            ']' if closed[1] > opened[1] => Some(1),
            _ => break,
        };
        if let Some(bracket) = bracket {
            closed[bracket] -= 1;
        }
        link = &link[..link.len() - last.len_utf8()];
    }
    link.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(text: &str) -> Vec<&str> {
        let (mut found, mut rest) = (Vec::new(), text);
        while let Some((_, link, behind)) = next_link(rest) {
            found.push(link);
            rest = behind;
        }
        found
    }

    #[test]
    fn links_end_where_their_sentence_goes_on() {
        assert_eq!(links("see https://a.example/x. Or (www.b.example)!"), ["https://a.example/x", "www.b.example"]);
        assert_eq!(
            links("<HTTP://a.example/y_(z)>, mailto:a@b.example"),
            ["HTTP://a.example/y_(z)", "mailto:a@b.example"]
        );
        assert_eq!(
            links("xhttp://a.example http:// www. 한국어 https://a.example/한국어\u{3002}"),
            ["https://a.example/한국어"]
        );
    }

    #[test]
    fn flowed_lines_are_one() {
        let flowed = |text, deletes_space| {
            let all = Paragraphs::new(text, TextFormat::Flowed { deletes_space });
            all.map(|paragraph| (paragraph.depth, paragraph.text)).collect::<Vec<_>>()
        };
        let line = |depth, text: &str| (depth, text.to_owned());
        assert_eq!(flowed("one \ntwo \nthree\nfour", false), [line(0, "one two three"), line(0, "four")]);
        assert_eq!(flowed("한국 \n어", true), [line(0, "한국어")]);
        assert_eq!(flowed(">> a \n>> b\n> c \nd", false), [line(2, "a b"), line(1, "c "), line(0, "d")]);
        assert_eq!(flowed("a \n-- \nname", false), [line(0, "a "), line(0, "-- "), line(0, "name")]);
        assert_eq!(flowed(" > no quote\n  stuffed", false), [line(0, "> no quote"), line(0, " stuffed")]);
    }

    #[test]
    fn fixed_lines_stay() {
        let fixed = |text| {
            let all = Paragraphs::new(text, TextFormat::Fixed);
            all.map(|paragraph| (paragraph.depth, paragraph.text)).collect::<Vec<_>>()
        };
        assert_eq!(fixed("> > a \nb"), [(2, "a ".to_owned()), (0, "b".to_owned())]);
        assert_eq!(fixed(">From me"), [(0, ">From me".to_owned())]);
    }
}
