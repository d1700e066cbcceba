//! Collecting garbage among blobs: what a deleted body leaves in its file.
//!
//! RocksDB finds out about garbage, and moves what is left out of old blob files, only when it compacts the rows that refer to them. Sorted
//! runs (ADR 008) rest for long, so when there is much garbage all rows are compacted on purpose: bodies are not among them, so that is little.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rocksdb::{BottommostLevelCompaction, CompactOptions, DB};

/// The oldest share of blob files that a pass moves what is left out of. Each pass begins where the one before ended, since what is moved is new.
pub(crate) const AGE_CUTOFF: f64 = 0.25;
/// Garbage is collected from this share of all blobs on, in per cent. Less is left alone: a pass writes as much more as there is less garbage.
const PERCENT_MIN: u64 = 25;
/// Below this much garbage, in bytes, its share says nothing.
const BYTES_MIN: u64 = 64 << 20;
/// RocksDB's switch, off but for a pass: any other compaction would move the oldest blobs, whether they are garbage or not.
const SWITCH: &str = "enable_blob_garbage_collection";

/// Collects, one pass at a time.
#[derive(Default)]
pub(crate) struct Collector {
    pass: Mutex<Pass>,
}

/// The last pass.
#[derive(Default)]
struct Pass {
    thread: Option<JoinHandle<Duration>>,
    rest_until: Option<Instant>,
}

/// How much of the blobs of a database is garbage, in bytes, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Garbage {
    bytes: u64,
    of: u64,
}

impl Garbage {
    fn read(db: &DB) -> Result<Self, rocksdb::Error> {
        let property = |name: &str| Ok(db.property_int_value(name)?.unwrap_or(0));
        Ok(Self {
            bytes: property("rocksdb.live-blob-file-garbage-size")?,
            of: property("rocksdb.live-blob-file-size")?,
        })
    }

    fn is_much(self) -> bool {
        self.bytes >= BYTES_MIN && self.bytes >= self.of / 100 * PERCENT_MIN
    }
}

impl Collector {
    /// Begins a pass if there is much garbage; no pass while one is under way, nor for as long after it as it took.
    pub(crate) fn tend(&self, db: &Arc<DB>) -> Result<(), rocksdb::Error> {
        let garbage = Garbage::read(db)?;
        metrics::gauge!("postrider_raft_state_blob_bytes").set(garbage.of as f64);
        metrics::gauge!("postrider_raft_state_blob_garbage_bytes").set(garbage.bytes as f64);
        let mut pass = self.pass.lock();
        if pass.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            pass.end();
        }
        let rests = pass.rest_until.is_some_and(|until| Instant::now() < until);
        if pass.thread.is_some() || rests || !garbage.is_much() {
            return Ok(());
        }
        let db = db.clone();
        let begun = std::thread::Builder::new().name("raft-collect".to_owned()).spawn(move || collect(&db));
        match begun {
            Ok(thread) => pass.thread = Some(thread),
            // The next flush tries again.
            Err(error) => tracing::warn!(%error, "no thread to collect garbage with"),
        }
        Ok(())
    }

    /// Waits for the pass that is under way.
    pub(crate) fn join(&self) {
        self.pass.lock().end();
    }
}

impl Pass {
    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        match thread.join() {
            Ok(took) => self.rest_until = Some(Instant::now() + took),
            Err(_) => tracing::error!("a collection of garbage panicked"),
        }
    }
}

/// One pass; returns how long it took.
fn collect(db: &DB) -> Duration {
    let begun = Instant::now();
    let before = Garbage::read(db);
    if let Err(error) = db.set_options(&[(SWITCH, "true")]) {
        tracing::error!(%error, "garbage is not collected");
        return begun.elapsed();
    }
    let mut all = CompactOptions::default();
    // Others may compact what is written meanwhile.
    all.set_exclusive_manual_compaction(false);
    all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    db.compact_range_opt::<&[u8], &[u8]>(None, None, &all);
    if let Err(error) = db.set_options(&[(SWITCH, "false")]) {
        // Every compaction collects until the next pass: more is written than need be, and nothing is wrong.
        tracing::error!(%error, "collecting garbage was not switched off");
    }
    if let (Ok(before), Ok(after)) = (before, Garbage::read(db)) {
        tracing::info!(before = before.bytes, after = after.bytes, of = after.of, "garbage among blobs was collected");
    }
    metrics::counter!("postrider_raft_state_blob_collections_total").increment(1);
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_a_quarter_of_something() {
        let mib = |bytes: u64, of: u64| Garbage { bytes: bytes << 20, of: of << 20 };
        assert!(!mib(0, 0).is_much());
        assert!(!mib(63, 64).is_much());
        assert!(!mib(240, 1_000).is_much());
        assert!(mib(260, 1_000).is_much());
    }
}
