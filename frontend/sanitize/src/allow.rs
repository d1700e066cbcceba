//! What may be in a message, each with the reason where it needs one. What stands in no list is not shown.
//!
//! Invariant: nothing here runs, fetches, sends, frames, or changes how what follows is parsed: no element of these has raw or escapable
//! text (HTML Standard, section 13.1.2), none is of SVG or MathML, so what is written is read the same the second time.

use html5ever::LocalName;

/// What becomes of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is shown.
    Kept,
    /// What is in it is shown.
    Unwrapped,
    /// Nothing of it is shown.
    Dropped,
}

/// Elements that are shown: text, lists, tables, images, and what mail of the nineties looks like.
pub(crate) const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "address",
    "article",
    "aside",
    "b",
    "bdi",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "details",
    "dfn",
    "dir",
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "main",
    "mark",
    "menu",
    "nav",
    "ol",
    "p",
    "pre",
    "q",
    "rp",
    "rt",
    "ruby",
    "s",
    "samp",
    "section",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "summary",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "time",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "wbr",
];

/// Elements of which nothing is shown: what is in them is no text for readers, or is text only where they work.
const DROPPED: &[&str] = &[
    "applet", "audio", "canvas", "datalist", "embed", "frame", "frameset", "head", "iframe", "link", "math", "meta",
    "noembed", "noframes", "object", "option", "param", "script", "select", "source", "style", "svg", "template",
    "textarea", "title", "track", "video", "base", "input",
];

/// Elements without content, and those whose content is no markup: they open nothing.
const LEAVES: &[&str] = &[
    "area", "base", "br", "col", "embed", "hr", "iframe", "img", "input", "link", "meta", "noembed", "noframes",
    "param", "script", "source", "style", "textarea", "title", "track", "wbr", "xmp",
];

/// What becomes of an element of HTML.
pub(crate) fn fate(name: &str) -> Fate {
    if ELEMENTS.contains(&name) {
        Fate::Kept
    } else if DROPPED.contains(&name) {
        Fate::Dropped
    } else {
        Fate::Unwrapped
    }
}

/// Whether an element has no end tag.
pub(crate) fn is_void(name: &str) -> bool {
    matches!(name, "br" | "col" | "hr" | "img" | "wbr")
}

/// Whether an element opens nothing that others can be nested in.
pub(crate) fn is_leaf(name: &LocalName) -> bool {
    LEAVES.contains(&&**name)
}

/// How an attribute's value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value {
    /// Words for readers, shortened.
    Text,
    /// Names of classes, for the message's own style sheets.
    Classes,
    /// A number or a percentage, as old HTML has lengths.
    Length,
    /// A whole number of this at most.
    Count(u32),
    /// A colour's name or `#` and digits.
    Color,
    /// One word: letters, digits and hyphens.
    Word,
    /// It is there or not.
    Flag,
    /// A list of fonts' names.
    Fonts,
}

/// Columns that a cell may span: browsers allow as many (HTML Standard, section 4.9.11), and lay each of them out.
const COLUMNS_MAX: u32 = 1000;
/// Rows that a cell may span.
const ROWS_MAX: u32 = 65_534;

/// Attributes, each with how its value is read.
type Attributes = &'static [(&'static str, Value)];

/// Attributes of every element. `style`, `id`, `name`, `href`, `src` and `background` are read where they are written.
const EVERYWHERE: Attributes = &[
    ("class", Value::Classes),
    ("title", Value::Text),
    ("dir", Value::Word),
    ("lang", Value::Word),
    ("align", Value::Word),
];

