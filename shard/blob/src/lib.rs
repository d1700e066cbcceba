//! Content-addressed attachments (P-1, P-11): what is too large for a command lies here, and the log only refers to it.
//!
//! Invariant: the key of a blob is the blake3-256 of its decoded content, so a blob never changes. A second put of the
//! same content finds the first, and whoever reads a whole blob can tell whether the bytes are the right ones.
//!
//! Invariant: a blob is referenced only after [`Replicated::put`] answered, that is after [`COPIES_MIN`] regions have it
//! on disk (`docs/adr/011-two-regions-before-reference.md`).
//!
//! Invariant: the S3 SDK is named in [`S3Store`] and nowhere else in the workspace; s3s only in [`server`].
//!
//! Deliberately absent: references, pins and garbage collection. They are state of the shards; this crate only offers
//! `list` and `delete` to them.

mod described;
mod error;
mod faulty;
mod memory;
mod reader;
mod replicated;
mod s3;
pub mod server;
mod store;
mod zone;

pub use described::describe_metrics;
pub use error::{BlobError, Outage};
pub use faulty::{Fault, Faulty, Op, Rule};
pub use memory::MemoryStore;
pub use postrider_api::id::BlobHash;
pub use reader::BlobReader;
pub use replicated::{Durable, Repaired, Replicated, Tuning};
pub use s3::{S3Options, S3Store, S3Timeouts};
pub use store::{BlobStore, Listed, Put};
pub use zone::Zone;

/// A blob, bytes. Above what a part of the largest message ([`postrider_api::limit::MESSAGE_BYTES_MAX`]) can be.
pub const BLOB_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Regions that hold a blob durably before anything may refer to it (P-1).
pub const COPIES_MIN: usize = 2;
