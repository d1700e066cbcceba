//! The recent end of each group's log, in memory.
//!
//! Invariant: the tail holds every entry that is not synced yet, so that an entry is readable as soon as it was
//! appended; synced entries go when memory is short.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::log::store::GroupLog;
use crate::types::{self, Entry};

/// A consecutive run of entries up to the log's end.
#[derive(Default)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Tail {
    /// The index of its first entry.
    pub(crate) fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.log_id.index)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.bytes += types::weight(&entry);
        self.entries.push_back(entry);
    }

    /// Removes the first entry if its index is below `end`.
    pub(crate) fn pop_below(&mut self, end: u64) -> Option<usize> {
        if self.first()? >= end {
            return None;
        }
        let entry = self.entries.pop_front()?;
        let bytes = types::weight(&entry);
        self.bytes -= bytes;
        Some(bytes)
    }

    /// Removes the entries from `from` on.
    pub(crate) fn cut(&mut self, from: u64) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.log_id.index >= from) {
            self.bytes -= types::weight(&entry);
        }
    }

    /// Entries of `range`, as many as fit into `bytes_max`, at least one; `None` when its start is not in here.
    pub(crate) fn read(&self, range: &Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let first = self.first()?;
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        if skip >= self.entries.len() {
            return None;
        }
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.entries.range(skip..) {
            bytes += types::weight(entry);
            if entry.log_id.index >= range.end || (bytes > bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }
}

/// The memory that all tails of a node share.
pub(crate) struct TailBudget {
    used: AtomicUsize,
    max: usize,
    logs: Mutex<Vec<Weak<GroupLog>>>,
}

impl TailBudget {
    pub(crate) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max, logs: Mutex::new(Vec::new()) }
    }

    pub(crate) fn register(&self, log: &Arc<GroupLog>) {
        let mut logs = self.logs.lock();
        logs.retain(|log| log.strong_count() > 0);
        logs.push(Arc::downgrade(log));
    }

    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn exceeded(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.max
    }

    /// Makes room: the group that grows gives up its oldest entries first, then the others theirs.
    pub(crate) fn make_room(&self, grown: &GroupLog) {
        if !self.exceeded() {
            return;
        }
        grown.evict();
        if !self.exceeded() {
            return;
        }
        let logs: Vec<_> = self.logs.lock().iter().filter_map(Weak::upgrade).collect();
        for log in logs {
            if !self.exceeded() {
                return;
            }
            log.evict();
        }
    }
}

/// How many bytes of log lie behind an index, to within [`STEP_BYTES`].
#[derive(Default)]
pub(crate) struct Sizes {
    /// (index, bytes appended up to and with it), ascending.
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

const STEP_BYTES: u64 = 1 << 20;

impl Sizes {
    pub(crate) fn add(&mut self, entry: &Entry) {
        self.total += types::weight(entry) as u64;
        let marked = self.marks.back().map_or(0, |(_, total)| *total);
        if self.total >= marked + STEP_BYTES || self.marks.is_empty() {
            self.marks.push_back((entry.log_id.index, self.total));
        }
    }

    pub(crate) fn purge(&mut self, upto: u64) {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(index, _)| *index < upto) {
            self.marks.pop_front();
        }
    }

    pub(crate) fn cut(&mut self, from: u64) {
        while self.marks.pop_back_if(|(index, _)| *index >= from).is_some() {}
    }

    /// Bytes after `index`; 0 when nothing was appended since the start, even if older entries lie there.
    pub(crate) fn after(&self, index: u64) -> u64 {
        let at = self.marks.partition_point(|(mark, _)| *mark <= index);
        let before = match at.checked_sub(1).and_then(|at| self.marks.get(at)) {
            Some((_, total)) => *total,
            // Entries before the first mark, or before the start of this process.
            None => self.marks.front().map_or(self.total, |(_, total)| total.saturating_sub(STEP_BYTES)),
        };
        self.total.saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Command, Payload, log_id};

    fn entry(index: u64, bytes: usize) -> Entry {
        Entry { log_id: log_id(1, index), payload: Payload::Normal(Command(vec![0; bytes].into())) }
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.log_id.index).collect())
    }

    #[test]
    fn a_tail_reads_what_it_holds() {
        let mut tail = Tail::default();
        for index in 5..10 {
            tail.push(entry(index, 100));
        }
        assert_eq!(indexes(tail.read(&(4..8), usize::MAX)), None);
        assert_eq!(indexes(tail.read(&(6..8), usize::MAX)), Some(vec![6, 7]));
        assert_eq!(indexes(tail.read(&(6..20), 1)), Some(vec![6]));
        assert_eq!(indexes(tail.read(&(10..12), usize::MAX)), None);
        tail.cut(8);
        assert_eq!(indexes(tail.read(&(6..20), usize::MAX)), Some(vec![6, 7]));
        assert!(tail.pop_below(6).is_some());
        assert!(tail.pop_below(6).is_none());
        assert_eq!(tail.first(), Some(6));
        assert_eq!(tail.bytes(), 2 * (100 + types::ENTRY_OVERHEAD_BYTES));
    }

    #[test]
    fn sizes_know_roughly_how_much_lies_behind() {
        let mut sizes = Sizes::default();
        let each = 64 << 10;
        for index in 0..160 {
            sizes.add(&entry(index, each - types::ENTRY_OVERHEAD_BYTES));
        }
        let half = sizes.after(79);
        let exact = 80 * each as u64;
        assert!(half.abs_diff(exact) <= STEP_BYTES, "{half} is not near {exact}");
        sizes.purge(100);
        assert!(sizes.after(150).abs_diff(9 * each as u64) <= STEP_BYTES);
    }
}
