//! A message made harmless to look at: a whole HTML document in which nothing runs and which fetches nothing but what its caller
//! gave an address to.
//!
//! * [`html()`] takes what a sender wrote as HTML, [`text()`] what he wrote as text; both give a [`View`].
//! * [`Addresses`] says where an image of the message or of the network is to be had here; without an answer it is not shown.
//! * [`Report`] says what was taken out.
//!
//! The document is built anew from lists of what may be in it (`allow`, `css`): what no list names is not in it, whatever it is.
//! Two walls stand one behind the other: the writer, which knows nothing but the lists, and ammonia, which parses what was written
//! and judges it again by the same lists (docs/adr/140-a-message-is-built-anew-on-our-side.md). A third one is the caller's: the response's
//! Content-Security-Policy.
//!
//! Invariant: no clock, no random numbers, no network, no disk. The work is bounded whatever comes in ([`limit`], P-13).
//! Invariant: modules import downwards only: `html`, `text`, `audit`; `wall`, `page`; `element`; `link`, `image`; `css`; `parse`, `dom`;
//! `allow`, `escape`, `report`, `limit`.

pub mod limit;

mod allow;
mod audit;
mod css;
mod dom;
mod element;
mod escape;
mod html;
mod image;
mod link;
mod page;
mod parse;
mod report;
mod text;
mod wall;

pub use audit::audit;
pub use html::html;
pub use report::{Report, Tracker, TrackerKind};
pub use text::{TextFormat, text};

/// Where what a message shows is to be had.
pub trait Addresses {
    /// An image of the network, by its absolute URL (`http` or `https`): a path or URL that leads to it without telling anybody. `None`: it
    /// is not shown.
    fn remote(&self, url: &str) -> Option<String>;

    /// A part of the message, by its Content-ID (RFC 2392).
    fn inline(&self, content_id: &str) -> Option<String>;
}

/// The colours of the page around the message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Theme {
    /// Dark on white.
    #[default]
    Light,
    /// Light on dark, where the message can be read so.
    Dark,
}

/// A message to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// A whole document, in UTF-8.
    pub document: String,
    /// What is not in it.
    pub report: Report,
}

impl View {
    /// The document, which says these things of itself: `meta` elements by name and content. No message can say them, since none has
    /// a `meta` element.
    pub fn telling<'a>(&self, told: impl Iterator<Item = (&'a str, &'a str)>) -> String {
        page::telling(&self.document, told)
    }
}

#[cfg(test)]
mod tests;
