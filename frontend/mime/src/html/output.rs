//! Text while it comes out of HTML: lines, cells, folded white space.

use super::tag::Tag;

/// Line breaks between paragraphs: an empty line.
const PARAGRAPH: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Output {
    text: String,
    /// Line breaks that are due before the next word.
    breaks: usize,
    /// Whether a cell has ended before the next word.
    is_cell_due: bool,
    is_space_due: bool,
    /// Preformatted elements that are open.
    preformatted: usize,
}

impl Output {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { text: String::with_capacity(capacity), ..Self::default() }
    }

    /// Adds text.
    pub(super) fn push(&mut self, text: &str) {
        if self.preformatted > 0 {
            return self.push_preformatted(text);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let space = rest.bytes().take_while(u8::is_ascii_whitespace).count();
            self.is_space_due |= space > 0;
            rest = &rest[space..];
            let word = rest.bytes().take_while(|byte| !byte.is_ascii_whitespace()).count();
            if word > 0 {
                self.separate();
                self.text.push_str(&rest[..word]);
                rest = &rest[word..];
            }
        }
    }

    fn push_preformatted(&mut self, text: &str) {
        for (at, line) in text.split('\n').enumerate() {
            if at > 0 {
                self.line_break();
            }
            let line = line.strip_suffix('\r').unwrap_or(line);
            if !line.is_empty() {
                self.is_space_due = false;
                self.separate();
                self.text.push_str(line);
            }
        }
    }

    /// Puts what is due between the words before and the word that comes.
    fn separate(&mut self) {
        if !self.text.is_empty() {
            if self.breaks > 0 {
                self.text.extend(std::iter::repeat_n('\n', self.breaks));
            } else if self.is_cell_due {
                self.text.push('\t');
            } else if self.is_space_due {
                self.text.push(' ');
            }
        }
        (self.breaks, self.is_cell_due, self.is_space_due) = (0, false, false);
    }

    /// A line break that the writer put there: several make empty lines.
    fn line_break(&mut self) {
        // More than one empty line says nothing.
        self.breaks = (self.breaks + 1).min(PARAGRAPH);
        self.is_space_due = false;
    }

    /// What a tag means for the text around it.
    pub(super) fn tag(&mut self, tag: &Tag) {
        match tag.name.as_str() {
            "br" => self.line_break(),
            "td" | "th" => self.is_cell_due = true,
            name if is_block(name) => {
                let breaks = if is_paragraph(name) { PARAGRAPH } else { 1 };
                self.breaks = self.breaks.max(breaks);
            }
            // Controls and pictures stand apart from the words beside them.
            "img" | "input" | "button" | "select" | "textarea" => self.is_space_due = true,
            _ => {}
        }
        if matches!(tag.name.as_str(), "pre" | "listing" | "xmp") {
            self.preformatted =
                if tag.closes { self.preformatted.saturating_sub(1) } else { self.preformatted.saturating_add(1) };
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Elements that stand in lines of their own.
pub(super) fn is_block(name: &str) -> bool {
    is_paragraph(name)
        || matches!(
            name,
            "address"
                | "article"
                | "aside"
                | "body"
                | "caption"
                | "center"
                | "dd"
                | "details"
                | "dialog"
                | "dir"
                | "div"
                | "dt"
                | "fieldset"
                | "figcaption"
                | "figure"
                | "footer"
                | "form"
                | "frameset"
                | "head"
                | "header"
                | "hgroup"
                | "html"
                | "legend"
                | "li"
                | "listing"
                | "main"
                | "menu"
                | "nav"
                | "optgroup"
                | "option"
                | "search"
                | "section"
                | "summary"
                | "table"
                | "tbody"
                | "tfoot"
                | "thead"
                | "tr"
                | "xmp"
        )
}

/// Elements that an empty line parts from what stands around them.
fn is_paragraph(name: &str) -> bool {
    matches!(name, "p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "blockquote" | "pre" | "hr" | "ul" | "ol" | "dl")
}
