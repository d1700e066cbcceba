//! Values of properties, token by token.

use std::fmt::Write as _;

use cssparser::{ParseError, Parser, ToCss as _, Token, serialize_identifier};

use super::Images;
use super::property;
use crate::limit::CSS_DEPTH_MAX;

/// Functions that give a colour, a length or a gradient, of nothing but their arguments.
const FUNCTIONS: &[&str] = &[
    "calc",
    "clamp",
    "conic-gradient",
    "hsl",
    "hsla",
    "hwb",
    "lab",
    "lch",
    "linear-gradient",
    "max",
    "min",
    "oklab",
    "oklch",
    "radial-gradient",
    "repeating-linear-gradient",
    "repeating-radial-gradient",
    "rgb",
    "rgba",
];

/// What a value may do.
pub(super) struct Rules<'a> {
    /// Of the property, in lower case.
    pub(super) property: &'a str,
    /// Where its images are to be had; `None`: it has none.
    pub(super) images: Option<&'a mut dyn Images>,
}

/// Writes the value that `input` is, up to its end.
///
/// # Errors
/// When anything in it may not be there: a declaration is taken whole or not at all, as browsers do.
pub(super) fn write<'i>(rules: &mut Rules<'_>, input: &mut Parser<'i>, out: &mut String) -> Result<(), ParseError<()>> {
    tokens(rules, input, out, 0)
}

fn tokens<'i>(
    rules: &mut Rules<'_>,
    input: &mut Parser<'i>,
    out: &mut String,
    depth: u8,
) -> Result<(), ParseError<()>> {
    if depth > CSS_DEPTH_MAX {
        return Err(ParseError::unexpected_token());
    }
    while let Ok(token) = input.next_including_whitespace_and_comments().cloned() {
        match &token {
            // A comment parts tokens that would be one without it.
            Token::WhiteSpace(_) | Token::Comment(_) => space(out),
            Token::Ident(name) if !name.starts_with("--") => identifier(name, out),
            Token::QuotedString(text) if property::takes_string(rules.property) => string(text, out),
            Token::UnquotedUrl(url) => image(rules, url, out)?,
            Token::Function(name) => {
                let name = name.to_ascii_lowercase();
                if name == "url" {
                    let url = input.parse_nested_block(|input| {
                        let url = input.expect_string_cloned()?;
                        input.expect_exhausted()?;
                        Ok::<_, ParseError<()>>(url)
                    })?;
                    image(rules, &url, out)?;
                } else if FUNCTIONS.contains(&name.as_str()) {
                    out.push_str(&name);
                    out.push('(');
                    input.parse_nested_block(|input| tokens(rules, input, out, depth + 1))?;
                    out.push(')');
                } else {
                    return Err(ParseError::unexpected_token());
                }
            }
            Token::ParenthesisBlock if depth > 0 => {
                out.push('(');
                input.parse_nested_block(|input| tokens(rules, input, out, depth + 1))?;
                out.push(')');
            }
            Token::Hash(digits) | Token::IDHash(digits) if is_color(digits) => {
                out.push('#');
                out.push_str(digits);
            }
            Token::Number { value, .. } | Token::Percentage { unit_value: value, .. } if value.is_finite() => {
                plain(&token, out)?;
            }
            Token::Dimension { value, unit, .. } if value.is_finite() && is_unit(unit) => plain(&token, out)?,
            Token::Comma => out.push(','),
            Token::Delim(c @ ('/' | '+' | '-' | '*')) => out.push(*c),
            _ => return Err(ParseError::unexpected_token()),
        }
    }
    Ok(())
}

/// Ours in place of the sender's; `none` where there is none, so that the colour beside it stays.
fn image(rules: &mut Rules<'_>, url: &str, out: &mut String) -> Result<(), ParseError<()>> {
    let images = match &mut rules.images {
        Some(images) if property::takes_image(rules.property) => images,
        _ => return Err(ParseError::unexpected_token()),
    };
    match images.background(url) {
        Some(address) => {
            out.push_str("url(");
            string(&address, out);
            out.push(')');
        }
        None => out.push_str("none"),
    }
    Ok(())
}

fn space(out: &mut String) {
    if !out.is_empty() && !out.ends_with([' ', '(']) {
        out.push(' ');
    }
}

fn plain(token: &Token<'_>, out: &mut String) -> Result<(), ParseError<()>> {
    token.to_css(out).map_err(|_| ParseError::unexpected_token())
}

fn is_color(digits: &str) -> bool {
    matches!(digits.len(), 3 | 4 | 6 | 8) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A unit is letters: nothing of it has to be escaped.
fn is_unit(unit: &str) -> bool {
    !unit.is_empty() && unit.len() <= 8 && unit.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// Writes a name.
pub(super) fn identifier(name: &str, out: &mut String) {
    let written = serialize_identifier(&escapable(name), out);
    debug_assert!(written.is_ok(), "a string takes what is written to it");
}

/// What no escape brings back.
fn escapable(text: &str) -> String {
    text.chars().filter(|c| *c != '\0').collect()
}

/// Writes a string in quotation marks. Whatever ends a string, a declaration, a style sheet, a comment or an attribute in any reader
/// stands as the number of its character (CSS Syntax section 4.3.7).
pub(super) fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        if c.is_alphanumeric() || " -_.,:/?#=%~+".contains(c) {
            out.push(c);
        } else if c != '\0' {
            let written = write!(out, "\\{:x} ", u32::from(c));
            debug_assert!(written.is_ok(), "a string takes what is written to it");
        }
    }
    out.push('"');
}
