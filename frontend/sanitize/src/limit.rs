//! What bounds the work, the memory and the answer (P-13).

/// HTML or text of one message that is looked at, bytes. Readers are given no more of a message anyway.
pub const INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nodes of a document; what comes behind is left out. Newsletters have some thousands.
pub const NODES_MAX: usize = 100_000;
/// How deep elements are nested; an element beyond is left out, its text stays. Browsers stop at 512, and so do we for less: what
/// looks for an open element looks through all of them.
pub const DEPTH_MAX: u32 = 256;
/// Attributes of one element that are kept.
pub const ATTRIBUTES_MAX: usize = 64;
/// Blanks, quotes and slashes within one tag: each may begin an attribute, and the tokenizer compares each attribute with those
/// before it. Behind a tag with more the document ends.
pub const TAG_SEPARATORS_MAX: usize = 8 * 1024;
/// Style sheets of one document, bytes in all.
pub const SHEETS_BYTES_MAX: usize = 512 * 1024;
/// Rules of all style sheets.
pub const RULES_MAX: usize = 10_000;
/// A rule's selector or a media query, bytes.
pub const PRELUDE_BYTES_MAX: usize = 4 * 1024;
/// A `style` attribute, bytes; a longer one is left out.
pub const STYLE_BYTES_MAX: usize = 16 * 1024;
/// Functions and parentheses within a value of CSS.
pub const CSS_DEPTH_MAX: u8 = 8;
/// A URL, bytes; a longer one leads nowhere.
pub const URL_BYTES_MAX: usize = 4 * 1024;
/// An image within its own URL, bytes.
pub const DATA_URL_BYTES_MAX: usize = 512 * 1024;
/// Text of an attribute that readers see (`alt`, `title`), bytes; the rest of it is cut.
pub const TEXT_ATTRIBUTE_BYTES_MAX: usize = 2 * 1024;
/// Images that are given an address.
pub const IMAGES_MAX: usize = 2_000;
/// Trackers that are named.
pub const TRACKERS_MAX: usize = 50;
/// The text of a link that is compared with where it leads, bytes.
pub const LINK_TEXT_BYTES_MAX: usize = 256;
/// The whole answer, bytes; what comes behind is left out.
pub const OUTPUT_BYTES_MAX: usize = 12 * 1024 * 1024;
/// Levels of quotation that are shown.
pub const QUOTE_DEPTH_MAX: usize = 16;
