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
    out.push_str("><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><style>");
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
