//! Mail as bytes: parsing, cutting, putting together again, composing.
//!
//! * [`ingest`] turns a raw message into what a shard stores: envelope, preview, parts, thread hashes, the recipe of its
//!   pieces and the text that remains, and the blobs that were cut out.
//! * [`raw`] gives back the exact bytes; [`attachment`] one decoded part; [`render`] the bodies and headers to show.
//! * [`compose`] writes a message for somebody who sends one; [`trace`] the header fields that SMTP puts on top; [`dsn`] what became of
//!   a message; [`reports`] what others say of a domain's mail.
//!
//! Invariant: [`ingest`] takes any bytes. It never fails and never panics, and `raw(ingest(x)) == x`.
//! Invariant: no clock, no random numbers, no network and no disk here; blobs come through [`BlobSource`]. Nothing of it is called
//! by apply: what apply knows of a message was read before it was proposed.
//! Invariant: the work is linear in the message's size, whatever it holds (P-13): see [`limit`].
//!
//! Addresses, dates, parameters and encoded words are read from the raw field by parsers of our own, and so is the text of HTML:
//! `docs/adr/080-header-fields-of-our-own.md`. The walk along boundary lines is our own because mail-parser bounds neither its depth
//! nor its work: `docs/adr/040-mime-walk-of-our-own.md`.

pub mod dsn;
pub mod limit;
pub mod reports;
pub mod terms;
pub mod trace;

mod addresses;
mod attachment;
mod charset;
mod compose;
mod compress;
mod cut;
mod date;
mod decode;
mod encoded_word;
mod envelope;
mod field;
mod html;
mod ids;
mod ingest;
mod lexical;
mod parameters;
mod parts;
mod preview;
mod raw;
mod recipe;
mod render;
mod searchable;
mod source;
mod structure;
mod text;
mod wrap;

pub use addresses::{Addresses, HeaderMailbox, Separator, addresses};
pub use attachment::{Attachment, AttachmentError, ByteRange, attachment};
pub use charset::to_text;
pub use compose::{Compose, ComposeAttachment, ComposeError, compose};
pub use date::date_ms;
pub use html::html_to_text;
pub use ingest::{CutBlob, IngestLimits, Ingested, ingest};
pub use parameters::{Parameterised, parameters};
pub use raw::{ByteStream, RawError, raw};
pub use recipe::{Recipe, RecipeError};
pub use render::{Rendered, render};
pub use searchable::{Searchable, SearchableKind, searchable, searchable_texts};
pub use source::{BlobReadError, BlobSource, BlobStream};

#[cfg(test)]
mod tests;
