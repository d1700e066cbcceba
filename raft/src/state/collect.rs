//! Compacting all rows on purpose, now and then: for the garbage among blobs, which is what a deleted body leaves in its file, and for the
//! bodies of a snapshot, which come as rows.
//!
//! RocksDB finds out about garbage, moves what is left out of old blob files, and makes blobs of large rows only when it compacts the rows
//! concerned. Sorted runs (ADR 008) rest for long. Bodies are not among what is compacted, so it is little, but for those that came as rows: once.

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
/// Snapshots come one after the other while groups move; their bodies become blobs when none has come for so long.
const SETTLED: Duration = Duration::from_secs(60);
/// A file whose rows are this large on the average, in bytes, has bodies among them: without, they have about a hundred and twenty.
const LARGE_ROWS_BYTES: u64 = 1 << 10;
/// The average of a file below this size, in bytes, says nothing, and its bodies are few.
const LARGE_FILE_BYTES: u64 = 1 << 20;
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
    /// When bodies came last that are rows still.
    ingested: Option<Instant>,
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
    /// For a database that was just opened.
    pub(crate) fn open(db: &DB) -> Result<Self, rocksdb::Error> {
        let collector = Self::default();
        let has_bodies = |bytes: u64, rows: u64| bytes >= LARGE_FILE_BYTES && bytes >= rows * LARGE_ROWS_BYTES;
        if db.live_files()?.iter().any(|file| has_bodies(file.size as u64, file.num_entries)) {
            collector.ingested();
        }
        Ok(collector)
    }

    /// Bodies came as rows.
    pub(crate) fn ingested(&self) {
        self.pass.lock().ingested = Some(Instant::now());
    }

    /// Begins a pass if there is much garbage, or bodies are rows, at `now`; no pass while one is under way, nor for as long after it as it took.
    pub(crate) fn tend(&self, db: &Arc<DB>, now: Instant) -> Result<(), rocksdb::Error> {
        let garbage = Garbage::read(db)?;
        metrics::gauge!("postrider_raft_state_blob_bytes").set(garbage.of as f64);
        metrics::gauge!("postrider_raft_state_blob_garbage_bytes").set(garbage.bytes as f64);
        let mut pass = self.pass.lock();
        if pass.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            pass.end();
        }
        let rests = pass.rest_until.is_some_and(|until| now < until);
        let has_settled = pass.ingested.is_some_and(|at| now.duration_since(at) >= SETTLED);
        if pass.thread.is_some() || rests || !(garbage.is_much() || has_settled) {
            return Ok(());
        }
        let db = db.clone();
        let begun =
            std::thread::Builder::new().name("raft-collect".to_owned()).spawn(move || compact(&db, garbage.is_much()));
        match begun {
            Ok(thread) => {
                pass.thread = Some(thread);
                pass.ingested = None;
            }
            // The next flush tries again.
            Err(error) => tracing::warn!(%error, "no thread to compact with"),
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
            Err(_) => tracing::error!("a compaction of everything panicked"),
        }
    }
}

/// One pass; returns how long it took.
fn compact(db: &DB, collects: bool) -> Duration {
    let begun = Instant::now();
    let before = Garbage::read(db);
    if collects && let Err(error) = db.set_options(&[(SWITCH, "true")]) {
        tracing::error!(%error, "garbage is not collected");
        return begun.elapsed();
    }
    let mut all = CompactOptions::default();
    // Others may compact what is written meanwhile.
    all.set_exclusive_manual_compaction(false);
    all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    db.compact_range_opt::<&[u8], &[u8]>(None, None, &all);
    if collects && let Err(error) = db.set_options(&[(SWITCH, "false")]) {
        // Every compaction collects until the next pass: more is written than need be, and nothing is wrong.
        tracing::error!(%error, "collecting garbage was not switched off");
    }
    if let (Ok(before), Ok(after)) = (before, Garbage::read(db)) {
        tracing::info!(
            garbage_before = before.bytes,
            garbage_after = after.bytes,
            blobs = after.of,
            "all rows were compacted"
        );
    }
    metrics::counter!("postrider_raft_state_passes_total").increment(1);
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
