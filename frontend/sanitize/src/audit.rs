//! What must be so of every document: for tests and fuzz targets, which share it.
//!
//! It parses a document as a browser does, once as one that runs scripts and once as one that does not, and looks at every node, every
//! attribute and every token of CSS. It shares the lists with the writer, and nothing else.

use cssparser::{ParseError, Parser, Token};
use html5ever::tendril::TendrilSink as _;
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{ParseOpts, parse_document};

use crate::allow::ELEMENTS;
use crate::dom::{Data, Element, Node, Place, ROOT, Tree};

/// A document as a browser would read it.
pub(crate) struct Seen {
    nodes: Vec<Node>,
}

impl Seen {
    /// Parses it, with scripts or without: what `noscript` holds differs.
    pub(crate) fn parse(document: &str, scripting_enabled: bool) -> Self {
        let tree_builder = TreeBuilderOpts { scripting_enabled, ..TreeBuilderOpts::default() };
        let options = ParseOpts { tree_builder, ..ParseOpts::default() };
        Self { nodes: parse_document(Tree::new(), options).one(document) }
    }

    fn places(&self) -> Vec<Place> {
        let (mut found, mut stack) = (Vec::new(), vec![ROOT]);
        while let Some(place) = stack.pop() {
            found.push(place);
            stack.extend(self.nodes[place].children.iter().rev());
        }
        found
    }

    /// Every element in the order of the document.
    pub(crate) fn elements(&self) -> Vec<(Place, &Element)> {
        let of = |place: Place| match &self.nodes[place].data {
            Data::Element(element) => Some((place, element)),
            _ => None,
        };
        self.places().into_iter().filter_map(of).collect()
    }

    /// The text within an element.
    pub(crate) fn text_of(&self, place: Place) -> String {
        let (mut text, mut stack) = (String::new(), vec![place]);
        while let Some(place) = stack.pop() {
            if let Data::Text(piece) = &self.nodes[place].data {
                text.push_str(piece);
            }
            stack.extend(self.nodes[place].children.iter().rev());
        }
        text
    }
}

/// What is wrong with a document that came out of here; nothing should be. `is_ours` knows the addresses that were given out.
pub fn audit(document: &str, is_ours: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for scripting_enabled in [false, true] {
        let seen = Seen::parse(document, scripting_enabled);
        let mut is_body = false;
        for (place, element) in seen.elements() {
            let name = &*element.name.local;
            if &*element.name.ns != "http://www.w3.org/1999/xhtml" {
                found.push(format!("<{name}> is of {}", &*element.name.ns));
            }
            is_body |= name == "body";
            let is_frame = matches!(name, "html" | "head" | "body") || (!is_body && matches!(name, "meta" | "style"));
            if !is_frame && !ELEMENTS.contains(&name) {
                found.push(format!("<{name}>"));
            }
            for attribute in &element.attributes {
                wrong_attribute(name, &attribute.name.local, &attribute.value, is_ours, &mut found);
            }
            if name == "style" {
                wrong_css(&seen.text_of(place), is_ours, &mut found);
            }
        }
    }
    found
}

fn wrong_attribute(element: &str, name: &str, value: &str, is_ours: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    let said = format!("<{element} {name}={value:?}>");
    let is_right = match name {
        "href" => {
            let lower = value.to_ascii_lowercase();
            let is_link =
                ["http://", "https://", "mailto:", "tel:", "#m-"].iter().any(|start| lower.starts_with(start));
            element == "a" && is_link && !value.contains(char::is_control)
        }
        "src" => element == "img" && is_image(value, is_ours),
        "background" => is_image(value, is_ours),
        "style" => {
            wrong_css(value, is_ours, found);
            true
        }
        "id" => value.starts_with("m-"),
        "charset" => element == "meta",
        "name" | "content" => element == "meta" && matches!(value, "viewport" | "width=device-width"),
        "target" => element == "a" && value == "_blank",
        "rel" => value == "noopener noreferrer nofollow",
        "srcset" | "action" | "formaction" | "data" | "poster" | "ping" | "http-equiv" | "srcdoc" | "xlink:href"
        | "is" => false,
        name => !name.starts_with("on"),
    };
    if !is_right {
        found.push(said);
    }
}

/// What is fetched from here, or from nowhere.
fn is_image(url: &str, is_ours: &dyn Fn(&str) -> bool) -> bool {
    is_ours(url) || url.starts_with("data:image/")
}

/// Every token of CSS, at whatever depth.
fn wrong_css(css: &str, is_ours: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    let lower = css.to_ascii_lowercase();
    for word in ["</", "<!--"] {
        if lower.contains(word) {
            found.push(format!("{word} in CSS"));
        }
    }
    tokens(&mut Parser::new(css), is_ours, found);
}

/// Functions that fetch, or that mean what stands elsewhere.
const FUNCTIONS: &[&str] = &[
    "-webkit-cross-fade",
    "-webkit-image-set",
    "cross-fade",
    "element",
    "env",
    "expression",
    "if",
    "image",
    "image-set",
    "paint",
    "src",
    "url-prefix",
    "var",
];

fn tokens<'i>(input: &mut Parser<'i>, is_ours: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    while let Ok(token) = input.next_including_whitespace_and_comments().cloned() {
        match &token {
            Token::UnquotedUrl(url) if !is_image(url, is_ours) => found.push(format!("url({url})")),
            Token::AtKeyword(name) if !name.eq_ignore_ascii_case("media") => found.push(format!("@{name}")),
            Token::BadUrl(_) | Token::BadString(_) | Token::CDO | Token::CDC => found.push(format!("{token:?}")),
            Token::Ident(name) if name.starts_with("--") => found.push(name.to_string()),
            Token::Function(name) if name.eq_ignore_ascii_case("url") => {
                let inner: Result<_, ParseError<()>> =
                    input.parse_nested_block(|input| Ok(input.expect_string_cloned()?));
                if !inner.is_ok_and(|url| is_image(&url, is_ours)) {
                    found.push("url() that is not ours".to_owned());
                }
                continue;
            }
            Token::Function(name) if FUNCTIONS.contains(&name.to_ascii_lowercase().as_str()) => {
                found.push(format!("{name}()"));
            }
            _ => {}
        }
        let is_block = matches!(
            token,
            Token::Function(_) | Token::ParenthesisBlock | Token::SquareBracketBlock | Token::CurlyBracketBlock
        );
        if is_block {
            let inner: Result<(), ParseError<()>> = input.parse_nested_block(|input| {
                tokens(input, is_ours, found);
                Ok(())
            });
            if inner.is_err() {
                found.push("nested too deep".to_owned());
            }
        }
    }
}
