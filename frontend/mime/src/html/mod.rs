//! The text of HTML, for previews, for readers without HTML, and for the index.
//!
//! As a browser's `innerText` has it (HTML Standard, section 3.2.7): blocks are lines, paragraphs are apart, cells are separated by
//! tabs, white space is folded but in preformatted text, what is not shown is not there.
//!
//! Invariant: one pass and no stack. HTML that is wrong, or cut off in the middle, gives the text that it has.

mod entity;
mod output;
mod tag;

use output::Output;
use tag::Tag;

/// Elements whose content is no markup, and is not shown.
const RAW: [&str; 7] = ["script", "style", "title", "template", "noframes", "noembed", "iframe"];

/// The text of `html`, lines ended by `\n` but the last.
pub fn html_to_text(html: &str) -> String {
    let mut reader = Reader { html, at: 0, out: Output::with_capacity(html.len() / 2), hidden: None };
    while reader.at < html.len() {
        reader.step();
    }
    reader.out.finish()
}

struct Reader<'a> {
    html: &'a str,
    at: usize,
    out: Output,
    hidden: Option<Hidden>,
}

/// An element that is not shown, while it lasts.
struct Hidden {
    name: String,
    /// Elements of its name that are open, itself included.
    depth: usize,
    /// Lists and tables that are open within it: they are not over where an item that needs no end tag is.
    containers: usize,
}

/// Elements that end where the next of them begins, or where what is around them ends.
const WITHOUT_END: [&str; 8] = ["p", "li", "td", "th", "tr", "dt", "dd", "option"];
const CONTAINERS: [&str; 5] = ["table", "ul", "ol", "dl", "select"];

impl Reader<'_> {
    fn step(&mut self) {
        let rest = &self.html[self.at..];
        match memchr::memchr(b'<', rest.as_bytes()) {
            None => {
                self.text(rest.len());
                return;
            }
            Some(0) => {}
            Some(length) => {
                self.text(length);
                return;
            }
        }
        match rest.as_bytes() {
            [b'<', b'!', b'-', b'-', ..] => self.at += comment_length(rest),
            // Declarations, processing instructions and what browsers take for comments.
            [b'<', b'!' | b'?', ..] | [b'<', b'/', b' '..=b'@', ..] => {
                self.at += memchr::memchr(b'>', rest.as_bytes()).map_or(rest.len(), |end| end + 1);
            }
            [b'<', b'a'..=b'z' | b'A'..=b'Z', ..] | [b'<', b'/', b'a'..=b'z' | b'A'..=b'Z', ..] => self.tag(),
            _ => self.text(1),
        }
    }

    /// Takes `length` bytes as text.
    fn text(&mut self, length: usize) {
        let text = &self.html[self.at..self.at + length];
        self.at += length;
        if self.hidden.is_none() {
            entity::decode(text, |piece| self.out.push(piece));
        }
    }

    fn tag(&mut self) {
        let (tag, length) = Tag::read(&self.html[self.at..]);
        self.at += length;
        if !tag.closes && RAW.contains(&tag.name.as_str()) {
            self.skip_raw(&tag.name);
            return;
        }
        if let Some(hidden) = &mut self.hidden {
            match hidden.takes(&tag) {
                Within::Hidden => return,
                Within::Ended => {
                    self.hidden = None;
                    return;
                }
                Within::EndedBefore => self.hidden = None,
            }
        }
        if !tag.closes && tag.is_hidden && !tag.is_void() {
            self.hidden = Some(Hidden { name: tag.name, depth: 1, containers: 0 });
            return;
        }
        self.out.tag(&tag);
    }

    /// Skips the content of an element that holds no markup, up to its end tag.
    fn skip_raw(&mut self, name: &str) {
        let bytes = self.html.as_bytes();
        while let Some(found) = memchr::memchr(b'<', &bytes[self.at..]) {
            self.at += found + 1;
            let is_end = bytes[self.at..].strip_prefix(b"/").and_then(|rest| rest.get(..name.len()));
            if is_end.is_some_and(|end| end.eq_ignore_ascii_case(name.as_bytes())) {
                // The end tag itself is read as one.
                self.at -= 1;
                return;
            }
        }
        self.at = bytes.len();
    }
}

/// What a tag is to an element that is not shown.
enum Within {
    Hidden,
    /// It is the element's end.
    Ended,
    /// The element has ended before it.
    EndedBefore,
}

impl Hidden {
    fn takes(&mut self, tag: &Tag) -> Within {
        let is_same = tag.name == self.name;
        let needs_no_end = WITHOUT_END.contains(&self.name.as_str());
        if needs_no_end && self.containers == 0 {
            let is_around =
                CONTAINERS.contains(&tag.name.as_str()) || matches!(tag.name.as_str(), "tbody" | "thead" | "tfoot");
            let ends_around = tag.closes && is_around;
            let begins_block = self.name == "p" && !tag.closes && output::is_block(&tag.name);
            let begins_cell =
                matches!(self.name.as_str(), "td" | "th") && matches!(tag.name.as_str(), "td" | "th" | "tr");
            if ends_around || begins_block || (is_same && !tag.closes) || (begins_cell && !is_same) {
                return Within::EndedBefore;
            }
        }
        if CONTAINERS.contains(&tag.name.as_str()) && !is_same {
            self.containers = if tag.closes { self.containers.saturating_sub(1) } else { self.containers + 1 };
        }
        if is_same && (self.containers == 0 || !needs_no_end) {
            self.depth = if tag.closes { self.depth - 1 } else { self.depth + 1 };
            if self.depth == 0 {
                return Within::Ended;
            }
        }
        Within::Hidden
    }
}

/// How long the comment is that `html` begins with.
fn comment_length(html: &str) -> usize {
    let bytes = html.as_bytes();
    // `<!-->` and `<!--->` are comments without content.
    if let [_, _, _, _, b'>', ..] = bytes {
        return 5;
    }
    if let [_, _, _, _, b'-', b'>', ..] = bytes {
        return 6;
    }
    let mut at = 4;
    while let Some(found) = memchr::memchr(b'>', &bytes[at..]) {
        at += found + 1;
        if bytes[4..at].ends_with(b"-->") || bytes[4..at].ends_with(b"--!>") {
            return at;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests;
