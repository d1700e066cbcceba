//! One log for all groups of a node.
//!
//! [`engine::LogEngine`] says what a log must do, [`segment::SegmentLog`] does it in files of its own, [`writer`] gathers
//! what all groups want written and syncs once for all of it, and [`store::LogStore`] is one group's view, as openraft
//! wants it.
//!
//! Invariant: everything that changes the log goes through the one writer, in the order in which it was asked for.
//! Invariant: an entry is reported as synced after the fsync that covers it, never before.

pub(crate) mod disk;
pub(crate) mod engine;
pub mod row;
pub mod segment;
pub(crate) mod store;
pub(crate) mod tail;
pub(crate) mod writer;
