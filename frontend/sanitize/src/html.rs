//! HTML made harmless.

use crate::allow::{self, Fate};
use crate::css::Sheets;
use crate::dom::{Data, Element, Node, Place, ROOT};
use crate::element::Elements;
use crate::escape::{self, head};
use crate::limit::{INPUT_BYTES_MAX, LINK_TEXT_BYTES_MAX, OUTPUT_BYTES_MAX};
use crate::page::{Paper, page};
use crate::parse::parse;
use crate::report::Report;
use crate::{Addresses, Theme, View, wall};

/// The namespace of HTML.
const HTML: &str = "http://www.w3.org/1999/xhtml";

/// Makes what a sender wrote as HTML a document that only shows something.
pub fn html(html: &str, theme: Theme, addresses: &dyn Addresses) -> View {
    let read = head(html, INPUT_BYTES_MAX);
    let parsed = parse(read);
    let mut elements = Elements::new(addresses);
    elements.report.is_truncated = parsed.is_truncated || read.len() < html.len();
    elements.report.scripts = parsed.handlers;
    let tree = Walk { nodes: &parsed.nodes };
    let mut sheets = Sheets::new(theme);
    tree.note(&mut elements, &mut sheets);
    let (sheet, notes) = sheets.finish();
    elements.report.remote_styles += notes.remote;
    elements.report.is_truncated |= notes.is_truncated;
    let written = tree.write(&mut elements);
    let written = if is_read_the_same(&written, parsed.nodes.len()) {
        written
    } else {
        elements.report.is_truncated = true;
        tree.plain()
    };
    let has_colors = elements.has_colors || notes.has_colors;
    let paper = match theme {
        Theme::Dark if has_colors && !notes.is_dark => Paper::White,
        theme => Paper::Page(theme),
    };
    View { document: page(paper, &sheet, &wall::pass(&written)), report: elements.report }
}

/// How much larger a tree may be that is made of what was written of another: tags that imply others add some.
const GROWTH_MAX: usize = 2;
/// The same of a small one, nodes.
const GROWTH_NODES: usize = 64;

/// Whether what was written gives a tree like the one that it was written of. Elements that were left out held others apart: without
/// them formatting may be opened again in every paragraph, which the second parser would do without a bound.
fn is_read_the_same(written: &str, nodes: usize) -> bool {
    let again = parse(&format!("<!DOCTYPE html>{written}"));
    !again.is_truncated && again.nodes.len() <= GROWTH_MAX * nodes + GROWTH_NODES
}

/// A step of the way through the tree.
enum Step {
    Enter(Place),
    Leave(&'static str),
}

struct Walk<'a> {
    nodes: &'a [Node],
}

impl Walk<'_> {
    /// Notes what will not be shown, and reads the style sheets.
    fn note(&self, elements: &mut Elements<'_>, sheets: &mut Sheets) {
        let mut stack = vec![ROOT];
        while let Some(place) = stack.pop() {
            if let Data::Element(element) = &self.nodes[place].data {
                if is_foreign(element) {
                    elements.report.embedded += 1;
                    continue;
                }
                note(element, &mut elements.report);
                if &*element.name.local == "style" && is_for_screens(element) {
                    sheets.add(&self.text(place, INPUT_BYTES_MAX), elements);
                }
            }
            stack.extend(self.nodes[place].children.iter().rev());
        }
    }

    /// The message within `<div …>` and `</div>`, the attributes of its `body` on it.
    fn write(&self, elements: &mut Elements<'_>) -> String {
        let mut content = String::new();
        let mut body = String::new();
        let mut stack = vec![Step::Enter(ROOT)];
        while let Some(step) = stack.pop() {
            let place = match step {
                Step::Enter(place) => place,
                Step::Leave(name) => {
                    content.push_str("</");
                    content.push_str(name);
                    content.push('>');
                    continue;
                }
            };
            if content.len() > OUTPUT_BYTES_MAX {
                elements.report.is_truncated = true;
                continue;
            }
            match &self.nodes[place].data {
                Data::Text(text) => escape::text(&mut content, text),
                Data::Element(element) if is_foreign(element) => {}
                Data::Element(element) => {
                    let name = &*element.name.local;
                    match allow::fate(name) {
                        Fate::Dropped => continue,
                        Fate::Kept => {
                            let text = if name == "a" { self.text(place, LINK_TEXT_BYTES_MAX) } else { String::new() };
                            let known = allow::ELEMENTS.iter().find(|known| **known == name);
                            let Some(name) = known.filter(|known| elements.open(known, element, &text, &mut content))
                            else {
                                continue;
                            };
                            if allow::is_void(name) {
                                continue;
                            }
                            stack.push(Step::Leave(name));
                        }
                        Fate::Unwrapped if name == "body" => body = elements.body(element),
                        Fate::Unwrapped => {}
                    }
                    stack.extend(self.nodes[place].children.iter().rev().map(|child| Step::Enter(*child)));
                }
                Data::Root => stack.extend(self.nodes[place].children.iter().rev().map(|child| Step::Enter(*child))),
                Data::Other => {}
            }
        }
        format!("<div{body}>{content}</div>")
    }

    /// The message as mere text.
    fn plain(&self) -> String {
        let mut content = String::from("<div class=\"text\">");
        let mut stack = vec![ROOT];
        while let Some(place) = stack.pop() {
            match &self.nodes[place].data {
                Data::Text(text) => escape::text(&mut content, text),
                Data::Element(element) if is_foreign(element) || allow::fate(&element.name.local) == Fate::Dropped => {
                    continue;
                }
                _ => {}
            }
            stack.extend(self.nodes[place].children.iter().rev());
        }
        content.push_str("</div>");
        content
    }

    /// The text within a node, as far as it has at most `bytes_max`.
    fn text(&self, place: Place, bytes_max: usize) -> String {
        let mut text = String::new();
        let mut stack = vec![place];
        while let Some(place) = stack.pop() {
            if text.len() > bytes_max {
                break;
            }
            if let Data::Text(piece) = &self.nodes[place].data {
                text.push_str(head(piece, bytes_max));
            }
            stack.extend(self.nodes[place].children.iter().rev());
        }
        text.truncate(head(&text, bytes_max).len());
        text
    }
}

/// SVG and MathML.
fn is_foreign(element: &Element) -> bool {
    &*element.name.ns != HTML
}

fn note(element: &Element, report: &mut Report) {
    let says = |attribute: &str, word: &str| {
        element.attribute(attribute).is_some_and(|value| value.to_ascii_lowercase().contains(word))
    };
    let count = match &*element.name.local {
        "script" => &mut report.scripts,
        "form" | "input" | "button" | "select" | "textarea" => &mut report.forms,
        "iframe" | "frame" | "object" | "embed" | "applet" | "audio" | "video" | "canvas" => &mut report.embedded,
        "link" if says("rel", "stylesheet") => &mut report.remote_styles,
        "meta" if says("http-equiv", "refresh") => &mut report.redirects,
        "base" => &mut report.redirects,
        _ => return,
    };
    *count += 1;
}

/// A style sheet for paper or for speech is none for here.
fn is_for_screens(element: &Element) -> bool {
    element.attribute("media").is_none_or(|media| {
        let media = media.to_ascii_lowercase();
        media.trim().is_empty() || media.contains("screen") || media.contains("all") || media.contains('(')
    })
}
