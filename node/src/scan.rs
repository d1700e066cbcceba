//! Reads whose cost grows with the shard: each takes a thread and reads much, so there are few at once, and none goes on for
//! a caller who has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use postrider_api::pb;
use postrider_shard::key::{KeyBytes, KeyRange};
use postrider_shard::store::{Direction, Reader, RocksReader, Row, StoreError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fault;
use crate::options::NodeLimits;

/// Places for scans.
pub(crate) struct Scans {
    /// Digests and verifications, which an operator waits for.
    whole: Arc<Semaphore>,
    /// Those of them that run or stand in line.
    line: Arc<Semaphore>,
    /// Searches, which a client waits for: none behind a verification that takes an hour.
    searches: Arc<Semaphore>,
    /// Reads of one mailbox, queue or map that are too large for the threads that answer.
    large: Arc<Semaphore>,
    /// Those of them that run or stand in line.
    large_line: Arc<Semaphore>,
    /// Searches of one mailbox, through its index.
    finds: Arc<Semaphore>,
    /// Those of them that run or stand in line.
    finds_line: Arc<Semaphore>,
}

/// Held as long as a scan runs.
pub(crate) struct Place {
    _runs: OwnedSemaphorePermit,
    _in_line: Option<OwnedSemaphorePermit>,
}

impl Scans {
    pub(crate) fn new(limits: &NodeLimits) -> Self {
        Self {
            whole: Arc::new(Semaphore::new(limits.scans_max)),
            line: Arc::new(Semaphore::new(limits.scans_max + limits.scans_waiting_max)),
            searches: Arc::new(Semaphore::new(limits.searches_max)),
            large: Arc::new(Semaphore::new(limits.large_reads_max)),
            large_line: Arc::new(Semaphore::new(limits.large_reads_max + limits.large_reads_waiting_max)),
            finds: Arc::new(Semaphore::new(limits.finds_max)),
            finds_line: Arc::new(Semaphore::new(limits.finds_max + limits.finds_waiting_max)),
        }
    }

    /// A place for a digest or a verification: stands in line where the line is not too long.
    pub(crate) async fn whole(&self) -> Result<Place, pb::Fault> {
        let in_line = self.line.clone().try_acquire_owned().map_err(|_| fault::busy())?;
        let runs = self.whole.clone().acquire_owned().await.map_err(|_| fault::busy())?; // never closed
        Ok(Place { _runs: runs, _in_line: Some(in_line) })
    }

    /// A place for a large read: stands in line where the line is not too long.
    pub(crate) async fn large(&self) -> Result<Place, pb::Fault> {
        let in_line = self.large_line.clone().try_acquire_owned().map_err(|_| fault::busy())?;
        let runs = self.large.clone().acquire_owned().await.map_err(|_| fault::busy())?; // never closed
        Ok(Place { _runs: runs, _in_line: Some(in_line) })
    }

    /// A place for a search of one mailbox: stands in line where the line is not too long.
    pub(crate) async fn find(&self) -> Result<Place, pb::Fault> {
        let in_line = self.finds_line.clone().try_acquire_owned().map_err(|_| fault::busy())?;
        let runs = self.finds.clone().acquire_owned().await.map_err(|_| fault::busy())?; // never closed
        Ok(Place { _runs: runs, _in_line: Some(in_line) })
    }

    /// A place for a search, at once or not at all: who asks has better things to do than wait.
    pub(crate) fn search(&self) -> Result<Place, pb::Fault> {
        let runs = self.searches.clone().try_acquire_owned().map_err(|_| fault::busy())?;
        Ok(Place { _runs: runs, _in_line: None })
    }
}

/// Runs `scan` on a thread of its own. When nobody waits for this any more, the scan's reader finds no more rows, and what it
/// makes of that reaches nobody. `None`: the process ends.
pub(crate) async fn on_thread<T: Send + 'static>(scan: impl FnOnce(&Gone) -> T + Send + 'static) -> Option<T> {
    let gone = Gone::default();
    let _leaves = Leaves(gone.clone());
    tokio::task::spawn_blocking(move || scan(&gone)).await.ok()
}