/// Attributes of some elements.
const SOME: &[(&[&str], Attributes)] = &[
    (
        &["img"],
        &[
            ("alt", Value::Text),
            ("width", Value::Length),
            ("height", Value::Length),
            ("border", Value::Length),
            ("hspace", Value::Length),
            ("vspace", Value::Length),
        ],
    ),
    (
        &["table"],
        &[
            ("width", Value::Length),
            ("height", Value::Length),
            ("border", Value::Length),
            ("cellpadding", Value::Length),
            ("cellspacing", Value::Length),
            ("bgcolor", Value::Color),
            ("bordercolor", Value::Color),
            ("rules", Value::Word),
            ("frame", Value::Word),
            ("summary", Value::Text),
        ],
    ),
    (
        &["td", "th"],
        &[
            ("width", Value::Length),
            ("height", Value::Length),
            ("bgcolor", Value::Color),
            ("bordercolor", Value::Color),
            ("valign", Value::Word),
            ("nowrap", Value::Flag),
            ("colspan", Value::Count(COLUMNS_MAX)),
            ("rowspan", Value::Count(ROWS_MAX)),
            ("scope", Value::Word),
            ("abbr", Value::Text),
        ],
    ),
    (
        &["tr", "thead", "tbody", "tfoot"],
        &[("bgcolor", Value::Color), ("valign", Value::Word), ("height", Value::Length)],
    ),
    (&["col", "colgroup"], &[("span", Value::Count(COLUMNS_MAX)), ("width", Value::Length), ("valign", Value::Word)]),
    (&["ol"], &[("start", Value::Count(i32::MAX as u32)), ("reversed", Value::Flag), ("type", Value::Word)]),
    (&["ul", "dir", "menu"], &[("type", Value::Word), ("compact", Value::Flag)]),
    (&["li"], &[("value", Value::Count(i32::MAX as u32)), ("type", Value::Word)]),
    (&["font"], &[("color", Value::Color), ("face", Value::Fonts), ("size", Value::Length)]),
    (&["hr"], &[("size", Value::Length), ("width", Value::Length), ("color", Value::Color), ("noshade", Value::Flag)]),
    (&["br"], &[("clear", Value::Word)]),
    (&["details"], &[("open", Value::Flag)]),
    (&["time", "del", "ins"], &[("datetime", Value::Text)]),
    (
        &["body"],
        &[
            ("bgcolor", Value::Color),
            ("text", Value::Color),
            ("link", Value::Color),
            ("vlink", Value::Color),
            ("alink", Value::Color),
        ],
    ),
];

/// Attributes that are read, and written under rules of their own.
pub(crate) const READ: &[&str] = &["style", "id", "name", "href", "src", "background"];

/// Attributes that decide how a document is parsed, or what is said of it. They are never written.
const NOTED: &[&str] = &["type", "encoding", "http-equiv", "content", "color", "face", "size", "rel", "media"];

/// How the attribute of an element is read.
pub(crate) fn value(element: &str, attribute: &str) -> Option<Value> {
    let of = |list: Attributes| list.iter().find(|(name, _)| *name == attribute).map(|(_, value)| *value);
    let some = SOME.iter().filter(|(elements, _)| elements.contains(&element));
    of(EVERYWHERE).or_else(|| some.flat_map(|(_, list)| of(list)).next())
}

/// Whether an attribute of this name is looked at, on whatever element.
pub(crate) fn is_read(attribute: &str) -> bool {
    let is_named = |list: Attributes| list.iter().any(|(name, _)| *name == attribute);
    READ.contains(&attribute)
        || NOTED.contains(&attribute)
        || is_named(EVERYWHERE)
        || SOME.iter().any(|(_, list)| is_named(list))
}

/// Every attribute that may be written on an element of [`ELEMENTS`], beside those that the writer adds.
pub(crate) fn written(element: &str) -> impl Iterator<Item = &'static str> {
    let some = SOME.iter().filter(move |(elements, _)| elements.contains(&element));
    EVERYWHERE.iter().chain(some.flat_map(|(_, list)| *list)).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_in_no_other_list() {
        for element in ELEMENTS {
            assert!(!DROPPED.contains(element), "{element}");
            assert_eq!(fate(element), Fate::Kept);
        }
        for element in ["script", "style", "svg", "math", "iframe", "object", "template", "title", "textarea", "base"] {
            assert_eq!(fate(element), Fate::Dropped, "{element}");
        }
        assert_eq!(fate("made-up"), Fate::Unwrapped);
    }

    #[test]
    fn nothing_kept_changes_how_the_rest_is_parsed() {
        // HTML Standard, section 13.1.2: raw text, escapable raw text, template, foreign elements; and what 13.2.6 treats apart.
        for element in [
            "script",
            "style",
            "textarea",
            "title",
            "template",
            "svg",
            "math",
            "xmp",
            "iframe",
            "noembed",
            "noframes",
            "noscript",
            "plaintext",
            "listing",
            "select",
            "option",
            "button",
            "form",
            "frameset",
            "body",
            "head",
            "html",
            "image",
            "input",
            "applet",
            "marquee",
            "object",
            "nobr",
        ] {
            assert!(!ELEMENTS.contains(&element), "{element}");
        }
    }

    #[test]
    fn no_attribute_of_a_list_runs_or_fetches() {
        for element in ELEMENTS.iter().chain(&["body"]) {
            for attribute in written(element) {
                assert!(!attribute.starts_with("on"), "{attribute}");
                let fetches =
                    ["src", "href", "background", "srcset", "style", "action", "formaction", "data", "poster", "ping"];
                assert!(!fetches.contains(&attribute), "{attribute}");
            }
        }
    }
}
