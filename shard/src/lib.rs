//! The deterministic state machines of a shard: mailbox, queue, directory, placement.
//!
//! Invariant: no clock, no RNG, no network, no hash-map iteration, no float, no MIME parser, no compression below this line.
//!
//! [`apply`] turns one command into writes of a [`store::Txn`] and an outcome; [`query`] reads. Both are functions of the
//! rows and their arguments alone, so every replica that applies the same log prefix holds the same rows (P-12). Time and
//! random bits ride in the command; the time that rows see never goes back ([`postrider_api::pb::ShardRecord::now_ms`]).
//!
//! All keys are in [`key`], with the layout of every table on top. A refused command writes nothing but its dedup row; a
//! row that does not decode, or that contradicts another, is [`Broken`] and stops the replica: nothing is guessed.

mod apply;
mod blobs;
mod broken;
mod dedup;
mod digest;
mod directory;
mod domain;
pub mod format;
pub mod key;
mod mailbox;
mod page;
mod placement;
mod query;
pub mod queue;
mod raise_version;
pub mod row;
mod sending;
pub mod store;
pub mod tail;
mod turn;
mod verify;

pub use apply::{Applied, apply};
pub use broken::Broken;
pub use digest::digest;
pub use mailbox::folder::{ARCHIVE, DRAFTS, INBOX, JUNK, SENT, TRASH};
pub use mailbox::read::deletions::oldest_deletion;
pub use mailbox::session::{Standing, session_standing};
pub use mailbox::threads::{MERGED_BYTES_MAX, THREAD_MEMBERS_MAX};
pub use query::{QueryError, modseq, query};
pub use raise_version::not_enabled;
pub use verify::{DIFFERENCES_MAX, Verified, verify};
