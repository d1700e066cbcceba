//! The second wall: what was written is parsed again, by a library that knows nothing of how it was written, and judged once more.
//!
//! The lists are the same; the walk, the rules of namespaces and the writer are not ours. A mistake of one has to be a mistake of the other
//! to get through.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use ammonia::{Builder, UrlRelative};

use crate::allow::ELEMENTS;
use crate::{allow, css};

/// Attributes that the writer adds to any element.
const WRITTEN: &[&str] = &["id", "style", "background"];
/// Attributes of one element.
const WRITTEN_ON: &[(&str, &[&str])] = &[
    ("a", &["href", "target", "rel", "data-destination", "data-misleading"]),
    ("img", &["src", "data-image"]),
    // In the place of `body`, which is no element of a fragment.
    ("div", &["bgcolor", "text", "link", "vlink", "alink"]),
];

static WALL: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut attributes: HashMap<&str, HashSet<&str>> = HashMap::new();
    for element in ELEMENTS {
        attributes.insert(element, allow::written(element).collect());
    }
    for (element, names) in WRITTEN_ON {
        attributes.entry(element).or_default().extend(*names);
    }
    let mut wall = Builder::empty();
    wall.tags(ELEMENTS.iter().copied().collect())
        .tag_attributes(attributes)
        .generic_attributes(WRITTEN.iter().copied().collect())
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "data"]))
        .url_relative(UrlRelative::PassThrough)
        .link_rel(None)
        .strip_comments(true)
        .attribute_filter(|element, attribute, value| judge(element, attribute, value).then_some(Cow::Borrowed(value)));
    wall
});

/// What the lists do not say of an attribute. The library's own filter for `style` is not used: it drops the closing bracket of a function
/// within a function, which is what a gradient of colours is.
fn judge(_: &str, attribute: &str, value: &str) -> bool {
    let is_ours = |value: &str| value.starts_with('/') && !value.starts_with("//") || value.starts_with("https://");
    match attribute {
        "src" => is_ours(value) || value.starts_with("data:image/"),
        "background" => is_ours(value) || value.starts_with("data:image/"),
        "href" => !value.starts_with("data:") && (value.starts_with('#') || value.contains(':')),
        "style" => css::is_own(value),
        _ => true,
    }
}

/// What passes of a message within `<div …>` and `</div>`, as its `body`.
pub(crate) fn pass(written: &str) -> String {
    let passed = WALL.clean(written).to_string();
    let content = passed.strip_prefix("<div").and_then(|rest| rest.strip_suffix("</div>"));
    match content {
        Some(content) => format!("<body{content}</body>"),
        None => format!("<body>{passed}</body>"),
    }
}
