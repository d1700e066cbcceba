//! Counters of a host, for benchmarks, tests and the metrics endpoint.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a host has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Times that the log was synced.
    pub log_syncs: u64,
    /// Batches written to the log, synced or not.
    pub log_writes: u64,
    /// Bytes of entries and markers written to the log.
    pub log_bytes: u64,
    /// Entries applied.
    pub applied_entries: u64,
    /// Writes to the state database.
    pub apply_writes: u64,
    /// Flushes of the state database that the host asked for.
    pub flushes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log_syncs: AtomicU64,
    pub(crate) log_writes: AtomicU64,
    pub(crate) log_bytes: AtomicU64,
    pub(crate) applied_entries: AtomicU64,
    pub(crate) apply_writes: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

impl Counters {
    pub(crate) fn log_written(&self, bytes: u64, syncs: u64) {
        self.log_writes.fetch_add(1, Ordering::Relaxed);
        self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::counter!("postrider_raft_log_written_bytes").increment(bytes);
        self.log_syncs.fetch_add(syncs, Ordering::Relaxed);
        metrics::counter!("postrider_raft_log_syncs_total").increment(syncs);
    }

    pub(crate) fn applied(&self, entries: u64) {
        self.apply_writes.fetch_add(1, Ordering::Relaxed);
        self.applied_entries.fetch_add(entries, Ordering::Relaxed);
        metrics::counter!("postrider_raft_applied_entries_total").increment(entries);
    }

    pub(crate) fn flushed(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("postrider_raft_state_flushes_total").increment(1);
    }

    pub(crate) fn read(&self) -> HostStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostStats {
            log_syncs: get(&self.log_syncs),
            log_writes: get(&self.log_writes),
            log_bytes: get(&self.log_bytes),
            applied_entries: get(&self.applied_entries),
            apply_writes: get(&self.apply_writes),
            flushes: get(&self.flushes),
        }
    }
}
