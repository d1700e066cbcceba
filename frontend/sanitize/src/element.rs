//! Elements as they are written: each attribute by the rule of its list.

use crate::Addresses;
use crate::allow::{self, Value};
use crate::css::{self, ID_PREFIX, Images, Traits};
use crate::dom::Element;
use crate::escape::{self, head};
use crate::image::{Source, source};
use crate::limit::{IMAGES_MAX, TEXT_ATTRIBUTE_BYTES_MAX};
use crate::link::{Destination, destination, misleads};
use crate::report::{Report, TrackerKind};

/// An image this wide and high or less is there to be fetched, not to be seen.
const PIXEL_MAX: f32 = 2.0;
/// The longest id or word, bytes.
const WORD_BYTES_MAX: usize = 256;

/// Writes elements, and notes what is not written.
pub(crate) struct Elements<'a> {
    addresses: &'a dyn Addresses,
    pub(crate) report: Report,
    /// Whether an element names colours: the message was made for a page of its own.
    pub(crate) has_colors: bool,
    images: usize,
}

impl Images for Elements<'_> {
    fn background(&mut self, url: &str) -> Option<String> {
        self.address(url, false)
    }
}

impl<'a> Elements<'a> {
    pub(crate) fn new(addresses: &'a dyn Addresses) -> Self {
        Self { addresses, report: Report::default(), has_colors: false, images: 0 }
    }

    /// Where an image is to be had.
    fn address(&mut self, src: &str, is_unseen: bool) -> Option<String> {
        let address = match source(src) {
            Source::Remote(image) => {
                if is_unseen || image.counts_readers {
                    let kind = if is_unseen { TrackerKind::Pixel } else { TrackerKind::Image };
                    self.report.track(&image.host, kind);
                }
                let address = match is_unseen || self.images >= IMAGES_MAX {
                    true => None,
                    false => self.addresses.remote(&image.url),
                };
                let count =
                    if address.is_some() { &mut self.report.images_shown } else { &mut self.report.images_blocked };
                *count += 1;
                self.report.images_unseen += u32::from(is_unseen);
                address
            }
            Source::Inline(id) => {
                let address = self.addresses.inline(&id).filter(|_| self.images < IMAGES_MAX);
                let count =
                    if address.is_some() { &mut self.report.images_inline } else { &mut self.report.images_unusable };
                *count += 1;
                address
            }
            Source::Data(url) => {
                self.report.images_inline += 1;
                Some(url)
            }
            Source::Unusable => {
                self.report.images_unusable += 1;
                None
            }
        };
        self.images += usize::from(address.is_some());
        address
    }

    /// Writes the start tag of an element of [`allow::ELEMENTS`], or nothing: then nothing of it is shown. `text` is what a link's
    /// reader sees.
    pub(crate) fn open(&mut self, name: &'static str, element: &Element, text: &str, out: &mut String) -> bool {
        let mut attributes = String::new();
        let traits = self.common(name, element, &mut attributes);
        if name == "img" && !self.img(element, traits, &mut attributes) {
            return false;
        }
        if name == "a" {
            self.link(element, text, &mut attributes);
        }
        out.push('<');
        out.push_str(name);
        out.push_str(&attributes);
        out.push('>');
        true
    }

    /// The attributes of the message's `body`.
    pub(crate) fn body(&mut self, element: &Element) -> String {
        let mut attributes = String::new();
        self.common("body", element, &mut attributes);
        attributes
    }

    fn common(&mut self, name: &str, element: &Element, out: &mut String) -> Traits {
        let mut traits = Traits::default();
        if let Some(style) = element.attribute("style") {
            let (style, found) = css::inline(style, self);
            traits = found;
            self.has_colors |= found.has_colors;
            if !style.is_empty() {
                escape::attribute(out, "style", &style);
            }
        }
        let id = element.attribute("id").or_else(|| element.attribute("name").filter(|_| name == "a"));
        if let Some(id) = id.filter(|id| is_id(id)) {
            escape::attribute(out, "id", &format!("{ID_PREFIX}{id}"));
        }
        if matches!(name, "body" | "table" | "td" | "th" | "tr")
            && let Some(url) = element.attribute("background")
            && let Some(address) = self.address(url, false)
        {
            self.has_colors = true;
            escape::attribute(out, "background", &address);
        }
        for attribute in &element.attributes {
            let attribute_name = &*attribute.name.local;
            let Some(kind) = allow::value(name, attribute_name) else { continue };
            if let Some(value) = written(kind, &attribute.value) {
                self.has_colors |= kind == Value::Color;
                escape::attribute(out, attribute_name, &value);
            }
        }
        traits
    }

