//! A store in memory, for models, digests and simulation.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::Rev;

use bytes::Bytes;

use super::{Direction, Reader, Row, StoreError, Writes};
use crate::key::{KeyBytes, KeyRange};

/// Rows in an ordered map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<KeyBytes, Bytes>,
}

impl MemoryStore {
    /// Without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over what a transaction has written.
    pub fn write(&mut self, writes: Writes) {
        for (key, value) in writes {
            match value {
                // A copy of its own size: a slice would keep the whole log entry alive that it was cut from.
                Some(value) => self.rows.insert(key, Bytes::copy_from_slice(&value)),
                None => self.rows.remove(&key),
            };
        }
    }

    /// Sets one row, as a snapshot that is received does.
    pub fn put(&mut self, key: KeyBytes, value: Bytes) {
        self.rows.insert(key, value);
    }

    /// Removes one row.
    pub fn remove(&mut self, key: &KeyBytes) -> Option<Bytes> {
        self.rows.remove(key)
    }

    /// Every row, by key.
    pub fn rows(&self) -> impl Iterator<Item = (&KeyBytes, &Bytes)> {
        self.rows.iter()
    }
}

impl Reader for MemoryStore {
    type Scan<'a> = MemoryScan<'a>;

    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> MemoryScan<'_> {
        let rows = self.rows.range(range.bounds());
        match direction {
            Direction::Forward => MemoryScan::Forward(rows),
            Direction::Backward => MemoryScan::Backward(rows.rev()),
        }
    }
}

/// A scan of a [`MemoryStore`].
pub enum MemoryScan<'a> {
    /// Up.
    Forward(btree_map::Range<'a, KeyBytes, Bytes>),
    /// Down.
    Backward(Rev<btree_map::Range<'a, KeyBytes, Bytes>>),
}

impl Iterator for MemoryScan<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = match self {
            Self::Forward(rows) => rows.next()?,
            Self::Backward(rows) => rows.next()?,
        };
        Some(Ok((*key, value.clone())))
    }
}
