//! Attacks put together from pieces that parsers stumble over.

use proptest::prelude::*;

use crate::tests::check::{Ours, harmless, wrongs};
use crate::{TextFormat, Theme, text};

/// Pieces of tags, of CSS and of what ends either.
const PIECES: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "<!--",
    "-->",
    "--!>",
    "<![CDATA[",
    "]]>",
    "<?",
    "\"",
    "'",
    "`",
    "=",
    " ",
    "\n",
    "\0",
    "\u{c}",
    "/",
    "&",
    "&lt;",
    "&gt;",
    "&quot;",
    "&#0;",
    "&#x3c;",
    "script",
    "style",
    "svg",
    "math",
    "mtext",
    "mglyph",
    "annotation-xml encoding=text/html",
    "foreignObject",
    "desc",
    "title",
    "table",
    "tr",
    "td",
    "p",
    "a",
    "b",
    "form",
    "select",
    "option",
    "template",
    "noscript",
    "textarea",
    "iframe",
    "img src=x onerror=alert(1)",
    "a href=javascript:alert(1)",
    "body onload=x",
    "base href=//evil",
    "meta http-equiv=refresh",
    "<svg>",
    "</svg>",
    "<math>",
    "</math>",
    "<style>",
    "</style>",
    "<p>",
    "</p>",
    "<table>",
    "</table>",
    "<a>",
    "</a>",
    "<b>",
    "</b>",
    "<title>",
    "</title>",
    "<noscript>",
    "</noscript>",
    "<xmp>",
    "</xmp>",
    "<template>",
    "</template>",
    "<select>",
    "</select>",
    "<img src=x onerror=alert(1)>",
    "<img title=\"",
    "<a title='",
    "<p style=\"",
    "<p style='",
    "url(",
    ")",
    "url(//evil)",
    "@import '//evil';",
    "@media screen{",
    "{",
    "}",
    ";",
    ":",
    "background:",
    "color:red",
    "--x:url(//e)",
    "var(--x)",
    "\\",
    "\\3c ",
    "\\75 rl(",
    "/*",
    "*/",
    "expression(",
    "image-set(",
    "p",
    "#x",
    ".x",
    "[x",
    "]",
    ",",
    "!important",
    "cid:known@here",
    "data:image/png;base64,AAAA",
    "https://a.example/x",
    "x",
    "\u{202e}",
    "\u{feff}",
];

fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_soup_is_harmful(html in soup()) {
        harmless(&html);
    }

    #[test]
    fn no_style_is_harmful(css in soup()) {
        harmless(&format!("<style>{css}</style><p style=\"{}\">x", css.replace('"', "&quot;")));
    }

    #[test]
    fn no_text_is_harmful(source in soup()) {
        for format in [TextFormat::Fixed, TextFormat::Flowed { deletes_space: false }] {
            let view = text(&source, format, Theme::Light);
            prop_assert!(wrongs(&view.document).is_empty(), "{}", view.document);
        }
    }

    #[test]
    fn whatever_is_harmless_stays_so(html in soup()) {
        let once = crate::html(&html, Theme::Light, &Ours).document;
        harmless(&once);
    }

    #[test]
    fn any_characters_are_taken(html in "\\PC*") {
        harmless(&html);
    }
}
