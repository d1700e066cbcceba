//! Style sheets.
//!
//! They stay sheets: put into the elements' attributes, a selector costs a look at each element, and what stands in a media query,
//! which is how a message fits a telephone, would be lost.

use cssparser::{AtRuleParser, CowRcStr, ParseError, Parser, ParserState, QualifiedRuleParser, StyleSheetParser};

use super::Images;
use super::declaration::{Traits, body};
use super::selector::{Selector, media, selector};
use crate::Theme;
use crate::limit::{RULES_MAX, SHEETS_BYTES_MAX};

/// What was found in style sheets.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct SheetNotes {
    /// Sheets and fonts that would have been fetched.
    pub(crate) remote: u32,
    /// Whether a rule names colours.
    pub(crate) has_colors: bool,
    /// Whether the sender made it for dark pages too, and this is one.
    pub(crate) is_dark: bool,
    /// Whether there was more than is read.
    pub(crate) is_truncated: bool,
}

/// The style sheets of one message, put together.
pub(crate) struct Sheets {
    theme: Theme,
    text: String,
    /// What follows only where the page is dark: behind everything else, as senders write it.
    read: usize,
    rules: usize,
    notes: SheetNotes,
}

impl Sheets {
    pub(crate) fn new(theme: Theme) -> Self {
        Self { theme, text: String::new(), read: 0, rules: 0, notes: SheetNotes::default() }
    }

    /// Adds one.
    pub(crate) fn add(&mut self, sheet: &str, images: &mut dyn Images) {
        self.read = self.read.saturating_add(sheet.len());
        if self.read > SHEETS_BYTES_MAX {
            self.notes.is_truncated = true;
            return;
        }
        // Sheets in a comment of HTML, for readers of the nineties, are sheets all the same: the grammar skips its marks.
        let mut rules = Rules { sheets: self, images, is_conditional: false };
        let mut input = Parser::new(sheet);
        // What cannot be read is skipped, rule by rule, as browsers do.
        StyleSheetParser::new(&mut input, &mut rules).for_each(drop);
    }

    /// What may stand between `<style>` and `</style>`.
    pub(crate) fn finish(self) -> (String, SheetNotes) {
        // Nothing that was written has one; should it ever, nothing of it is.
        let text = if self.text.contains('<') { String::new() } else { self.text };
        (text, self.notes)
    }
}

struct Rules<'a, 'b> {
    sheets: &'a mut Sheets,
    images: &'b mut dyn Images,
    /// Within a media query: what is fetched there would tell how the reader's screen is.
    is_conditional: bool,
}

/// The beginning of a rule with others in it.
enum At {
    Media(String),
    /// A media query that holds here.
    Holds,
}

impl<'i> QualifiedRuleParser<'i> for Rules<'_, '_> {
    type Prelude = Selector;
    type QualifiedRule = ();
    type Error = ();

    fn parse_prelude(&mut self, input: &mut Parser<'i>) -> Result<Selector, ParseError<()>> {
        selector(input)
    }

    fn parse_block(
        &mut self,
        selector: Selector,
        _: &ParserState,
        input: &mut Parser<'i>,
    ) -> Result<(), ParseError<()>> {
        self.sheets.rules += 1;
        if self.sheets.rules > RULES_MAX {
            self.sheets.notes.is_truncated = true;
            return Err(ParseError::unexpected_token());
        }
        let mut traits = Traits::default();
        let mut text = String::new();
        let is_steady = !self.is_conditional && !selector.is_conditional;
        let images: Option<&mut dyn Images> = if is_steady { Some(&mut *self.images) } else { None };
        body(input, images, &mut traits, &mut text);
        self.sheets.notes.has_colors |= traits.has_colors;
        if !text.is_empty() {
            let out = &mut self.sheets.text;
            out.push_str(&selector.text);
            out.push('{');
            out.push_str(&text);
            out.push_str("}\n");
        }
        Ok(())
    }
}

impl<'i> AtRuleParser<'i> for Rules<'_, '_> {
    type Prelude = At;
    type AtRule = ();
    type Error = ();

    fn parse_prelude(&mut self, name: CowRcStr<'i>, input: &mut Parser<'i>) -> Result<At, ParseError<()>> {
        let name = name.to_ascii_lowercase();
        if matches!(name.as_str(), "import" | "font-face") {
            self.sheets.notes.remote += 1;
        }
        // One level: a query within a query is no mail's.
        if name != "media" || self.is_conditional {
            return Err(ParseError::unexpected_token());
        }
        let query = media(input)?;
        match scheme(&query) {
            Scheme::Any => Ok(At::Media(query)),
            Scheme::Of(theme) if theme == self.sheets.theme => Ok(At::Holds),
            Scheme::Of(_) | Scheme::Mixed => Err(ParseError::unexpected_token()),
        }
    }

    fn parse_block(&mut self, prelude: At, _: &ParserState, input: &mut Parser<'i>) -> Result<(), ParseError<()>> {
        let begin = self.sheets.text.len();
        if let At::Media(query) = &prelude {
            self.sheets.text.push_str("@media ");
            self.sheets.text.push_str(query);
            self.sheets.text.push_str("{\n");
        }
        let inside = self.sheets.text.len();
        self.is_conditional = true;
        StyleSheetParser::new(input, self).for_each(drop);
        self.is_conditional = false;
        let is_empty = self.sheets.text.len() == inside;
        match prelude {
            At::Media(_) if is_empty => self.sheets.text.truncate(begin),
            At::Media(_) => self.sheets.text.push_str("}\n"),
            At::Holds => self.sheets.notes.is_dark |= !is_empty && self.sheets.theme == Theme::Dark,
        }
        Ok(())
    }
}

/// Which colours of the page a query asks for.
enum Scheme {
    Any,
    Of(Theme),
    /// Some, and more beside them.
    Mixed,
}

/// The page's colours are what the reader chose for it, not the system's, which a browser would compare: the question is answered here.
fn scheme(query: &str) -> Scheme {
    if !query.contains("prefers-color-scheme") {
        return Scheme::Any;
    }
    let plain: String = query.chars().filter(|c| !c.is_whitespace()).collect();
    let condition = ["onlyscreenand", "screenand", "alland"].iter().find_map(|medium| plain.strip_prefix(medium));
    match condition.unwrap_or(&plain) {
        "(prefers-color-scheme:dark)" => Scheme::Of(Theme::Dark),
        "(prefers-color-scheme:light)" => Scheme::Of(Theme::Light),
        _ => Scheme::Mixed,
    }
}
