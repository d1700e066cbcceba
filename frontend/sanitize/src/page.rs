//! The document around a message.

use crate::Theme;
use crate::escape;

/// What the message is shown on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paper {
    /// The white that it was written for: it names colours of its own. Turned into dark ones some mail cannot be read, and nobody can tell
    /// which.
    White,
    /// The page's own colours.
    Page(Theme),
}

/// How a message looks that says nothing of it.
const STYLE: &str = "html{margin:0}\
body{margin:8px;font:14px/1.5 system-ui,-apple-system,\"Segoe UI\",Roboto,\"Noto Sans\",\"Noto Sans KR\",sans-serif;overflow-wrap:anywhere}\
img{max-width:100%}\
pre,.text{white-space:pre-wrap}\
.text{font-family:inherit}\
blockquote{margin:0 0 0 4px;padding-left:10px;border-left:2px solid;border-color:rgb(128 128 128 / .5)}\
img[data-image]{outline:1px dashed rgb(128 128 128 / .6);outline-offset:-1px;min-width:16px;min-height:16px}\
a[data-misleading]::after{content:\" (\" attr(data-destination) \")\"}\n";

const WHITE: &str = ":root{color-scheme:only light;background:#fff;color:#000}\n";
const LIGHT: &str = ":root{color-scheme:light;background:Canvas;color:CanvasText}\n";
const DARK: &str = ":root{color-scheme:dark;background:Canvas;color:CanvasText}\n";

/// What every document's head begins with.
const HEAD: &str = "<head><meta charset=\"utf-8\">";

/// The document with `meta` elements of these names in its head.
pub(crate) fn telling<'a>(document: &str, told: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    // Nothing of the message stands before it.
    let Some((before, behind)) = document.split_once(HEAD) else { return document.to_owned() };
    let mut out = String::with_capacity(document.len() + HEAD.len());
    out.push_str(before);
    out.push_str(HEAD);
    for (name, content) in told {
        out.push_str("<meta");
        escape::attribute(&mut out, "name", name);
        escape::attribute(&mut out, "content", content);
        out.push('>');
    }
    out.push_str(behind);
    out
}

/// Puts the parts of a document together: `sheet` may stand in a `style` element, `body` is one.
pub(crate) fn page(paper: Paper, sheet: &str, body: &str) -> String {
    let mut out = String::with_capacity(body.len() + sheet.len() + 2 * STYLE.len());
    out.push_str("<!DOCTYPE html><html");
    let name = match paper {
        Paper::White => "white",
        Paper::Page(Theme::Light) => "light",
        Paper::Page(Theme::Dark) => "dark",
    };
    escape::attribute(&mut out, "data-paper", name);
    out.push('>');
    out.push_str(HEAD);
    out.push_str("<meta name=\"viewport\" content=\"width=device-width\"><style>");
    out.push_str(STYLE);
    out.push_str(match paper {
        Paper::White => WHITE,
        Paper::Page(Theme::Light) => LIGHT,
        Paper::Page(Theme::Dark) => DARK,
    });
    out.push_str("</style>");
    if !sheet.is_empty() {
        out.push_str("<style>\n");
        out.push_str(sheet);
        out.push_str("</style>");
    }
    out.push_str("</head>");
    out.push_str(body);
    out.push_str("</html>");
    out
}
