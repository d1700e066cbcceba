//! Writes on top of a reader, not yet in the database.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map;
use std::iter::{Peekable, Rev};

use bytes::Bytes;

use super::{Direction, Reader, Row, Rows, StoreError};
use crate::key::{KeyBytes, KeyRange};

/// What a transaction has written, by key; `None` removes the row.
pub type Writes = btree_map::IntoIter<KeyBytes, Option<Bytes>>;

/// Several commands are applied over one transaction, one after the other: each reads what those before it wrote.
pub struct Txn<'a, R> {
    reader: &'a R,
    writes: BTreeMap<KeyBytes, Option<Bytes>>,
    written: u64,
}

impl<'a, R: Reader> Txn<'a, R> {
    /// Nothing written yet.
    pub fn new(reader: &'a R) -> Self {
        Self { reader, writes: BTreeMap::new(), written: 0 }
    }

    /// The last write of each key, in key order: what goes into a write batch.
    pub fn into_writes(self) -> Writes {
        self.writes.into_iter()
    }
}

impl<R: Reader> Reader for Txn<'_, R> {
    type Scan<'s>
        = TxnScan<'s, R>
    where
        Self: 's;

    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.reader.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> TxnScan<'_, R> {
        let overlay = self.writes.range(range.bounds());
        TxnScan {
            overlay: match direction {
                Direction::Forward => Overlay::Forward(overlay),
                Direction::Backward => Overlay::Backward(overlay.rev()),
            }
            .peekable(),
            base: self.reader.scan(range, direction).peekable(),
            direction,
        }
    }
}

impl<R: Reader> Rows for Txn<'_, R> {
    fn put(&mut self, key: KeyBytes, value: Bytes) {
        self.written += 1;
        self.writes.insert(key, Some(value));
    }

    fn delete(&mut self, key: KeyBytes) {
        self.written += 1;
        self.writes.insert(key, None);
    }

    fn written(&self) -> u64 {
        self.written
    }
}

enum Overlay<'a> {
    Forward(btree_map::Range<'a, KeyBytes, Option<Bytes>>),
    Backward(Rev<btree_map::Range<'a, KeyBytes, Option<Bytes>>>),
}

impl<'a> Iterator for Overlay<'a> {
    type Item = (&'a KeyBytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Forward(writes) => writes.next(),
            Self::Backward(writes) => writes.next(),
        }
    }
}

/// The rows below and the writes above, merged.
pub struct TxnScan<'a, R: Reader + 'a> {
    overlay: Peekable<Overlay<'a>>,
    base: Peekable<R::Scan<'a>>,
    direction: Direction,
}

impl<'a, R: Reader + 'a> TxnScan<'a, R> {
    /// Where the next row comes from: `Less` the overlay, `Greater` the base, `Equal` both (the overlay hides the base).
    fn nearer(&mut self) -> Option<Ordering> {
        match (self.overlay.peek(), self.base.peek()) {
            (None, None) => None,
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) | (Some(_), Some(Err(_))) => Some(Ordering::Greater),
            (Some((above, _)), Some(Ok((below, _)))) => Some(match self.direction {
                Direction::Forward => (*above).cmp(below),
                Direction::Backward => below.cmp(above),
            }),
        }
    }
}

impl<'a, R: Reader + 'a> Iterator for TxnScan<'a, R> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let nearer = self.nearer()?;
            if nearer == Ordering::Greater {
                return self.base.next();
            }
            if nearer == Ordering::Equal {
                self.base.next();
            }
            if let Some((key, Some(value))) = self.overlay.next() {
                return Some(Ok((*key, value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use proptest::prelude::*;

    fn key(byte: u8) -> KeyBytes {
        KeyBytes::from_slice(&[byte]).unwrap()
    }

    proptest! {
        #[test]
        fn a_merged_scan_reads_what_a_written_store_reads(
            base in proptest::collection::btree_map(0u8..20, 0u8..4, 0..12),
            writes in proptest::collection::vec((0u8..20, proptest::option::of(0u8..4)), 0..20),
            start in 0u8..20, end in 0u8..22, backward: bool, take in 0usize..20,
        ) {
            let mut store = MemoryStore::new();
            for (k, v) in &base { store.put(key(*k), Bytes::copy_from_slice(&[*v])); }
            let below = store.clone();
            let mut txn = Txn::new(&below);
            for (k, v) in &writes {
                match v {
                    Some(v) => txn.put(key(*k), Bytes::copy_from_slice(&[*v])),
                    None => txn.delete(key(*k)),
                }
            }
            let direction = if backward { Direction::Backward } else { Direction::Forward };
            let range = KeyRange { start: key(start), end: (end < 21).then(|| key(end)) };
            let merged: Vec<_> = txn.scan(&range, direction).take(take).map(Result::unwrap).collect();
            store.write(txn.into_writes());
            let plain: Vec<_> = store.scan(&range, direction).take(take).map(Result::unwrap).collect();
            prop_assert_eq!(merged, plain);
        }
    }
}
