//! The keyspace of one shard: what apply and queries read, and where writes are collected.
//!
//! Keys here are without the group's prefix; [`RocksReader`] puts it on and takes it off.

mod memory;
mod rocks;
mod txn;

use bytes::Bytes;
use thiserror::Error;

pub use memory::MemoryStore;
pub use rocks::{PREFIX_BYTES, RocksReader};
pub use txn::{Txn, Writes};

use crate::key::{KeyBytes, KeyRange};

/// A read that failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// RocksDB says why; a failed checksum is among the reasons.
    #[error("the state database cannot be read: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// The read took more than it was given; it is not the rows that are wrong.
    #[error("the read takes more than it was given")]
    OverBudget,
    /// A key under the group's prefix that no version has written.
    #[error("a key of {found} bytes stands in the shard, the longest has {max}: {start}")]
    KeyTooLong {
        /// Bytes of the key.
        found: usize,
        /// [`crate::key::KEY_BYTES_MAX`].
        max: usize,
        /// Its first bytes, hexadecimal.
        start: String,
    },
}

/// Which end of a range a scan starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key up.
    Forward,
    /// From the largest key down.
    Backward,
}

/// A key and its value.
pub type Row = (KeyBytes, Bytes);

/// Reads of one shard's rows at one moment.
pub trait Reader {
    /// Rows of a range, read as they are asked for: dropping it stops the scan.
    type Scan<'a>: Iterator<Item = Result<Row, StoreError>>
    where
        Self: 'a;

    /// The value under `key`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError>;

    /// The rows of `range`.
    fn scan(&self, range: &KeyRange, direction: Direction) -> Self::Scan<'_>;

    /// Charges for work on what was read that takes as long as reading so many `bytes` more. Called before the work.
    ///
    /// # Errors
    /// [`StoreError::OverBudget`] where the reader has a budget, and that is more than is left of it.
    fn charge(&self, bytes: usize) -> Result<(), StoreError> {
        let _nothing_to_pay_with = bytes;
        Ok(())
    }
}

/// A reader that takes writes and reads them back.
pub trait Rows: Reader {
    /// Sets a row.
    fn put(&mut self, key: KeyBytes, value: Bytes);
    /// Removes a row; nothing happens when there is none.
    fn delete(&mut self, key: KeyBytes);
    /// How many times a row was set or removed.
    fn written(&self) -> u64;
}
