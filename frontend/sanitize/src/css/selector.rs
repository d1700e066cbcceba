//! Selectors and media queries, token by token.

use cssparser::{ParseError, Parser, ToCss as _, Token};

use super::value::{identifier, string};
use crate::allow;
use crate::limit::{CSS_DEPTH_MAX, PRELUDE_BYTES_MAX};

/// Ids get this in front, in elements as in selectors: nothing that a page around looks for by its id is found in a message.
pub(crate) const ID_PREFIX: &str = "m-";

/// Pseudo-classes without arguments.
const PSEUDO: &[&str] = &[
    "active",
    "empty",
    "first-child",
    "first-of-type",
    "hover",
    "last-child",
    "last-of-type",
    "link",
    "only-child",
    "root",
    "visited",
];
/// Pseudo-classes and pseudo-elements with arguments of this grammar.
const FUNCTIONS: &[&str] = &["is", "not", "nth-child", "nth-last-child", "nth-of-type", "where"];
/// Pseudo-elements: nothing that makes content.
const PSEUDO_ELEMENTS: &[&str] = &["first-letter", "first-line", "marker"];

/// A selector list.
pub(super) struct Selector {
    /// As it is written.
    pub(super) text: String,
    /// Whether it may hold at one time and not at another: an image behind it would tell when.
    pub(super) is_conditional: bool,
}

/// Reads the selector list that `input` is.
///
/// # Errors
/// When anything in it may not be there.
pub(super) fn selector<'i>(input: &mut Parser<'i>) -> Result<Selector, ParseError<()>> {
    let mut selector = Selector { text: String::new(), is_conditional: false };
    tokens(input, &mut selector, 0)?;
    selector.text.truncate(selector.text.trim_end().len());
    if selector.text.is_empty() { Err(ParseError::unexpected_token()) } else { Ok(selector) }
}

fn tokens<'i>(input: &mut Parser<'i>, selector: &mut Selector, depth: u8) -> Result<(), ParseError<()>> {
    let refused = ParseError::unexpected_token;
    if depth > CSS_DEPTH_MAX {
        return Err(refused());
    }
    while let Ok(token) = input.next_including_whitespace_and_comments().cloned() {
        let out = &mut selector.text;
        if out.len() > PRELUDE_BYTES_MAX {
            return Err(refused());
        }
        match &token {
            Token::WhiteSpace(_) | Token::Comment(_) => space(out),
            Token::Ident(name) if !name.starts_with("--") => identifier(name, out),
            Token::IDHash(id) => {
                out.push('#');
                identifier(&format!("{ID_PREFIX}{id}"), out);
            }
            Token::Delim(c @ ('.' | '>' | '+' | '~' | '*')) => out.push(*c),
            Token::Comma => out.push(','),
            // Arguments of `:nth-child()`.
            Token::Number { int_value: Some(_), .. } if depth > 0 => number(&token, out)?,
            Token::Dimension { int_value: Some(_), unit, .. } if depth > 0 && unit.eq_ignore_ascii_case("n") => {
                number(&token, out)?;
            }
            Token::Colon => pseudo(input, selector, depth)?,
            Token::SquareBracketBlock => {
                out.push('[');
                input.parse_nested_block(|input| attribute(input, out))?;
                out.push(']');
            }
            _ => return Err(refused()),
        }
    }
    Ok(())
}

fn number(token: &Token<'_>, out: &mut String) -> Result<(), ParseError<()>> {
    token.to_css(out).map_err(|_| ParseError::unexpected_token())
}

