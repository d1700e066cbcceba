//! Declarations: those of a `style` attribute, and those of a rule.

use cssparser::{
    AtRuleParser, CowRcStr, DeclarationParser, ParseError, Parser, ParserState, QualifiedRuleParser,
    RuleBodyItemParser, RuleBodyParser, parse_important,
};

use super::Images;
use super::property;
use super::value::{self, Rules};
use crate::limit::STYLE_BYTES_MAX;

/// What declarations say that decides on more than their element's look.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Traits {
    /// The width that is asked for, pixels.
    pub(crate) width: Option<f32>,
    /// The height, pixels.
    pub(crate) height: Option<f32>,
    /// Whether it is not shown at all.
    pub(crate) is_hidden: bool,
    /// Whether it names a background or a colour of text: it was made for a page of its own colours.
    pub(crate) has_colors: bool,
}

/// The declarations of a `style` attribute that may stand there; empty where none may.
pub(crate) fn inline(style: &str, images: &mut dyn Images) -> (String, Traits) {
    let mut out = String::new();
    let mut traits = Traits::default();
    if style.len() <= STYLE_BYTES_MAX {
        body(&mut Parser::new(style), Some(images), &mut traits, &mut out);
    }
    (out, traits)
}

/// Writes the declarations that `input` is.
pub(super) fn body<'i>(input: &mut Parser<'i>, images: Option<&mut dyn Images>, traits: &mut Traits, out: &mut String) {
    let mut reader = Declarations { images, traits };
    for declaration in RuleBodyParser::new(input, &mut reader) {
        let Ok(Some(declaration)) = declaration else { continue };
        if !out.is_empty() && !out.ends_with('{') {
            out.push(';');
        }
        out.push_str(&declaration);
    }
}

struct Declarations<'a, 'b> {
    images: Option<&'a mut dyn Images>,
    traits: &'b mut Traits,
}

impl<'i> DeclarationParser<'i> for Declarations<'_, '_> {
    type Declaration = Option<String>;
    type Error = ();

    fn parse_value(
        &mut self,
        name: CowRcStr<'i>,
        input: &mut Parser<'i>,
        _: &ParserState,
    ) -> Result<Option<String>, ParseError<()>> {
        let name = name.to_ascii_lowercase();
        if !property::is_allowed(&name) {
            return Ok(None);
        }
        let mut text = String::new();
        let images: Option<&mut dyn Images> = match &mut self.images {
            Some(images) => Some(&mut **images),
            None => None,
        };
        let mut rules = Rules { property: &name, images };
        let is_important = input
            .parse_until_before(cssparser::Delimiter::Bang, |input| value::write(&mut rules, input, &mut text))
            .and_then(|()| {
                let is_important = input.try_parse(parse_important).is_ok();
                input.expect_exhausted()?;
                Ok(is_important)
            })?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        self.traits.note(&name, text);
        let important = if is_important { "!important" } else { "" };
        Ok(Some(format!("{name}:{text}{important}")))
    }
}

impl Traits {
    fn note(&mut self, property: &str, value: &str) {
        match property {
            "width" | "max-width" => self.width = pixels(value).or(self.width),
            "height" | "max-height" => self.height = pixels(value).or(self.height),
            "display" => self.is_hidden |= value == "none",
            "visibility" => self.is_hidden |= value == "hidden",
            "opacity" => self.is_hidden |= value.parse() == Ok(0.0_f32),
            "color" | "background" | "background-color" | "background-image" => {
                let says_nothing = ["inherit", "initial", "unset", "transparent", "none", "currentcolor", "windowtext"];
                self.has_colors |= !says_nothing.contains(&value.to_ascii_lowercase().as_str());
            }
            _ => {}
        }
    }
}

/// A length in pixels, also without its unit, as old mail has it.
fn pixels(value: &str) -> Option<f32> {
    let number = value.strip_suffix("px").unwrap_or(value);
    number.trim().parse().ok().filter(|number: &f32| number.is_finite())
}

impl AtRuleParser<'_> for Declarations<'_, '_> {
    type Prelude = ();
    type AtRule = Option<String>;
    type Error = ();
}

impl QualifiedRuleParser<'_> for Declarations<'_, '_> {
    type Prelude = ();
    type QualifiedRule = Option<String>;
    type Error = ();
}

impl RuleBodyItemParser<'_, Option<String>, ()> for Declarations<'_, '_> {
    fn parse_declarations(&self) -> bool {
        true
    }

    fn parse_qualified(&self) -> bool {
        false
    }
}
