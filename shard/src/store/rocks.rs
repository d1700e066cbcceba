//! Reads of one shard's rows in a RocksDB that holds many.

use bytes::Bytes;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions, Snapshot};

use super::{Direction, Reader, Row, StoreError};
use crate::key::{KEY_BYTES_MAX, KeyBytes, KeyRange};

/// Bytes that the consensus host puts before each key of a group.
pub const PREFIX_BYTES: usize = 5;

#[derive(Clone, Copy)]
enum Source<'a> {
    Live(&'a DB),
    Snapshot(&'a Snapshot<'a>),
}

/// The rows of one group, as the database holds them now or as a snapshot of it does.
#[derive(Clone, Copy)]
pub struct RocksReader<'a> {
    source: Source<'a>,
    prefix: [u8; PREFIX_BYTES],
    /// Keys that one step of a scan may pass over.
    passed_over_max: Option<u64>,
}

impl<'a> RocksReader<'a> {
    /// What `db` holds under `prefix` at the moment of each read.
    pub fn new(db: &'a DB, prefix: [u8; PREFIX_BYTES]) -> Self {
        Self { source: Source::Live(db), prefix, passed_over_max: None }
    }

    /// What `snapshot` holds under `prefix`: the same at every read.
    pub fn of_snapshot(snapshot: &'a Snapshot<'a>, prefix: [u8; PREFIX_BYTES]) -> Self {
        Self { source: Source::Snapshot(snapshot), prefix, passed_over_max: None }
    }

    /// The same, but no step of a scan passes over more than `keys` that were deleted or overwritten and are not yet compacted away: it
    /// fails with [`StoreError::OverBudget`]. Nothing else could stop it, for it is one call.
    #[must_use]
    pub fn passing_over(self, keys: u64) -> Self {
        Self { passed_over_max: Some(keys), ..self }
    }

    /// The first key behind the group; `None` when nothing can be behind it.
    fn end(&self) -> Option<Vec<u8>> {
        let last = self.prefix.iter().rposition(|byte| *byte != 0xff)?;
        let mut end = self.prefix[..=last].to_vec();
        end[last] += 1;
        Some(end)
    }

    fn prefixed(&self, key: &[u8]) -> ([u8; PREFIX_BYTES + KEY_BYTES_MAX], usize) {
        let mut whole = [0; PREFIX_BYTES + KEY_BYTES_MAX];
        whole[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        whole[PREFIX_BYTES..PREFIX_BYTES + key.len()].copy_from_slice(key);
        (whole, PREFIX_BYTES + key.len())
    }
}

impl<'a> Reader for RocksReader<'a> {
    type Scan<'s>
        = RocksScan<'s>
    where
        Self: 's;

    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError> {
        let (whole, length) = self.prefixed(key.as_ref());
        let value = match self.source {
            Source::Live(db) => db.get_pinned(&whole[..length])?,
            Source::Snapshot(snapshot) => snapshot.get_pinned(&whole[..length])?,
        };
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> RocksScan<'_> {
        let mut options = ReadOptions::default();
        // The database may have a prefix extractor for its point reads; a scan must not skip rows because of it.
        options.set_total_order_seek(true);
        if let Some(keys) = self.passed_over_max {
            options.set_max_skippable_internal_keys(keys);
        }
        let (start, length) = self.prefixed(range.start.as_ref());
        options.set_iterate_lower_bound(&start[..length]);
        match &range.end {
            Some(end) => {
                let (end, length) = self.prefixed(end.as_ref());
                options.set_iterate_upper_bound(&end[..length]);
            }
            None => {
                if let Some(end) = self.end() {
                    options.set_iterate_upper_bound(end);
                }
            }
        }
        let mut rows = match self.source {
            Source::Live(db) => db.raw_iterator_opt(options),
            Source::Snapshot(snapshot) => snapshot.raw_iterator_opt(options),
        };
        match direction {
            Direction::Forward => rows.seek_to_first(),
            Direction::Backward => rows.seek_to_last(),
        }
        RocksScan { rows, direction, over: false }
    }
}

/// A scan of a [`RocksReader`].
pub struct RocksScan<'a> {
    rows: DBRawIteratorWithThreadMode<'a, DB>,
    direction: Direction,
    over: bool,
}

impl Iterator for RocksScan<'_> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let Some((key, value)) = self.rows.item() else {
            self.over = true;
            // An iterator that is not valid is at its end, or could not read on.
            return self.rows.status().err().map(|error| match error.kind() {
                rocksdb::ErrorKind::Incomplete => Err(StoreError::OverBudget),
                _ => Err(error.into()),
            });
        };
        let key = &key[PREFIX_BYTES.min(key.len())..];
        let row = match KeyBytes::from_slice(key) {
            Some(key) => Ok((key, Bytes::copy_from_slice(value))),
            None => {
                self.over = true;
                let start = hex::encode(&key[..KEY_BYTES_MAX]);
                return Some(Err(StoreError::KeyTooLong { found: key.len(), max: KEY_BYTES_MAX, start }));
            }
        };
        match self.direction {
            Direction::Forward => self.rows.next(),
            Direction::Backward => self.rows.prev(),
        }
        Some(row)
    }
}
