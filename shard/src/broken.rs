//! What stops a replica.

use crate::key::{Key, KeyError};
use crate::store::StoreError;

/// A corrupt row, a broken invariant or a failed read. The replica stops: going on would spread it.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bytes of a key are no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A row does not decode, or contradicts another.
    #[error("corrupt row in {table}, key {key}: {reason}")]
    Corrupt {
        /// The table's name as in [`crate::key`].
        table: &'static str,
        /// The key without the group's prefix, hexadecimal.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A row that another one refers to is not there.
    #[error("missing row in {table}, key {key}")]
    Missing {
        /// The table's name as in [`crate::key`].
        table: &'static str,
        /// The key without the group's prefix, hexadecimal.
        key: String,
    },
    /// The shard was written under a version that this build does not know.
    #[error("the shard is at version {found}, this build knows up to {known}")]
    Newer {
        /// What the shard record says.
        found: u32,
        /// [`crate::format::VERSION_MAX`].
        known: u32,
    },
    /// A command without an op, or with one of a newer build: a refusal here would be an outcome there (P-12).
    #[error("the command at index {index} has no op, or one that this build does not know")]
    UnknownOp {
        /// Its place in the log.
        index: u64,
    },
    /// A verb refused after it had written: all or nothing would be broken.
    #[error("a refused command has written rows: {detail}")]
    RefusedAfterWriting {
        /// The refusal's sentence.
        detail: String,
    },
}

impl Broken {
    pub(crate) fn corrupt(key: Key, reason: impl Into<String>) -> Self {
        Self::Corrupt { table: key.table().name(), key: hex::encode(key.bytes()), reason: reason.into() }
    }

    pub(crate) fn missing(key: Key) -> Self {
        Self::Missing { table: key.table().name(), key: hex::encode(key.bytes()) }
    }
}
