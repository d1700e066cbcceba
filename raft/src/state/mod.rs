//! The state of all groups of a node, in one RocksDB without a write-ahead log.
//!
//! [`store::StateStore`] is the database, [`machine::StateAdapter`] applies one group's entries to it as openraft wants
//! it.
//!
//! Invariant: a group's applied index and membership are written in the same batch as what was applied.
//! Invariant: an entry is applied only once the local log has it synced, so that the database never holds, on disk,
//! what the log lacks, no matter when it chooses to flush.

pub(crate) mod key;
pub(crate) mod machine;
pub(crate) mod store;
