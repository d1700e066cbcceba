//! What a read may take of the thread that it runs on.
//!
//! The threads that answer carry the heartbeats of every group as well: one that reads for long is a leader that is silent. So a
//! read begins where it was called with a budget of bytes and time, and one that goes over is begun anew on a thread of its own, with a
//! larger budget and in a bounded number of places.
//!
//! Invariant: nobody has to know beforehand which reads are large: it is measured, for every query that there is or will be.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider_shard::key::{KeyBytes, KeyRange};
use postrider_shard::store::{Direction, Reader, Row, StoreError};

/// How much a read may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// Keys and values, and what is charged for work on them, bytes.
    pub(crate) bytes: usize,
    /// From its first row to its last.
    pub(crate) time: Duration,
}

/// On a thread that carries heartbeats. A quarter of a megabyte is decoded in about a millisecond.
pub(crate) const INLINE: Budget = Budget { bytes: 256 * 1024, time: Duration::from_millis(2) };
/// Deleted keys that one step of a scan may pass over there: RocksDB takes about a microsecond for four.
pub(crate) const INLINE_KEYS_PASSED_OVER_MAX: u64 = 2_000;
/// On a thread of its own. The largest answers are a shard map of 64 MiB, and pages of 8 MiB; a caller waits for 4.5 s.
pub(crate) const LARGE: Budget = Budget { bytes: 192 * 1024 * 1024, time: Duration::from_secs(4) };

/// A reader that fails once its budget is used up.
pub(crate) struct BudgetReader<'r, R> {
    rows: &'r R,
    left: Cell<usize>,
    until: Instant,
    is_over: Cell<bool>,
}

impl<'r, R: Reader> BudgetReader<'r, R> {
    fn new(rows: &'r R, budget: Budget) -> Self {
        let until = Instant::now() + budget.time;
        Self { rows, left: Cell::new(budget.bytes), until, is_over: Cell::new(false) }
    }

    /// Called before anything is done with what was read: a row that goes over is not decoded.
    fn spend(&self, bytes: usize) -> Result<(), StoreError> {
        match self.left.get().checked_sub(bytes) {
            Some(left) if Instant::now() < self.until => {
                self.left.set(left);
                Ok(())
            }
            _ => {
                self.is_over.set(true);
                Err(StoreError::OverBudget)
            }
        }
    }

    fn pay<T>(&self, read: Result<T, StoreError>, bytes: impl Fn(&T) -> usize) -> Result<T, StoreError> {
        match read {
            Ok(read) => self.spend(bytes(&read)).map(|()| read),
            Err(error) => {
                self.is_over.set(self.is_over.get() || matches!(error, StoreError::OverBudget));
                Err(error)
            }
        }
    }
}

impl<'r, R: Reader> Reader for BudgetReader<'r, R> {
    type Scan<'s>
        = BudgetScan<'s, 'r, R>
    where
        Self: 's;

    fn get(&self, key: &KeyBytes) -> Result<Option<Bytes>, StoreError> {
        self.pay(self.rows.get(key), |value| key.as_ref().len() + value.as_ref().map_or(0, Bytes::len))
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> Self::Scan<'_> {
        BudgetScan { rows: self.rows.scan(range, direction), reader: self }
    }

    fn charge(&self, bytes: usize) -> Result<(), StoreError> {
        self.spend(bytes)
    }
}

/// A scan of a [`BudgetReader`].
pub(crate) struct BudgetScan<'s, 'r, R: Reader + 'r> {
    rows: R::Scan<'s>,
    reader: &'s BudgetReader<'r, R>,
}

impl<R: Reader> Iterator for BudgetScan<'_, '_, R> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.rows.next()?;
        Some(self.reader.pay(row, |(key, value)| key.as_ref().len() + value.len()))
    }
}

/// Reads within a budget; `None` when it went over, whatever `read` made of that.
pub(crate) fn within<R: Reader, T>(
    rows: &R,
    budget: Budget,
    read: impl FnOnce(&BudgetReader<'_, R>) -> T,
) -> Option<T> {
    let reader = BudgetReader::new(rows, budget);
    let read = read(&reader);
    (!reader.is_over.get()).then_some(read)
}

#[cfg(test)]
mod tests {
    use postrider_api::id::EntryId;
    use postrider_shard::key::Key;
    use postrider_shard::store::{MemoryStore, RocksReader};

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(600);

    fn store() -> MemoryStore {
        let mut store = MemoryStore::new();
        for entry in 0..10 {
            store.put(Key::Queue(EntryId(entry)).bytes(), Bytes::from(vec![0; 91]));
        }
        store
    }

    fn count<R: Reader>(reader: &R) -> Result<usize, StoreError> {
        let mut rows = 0;
        for row in reader.scan(&KeyRange::all(), Direction::Forward) {
            row?;
            rows += 1;
        }
        Ok(rows)
    }

    #[test]
    fn bytes_are_counted_and_work_is_charged() {
        let store = store();
        let budget = |bytes| Budget { bytes, time: GENEROUS };
        assert_eq!(within(&store, budget(1000), |rows| count(rows).unwrap()), Some(10));
        assert!(within(&store, budget(999), |rows| count(rows).ok()).is_none());
        let read = |rows: &BudgetReader<'_, MemoryStore>| {
            rows.get(&Key::Queue(EntryId(1)).bytes()).and_then(|_| rows.charge(900))
        };
        assert!(within(&store, budget(1000), read).is_some());
        assert!(within(&store, budget(999), read).is_none(), "also where it was the last");
        // Swallowed or not.
        assert!(within(&store, budget(1), |rows| count(rows).unwrap_or_default()).is_none());
    }

    #[test]
    fn time_is_measured() {
        let store = store();
        let slowly = |rows: &BudgetReader<'_, MemoryStore>| {
            std::thread::sleep(Duration::from_millis(20));
            count(rows).is_ok()
        };
        assert_eq!(within(&store, Budget { bytes: 10_000, time: Duration::from_millis(10) }, slowly), None);
    }

    #[test]
    fn what_a_scan_passes_over_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let db = rocksdb::DB::open_default(dir.path()).unwrap();
        let prefix = [0, 0, 0, 3, 232];
        let key = |entry| [prefix.as_slice(), Key::Queue(EntryId(entry)).bytes().as_ref()].concat();
        for entry in 0..10_000 {
            db.put(key(entry), [0]).unwrap();
        }
        for entry in 0..9_999 {
            db.delete(key(entry)).unwrap();
        }
        let rows = RocksReader::new(&db, prefix);
        let budget = Budget { bytes: 1024 * 1024, time: GENEROUS };
        assert_eq!(within(&rows, budget, |rows| count(rows).unwrap()), Some(1));
        assert!(within(&rows.passing_over(INLINE_KEYS_PASSED_OVER_MAX), budget, |rows| count(rows).ok()).is_none());
    }
}