/// Whether whoever wanted a scan has left.
#[derive(Clone, Default)]
pub(crate) struct Gone(Arc<AtomicBool>);

impl Gone {
    /// Nobody wants it any more.
    pub(crate) fn leave(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Leaves(Gone);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A reader that finds no more rows once its caller has left.
pub(crate) struct ScanReader<'r> {
    rows: RocksReader<'r>,
    gone: &'r Gone,
}

impl<'r> ScanReader<'r> {
    pub(crate) fn new(rows: RocksReader<'r>, gone: &'r Gone) -> Self {
        Self { rows, gone }
    }
}

impl<'r> Reader for ScanReader<'r> {
    type Scan<'s>
        = Rows<<RocksReader<'r> as Reader>::Scan<'s>>
    where
        Self: 's;

    fn get(&self, key: &KeyBytes) -> Result<Option<bytes::Bytes>, StoreError> {
        self.rows.get(key)
    }

    fn scan(&self, range: &KeyRange, direction: Direction) -> Self::Scan<'_> {
        Rows { rows: self.rows.scan(range, direction), gone: self.gone.clone() }
    }

    fn charge(&self, bytes: usize) -> Result<(), StoreError> {
        self.rows.charge(bytes)
    }
}

/// A scan of a [`ScanReader`].
pub(crate) struct Rows<S> {
    rows: S,
    gone: Gone,
}

impl<S: Iterator<Item = Result<Row, StoreError>>> Iterator for Rows<S> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.gone.has_left() {
            return None;
        }
        self.rows.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_api::id::EntryId;
    use postrider_shard::key::Key;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_scan_ends_when_its_caller_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let db = rocksdb::DB::open_default(dir.path()).unwrap();
        let prefix = [0, 0, 0, 3, 232];
        for entry in 0..100 {
            let key = Key::QueueDue(5, EntryId(entry)).bytes();
            db.put([prefix.as_slice(), key.as_ref()].concat(), []).unwrap();
        }
        let (begun, wait_begun) = mpsc::channel();
        let (go_on, wait) = mpsc::channel();
        let (told, counted) = mpsc::channel();
        let scan = tokio::spawn(on_thread(move |gone| {
            let reader = ScanReader::new(RocksReader::new(&db, prefix), gone);
            let mut rows = reader.scan(&KeyRange::due(0, i64::MAX), Direction::Forward);
            let before = rows.by_ref().take(10).count();
            begun.send(()).unwrap();
            wait.recv().unwrap();
            told.send((before, rows.count())).unwrap();
        }));
        tokio::task::spawn_blocking(move || wait_begun.recv().unwrap()).await.unwrap();
        scan.abort();
        assert!(scan.await.unwrap_err().is_cancelled());
        go_on.send(()).unwrap();
        let counts = tokio::task::spawn_blocking(move || counted.recv_timeout(Duration::from_secs(60)));
        assert_eq!(counts.await.unwrap().unwrap(), (10, 0));
    }

    #[tokio::test]
    async fn searches_do_not_wait_and_lines_are_bounded() {
        let limits = NodeLimits { scans_max: 1, scans_waiting_max: 1, searches_max: 1, ..Default::default() };
        let scans = Arc::new(Scans::new(&limits));
        let first = scans.whole().await.unwrap();
        let second = tokio::spawn({
            let scans = scans.clone();
            async move { scans.whole().await.is_ok() }
        });
        while scans.line.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(scans.whole().await.is_err(), "the line is full");
        let search = scans.search().unwrap();
        assert!(scans.search().is_err());
        drop((first, search));
        assert!(second.await.unwrap());
        assert!(scans.search().is_ok());
    }
}