    /// Whether anything of the image is shown.
    fn img(&mut self, element: &Element, traits: Traits, out: &mut String) -> bool {
        let length = |name| element.attribute(name).and_then(|value| number(value)?.parse::<f32>().ok());
        let is_small = |side: Option<f32>| side.is_some_and(|side| side <= PIXEL_MAX);
        let width = traits.width.or_else(|| length("width"));
        let height = traits.height.or_else(|| length("height"));
        let is_unseen = traits.is_hidden || (is_small(width) && is_small(height));
        let Some(src) = element.attribute("src") else { return false };
        let blocked = self.report.images_blocked;
        match self.address(src, is_unseen) {
            Some(address) => escape::attribute(out, "src", &address),
            None if is_unseen => return false,
            None => {
                let why = if self.report.images_blocked > blocked { "blocked" } else { "unusable" };
                escape::attribute(out, "data-image", why);
            }
        }
        true
    }

    fn link(&mut self, element: &Element, text: &str, out: &mut String) {
        let Some(href) = element.attribute("href") else { return };
        match destination(href) {
            Some(Destination::Web { url, host, names_reader }) => {
                escape::attribute(out, "href", &url);
                away(&host, out);
                if names_reader {
                    self.report.track(&host, TrackerKind::Link);
                }
                if misleads(text, &host) {
                    self.report.misleading_links += 1;
                    escape::attribute(out, "data-misleading", "true");
                }
            }
            Some(Destination::Person { url, shown }) => {
                escape::attribute(out, "href", &url);
                away(&shown, out);
            }
            Some(Destination::Within(id)) if is_id(&id) => {
                escape::attribute(out, "href", &format!("#{ID_PREFIX}{id}"));
            }
            Some(Destination::Within(_)) => {}
            None => self.report.unsafe_links += 1,
        }
    }
}

/// Whose page it is shown in learns of nobody who follows it, and cannot be reached from it.
fn away(shown: &str, out: &mut String) {
    escape::attribute(out, "target", "_blank");
    escape::attribute(out, "rel", "noopener noreferrer nofollow");
    escape::attribute(out, "data-destination", shown);
}

/// HTML Standard, section 3.2.6: an id has no blanks.
fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= WORD_BYTES_MAX && !id.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// An attribute's value as it is written; `None` where it is none of its kind.
fn written(kind: Value, value: &str) -> Option<String> {
    let trimmed = value.trim();
    match kind {
        Value::Text | Value::Classes => Some(head(value, TEXT_ATTRIBUTE_BYTES_MAX).to_owned()),
        Value::Length => number(trimmed).map(|number| {
            let unit = if trimmed[number.len()..].starts_with('%') { "%" } else { "" };
            format!("{number}{unit}")
        }),
        Value::Count(max) => {
            let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
            // A number too large for its type is as large as may be.
            (digits > 0).then(|| trimmed[..digits].parse::<u32>().unwrap_or(max).min(max).to_string())
        }
        Value::Color => {
            let is_one = |c: char| c.is_ascii_alphanumeric() || "#(),.% ".contains(c);
            (!trimmed.is_empty() && trimmed.len() <= WORD_BYTES_MAX && trimmed.chars().all(is_one))
                .then(|| trimmed.to_owned())
        }
        Value::Word => {
            let is_one = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            (!trimmed.is_empty() && trimmed.len() <= WORD_BYTES_MAX && trimmed.bytes().all(is_one))
                .then(|| trimmed.to_owned())
        }
        Value::Flag => Some(String::new()),
        Value::Fonts => {
            let is_one = |c: char| c.is_alphanumeric() || " ,-_'".contains(c);
            (trimmed.len() <= WORD_BYTES_MAX && trimmed.chars().all(is_one)).then(|| trimmed.to_owned())
        }
    }
}

/// Digits of a length, with a sign and a point.
const NUMBER_BYTES_MAX: usize = 9;

/// The number that a length begins with.
fn number(text: &str) -> Option<&str> {
    let text = text.trim();
    let sign = usize::from(text.starts_with(['+', '-']));
    let digits = text.bytes().skip(sign).take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let number = &text[..sign + digits];
    (number.len() <= NUMBER_BYTES_MAX && number.parse::<f32>().is_ok()).then_some(number)
}