fn pseudo<'i>(input: &mut Parser<'i>, selector: &mut Selector, depth: u8) -> Result<(), ParseError<()>> {
    selector.is_conditional = true;
    let token = input.next_including_whitespace_and_comments()?.clone();
    match &token {
        Token::Ident(name) if PSEUDO.contains(&name.to_ascii_lowercase().as_str()) => {
            selector.text.push(':');
            identifier(&name.to_ascii_lowercase(), &mut selector.text);
        }
        Token::Colon => {
            let name = input.expect_ident()?.to_ascii_lowercase();
            if !PSEUDO_ELEMENTS.contains(&name.as_str()) {
                return Err(ParseError::unexpected_token());
            }
            selector.text.push_str("::");
            identifier(&name, &mut selector.text);
        }
        Token::Function(name) if FUNCTIONS.contains(&name.to_ascii_lowercase().as_str()) => {
            selector.text.push(':');
            identifier(&name.to_ascii_lowercase(), &mut selector.text);
            selector.text.push('(');
            input.parse_nested_block(|input| tokens(input, selector, depth + 1))?;
            selector.text.push(')');
        }
        _ => return Err(ParseError::unexpected_token()),
    }
    Ok(())
}

/// `[name]` and `[name=value]` with its relatives, for attributes that are written.
fn attribute<'i>(input: &mut Parser<'i>, out: &mut String) -> Result<(), ParseError<()>> {
    let name = input.expect_ident()?.to_ascii_lowercase();
    if !allow::is_read(&name) {
        return Err(ParseError::unexpected_token());
    }
    identifier(&name, out);
    if input.is_exhausted() {
        return Ok(());
    }
    let operator = match input.next()? {
        Token::Delim('=') => "=",
        Token::IncludeMatch => "~=",
        Token::DashMatch => "|=",
        Token::PrefixMatch => "^=",
        Token::SuffixMatch => "$=",
        Token::SubstringMatch => "*=",
        _ => return Err(ParseError::unexpected_token()),
    };
    out.push_str(operator);
    let value = input.expect_ident_or_string()?.clone();
    string(&value, out);
    if let Ok(flag) = input.try_parse(Parser::expect_ident_cloned) {
        if !flag.eq_ignore_ascii_case("i") {
            return Err(ParseError::unexpected_token());
        }
        out.push_str(" i");
    }
    input.expect_exhausted()?;
    Ok(())
}

/// Reads a media query list (Media Queries Level 4).
///
/// # Errors
/// When anything in it may not be there.
pub(super) fn media<'i>(input: &mut Parser<'i>) -> Result<String, ParseError<()>> {
    let mut out = String::new();
    query(input, &mut out, 0)?;
    out.truncate(out.trim_end().len());
    if out.is_empty() { Err(ParseError::unexpected_token()) } else { Ok(out) }
}

fn query<'i>(input: &mut Parser<'i>, out: &mut String, depth: u8) -> Result<(), ParseError<()>> {
    while let Ok(token) = input.next_including_whitespace_and_comments().cloned() {
        if out.len() > PRELUDE_BYTES_MAX || depth > CSS_DEPTH_MAX {
            return Err(ParseError::unexpected_token());
        }
        match &token {
            Token::WhiteSpace(_) | Token::Comment(_) => space(out),
            Token::Ident(name) if !name.starts_with("--") => identifier(&name.to_ascii_lowercase(), out),
            Token::Comma => out.push(','),
            Token::Colon if depth > 0 => out.push(':'),
            Token::Delim('/') if depth > 0 => out.push('/'),
            Token::Number { value, .. } if depth > 0 && value.is_finite() => number(&token, out)?,
            Token::Dimension { value, unit, .. }
                if depth > 0 && value.is_finite() && unit.bytes().all(|byte| byte.is_ascii_alphabetic()) =>
            {
                number(&token, out)?;
            }
            Token::ParenthesisBlock => {
                out.push('(');
                input.parse_nested_block(|input| query(input, out, depth + 1))?;
                out.push(')');
            }
            _ => return Err(ParseError::unexpected_token()),
        }
    }
    Ok(())
}

fn space(out: &mut String) {
    if !out.is_empty() && !out.ends_with([' ', '(']) {
        out.push(' ');
    }
}
