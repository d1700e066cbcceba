//! One group's log, as openraft wants it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Weak};

use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::{LogState, OptionalSend};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::ids::{GroupId, NodeId};
use crate::log::engine::{LogEngine, LogError, LogOp};
use crate::log::tail::{Sizes, Tail, TailBudget};
use crate::log::writer::{Done, Writer};
use crate::types::{self, Entry, LogId, Types, Vote};

/// How far a group's effects are in files of the state database: nothing before that may leave the log.
pub(crate) trait FlushedIndex: Send + Sync + 'static {
    /// The last index of `group` that survives a crash without the log.
    fn flushed(&self, group: GroupId) -> io::Result<Option<u64>>;
}

/// What all groups' logs share.
#[derive(Clone)]
pub(crate) struct LogShared {
    pub(crate) node: NodeId,
    pub(crate) engine: Arc<dyn LogEngine>,
    pub(crate) writer: Writer,
    pub(crate) budget: Arc<TailBudget>,
    /// Not owned: what is queued for the writer holds the log, and the writer's thread must never be the one that closes the state
    /// database, which may be while the process exits.
    pub(crate) flushed: Weak<dyn FlushedIndex>,
    /// Bytes of entries in one message to a follower.
    pub(crate) append_bytes_max: usize,
    /// Bytes of entries applied at once.
    pub(crate) apply_bytes_max: usize,
}

/// How far the log is synced, or that it never will be.
#[derive(Clone, Debug)]
enum Synced {
    Below(u64),
    Failed(LogError),
}

#[derive(Default)]
struct Inner {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// What the log on disk was last asked to say of it.
    marked: Option<LogId>,
    purged: Option<LogId>,
    last: Option<LogId>,
    tail: Tail,
    sizes: Sizes,
}

impl Inner {
    /// What is committed, if the log on disk does not say so; from now on it is taken to.
    fn news(&mut self) -> Option<LogId> {
        (self.marked < self.committed).then(|| self.marked = self.committed)?;
        self.committed
    }
}

/// A group's log while it is open.
///
/// Invariant: an entry that can be read is either in the tail or synced.
pub(crate) struct GroupLog {
    group: GroupId,
    shared: LogShared,
    inner: Mutex<Inner>,
    synced: watch::Sender<Synced>,
}

impl GroupLog {
    /// Opens the log of `group` from what the engine holds. Nothing may still be queued for it.
    pub(crate) fn open(group: GroupId, shared: LogShared) -> Result<Arc<Self>, LogError> {
        let head = shared.engine.head(group)?;
        let synced = types::next_index(head.last.as_ref());
        let inner = Inner {
            vote: head.vote,
            committed: head.committed,
            marked: head.committed,
            purged: head.purged,
            last: head.last,
            ..Inner::default()
        };
        let log = Arc::new(Self {
            group,
            shared: shared.clone(),
            inner: Mutex::new(inner),
            synced: watch::Sender::new(Synced::Below(synced)),
        });
        shared.budget.register(&log);
        Ok(log)
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.inner.lock().last
    }

    pub(crate) fn purged(&self) -> Option<LogId> {
        self.inner.lock().purged
    }

    /// Whether anything was ever written for this group on this node: a vote or an entry.
    pub(crate) fn is_pristine(&self) -> bool {
        let inner = self.inner.lock();
        inner.vote.is_none() && inner.last.is_none()
    }

    /// Bytes of log after `index`, roughly.
    pub(crate) fn bytes_after(&self, index: u64) -> u64 {
        self.inner.lock().sizes.after(index)
    }

    /// Waits until the entry at `index` is synced here.
    ///
    /// This is what keeps the state behind the log: whatever the state database writes to disk, and whenever, the log
    /// already holds it.
    pub(crate) async fn wait_synced(&self, index: u64) -> Result<(), LogError> {
        let mut synced = self.synced.subscribe();
        let reached = synced
            .wait_for(|synced| match synced {
                Synced::Below(next) => *next > index,
                Synced::Failed(_) => true,
            })
            .await
            .map_err(|_| LogError::Closed)?;
        match &*reached {
            Synced::Below(_) => Ok(()),
            Synced::Failed(error) => Err(error.clone()),
        }
    }

    pub(crate) fn advance_synced(&self, next: u64) {
        self.synced.send_if_modified(|synced| match synced {
            Synced::Below(old) if *old < next => {
                *old = next;
                true
            }
            _ => false,
        });
        if self.shared.budget.exceeded() {
            self.shared.budget.make_room(self);
        }
    }

    fn retreat_synced(&self, next: u64) {
        self.synced.send_if_modified(|synced| match synced {
            Synced::Below(old) if *old > next => {
                *old = next;
                true
            }
            _ => false,
        });
    }

    pub(crate) fn fail(&self, error: &LogError) {
        self.synced.send_if_modified(|synced| match synced {
            Synced::Below(_) => {
                *synced = Synced::Failed(error.clone());
                true
            }
            Synced::Failed(_) => false,
        });
    }

    pub(crate) fn failure(&self) -> Option<LogError> {
        match &*self.synced.borrow() {
            Synced::Below(_) => None,
            Synced::Failed(error) => Some(error.clone()),
        }
    }

    /// Gives up synced entries of the tail while memory is short.
    pub(crate) fn evict(&self) {
        let synced = match &*self.synced.borrow() {
            Synced::Below(next) => *next,
            Synced::Failed(_) => return,
        };
        let mut inner = self.inner.lock();
        while self.shared.budget.exceeded()
            && let Some(bytes) = inner.tail.pop_below(synced)
        {
            self.shared.budget.give(bytes);
        }
    }

    fn remember(&self, entries: &[Entry]) -> Result<(), LogError> {
        let mut inner = self.inner.lock();
        for entry in entries {
            let expected = types::next_index(inner.last.as_ref());
            if inner.last.is_some() && entry.log_id.index != expected {
                return Err(LogError::Hole { group: self.group, index: expected });
            }
            inner.last = Some(entry.log_id);
            inner.sizes.add(entry);
            self.shared.budget.take(types::weight(entry));
            inner.tail.push(entry.clone());
        }
        Ok(())
    }

    /// Writes down what is committed, if that is news. Otherwise it is written with the next entries: nobody relies on it, and a write of its
    /// own would keep the disk from them.
    pub(crate) async fn mark_committed(&self) -> Result<(), LogError> {
        let Some(committed) = self.inner.lock().news() else { return Ok(()) };
        // In no log's name: one that is being closed refuses what is written in its own.
        self.shared.writer.queue(self.group, None, LogOp::Committed(Some(committed)), Done::Nobody).await
    }

    /// Whether the entries come from a leader elsewhere.
    fn follows(&self) -> bool {
        self.inner.lock().vote.is_some_and(|vote| vote.leader_id.voted_for != self.shared.node)
    }

    fn forget_from(&self, from: u64, last: Option<LogId>) {
        let mut inner = self.inner.lock();
        let before = inner.tail.bytes();
        inner.tail.cut(from);
        inner.sizes.cut(from);
        self.shared.budget.give(before - inner.tail.bytes());
        inner.last = last.or(inner.purged);
    }

    fn forget_upto(&self, upto: &LogId) {
        let mut inner = self.inner.lock();
        while let Some(bytes) = inner.tail.pop_below(upto.index + 1) {
            self.shared.budget.give(bytes);
        }
        inner.sizes.purge(upto.index);
        inner.purged = Some(*upto);
        if types::next_index(inner.last.as_ref()) <= upto.index {
            inner.last = Some(*upto);
        }
    }

    /// Entries of `range` as far as they exist, at most `bytes_max` of them and at least one.
    async fn read(self: &Arc<Self>, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let stored = {
            let inner = self.inner.lock();
            let end = range.end.min(types::next_index(inner.last.as_ref()));
            if range.start >= end {
                return Ok(Vec::new());
            }
            let range = range.start..end;
            if let Some(entries) = inner.tail.read(&range, bytes_max) {
                return Ok(entries);
            }
            range.start..inner.tail.first().map_or(end, |first| first.min(end))
        };
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.shared.engine.entries(log.group, stored, bytes_max))
            .await
            .map_err(|error| LogError::Engine { action: "read", reason: error.to_string() })?
    }

    /// The same, for those to whom a missing first entry means that the log is damaged.
    async fn read_from(self: &Arc<Self>, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let index = range.start;
        let entries = self.read(range, bytes_max).await?;
        match entries.first() {
            Some(first) if first.log_id.index == index => Ok(entries),
            None if index >= types::next_index(self.last().as_ref()) => Ok(entries),
            _ => Err(LogError::Hole { group: self.group, index }),
        }
    }

    /// All entries of `range` that exist.
    async fn read_all(self: &Arc<Self>, range: Range<u64>) -> Result<Vec<Entry>, LogError> {
        let mut all = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let entries = self.read(start..range.end, usize::MAX).await?;
            let next = match entries.last() {
                Some(last) => last.log_id.index + 1,
                // The log may begin later than asked for, and be all in memory.
                None => match self.inner.lock().tail.first() {
                    Some(first) if first > start => first,
                    _ => break,
                },
            };
            all.extend(entries);
            start = next;
        }
        Ok(all)
    }
}

impl Drop for GroupLog {
    fn drop(&mut self) {
        self.shared.budget.give(self.inner.get_mut().tail.bytes());
    }
}

/// A handle to a group's log: what openraft writes to and reads from.
#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Arc<GroupLog>);

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.0.read_all(bounds(&range)).await?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.inner.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.0.read_from(start..end, self.0.shared.append_bytes_max).await?)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let log = self.0.clone();
        let chunks = futures::stream::try_unfold(bounds(&range), move |range| {
            let log = log.clone();
            async move {
                if range.is_empty() {
                    return Ok(None);
                }
                let entries = log.read_from(range.clone(), log.shared.apply_bytes_max).await?;
                let Some(last) = entries.last() else {
                    return Ok(None);
                };
                let rest = last.log_id.index + 1..range.end;
                let entries = futures::stream::iter(entries.into_iter().map(Ok::<_, io::Error>));
                Ok::<_, io::Error>(Some((entries, rest)))
            }
        });
        futures::TryStreamExt::try_flatten(chunks)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let inner = self.0.inner.lock();
        Ok(LogState { last_purged_log_id: inner.purged, last_log_id: inner.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let log = &self.0;
        log.shared.writer.write(log.group, Some(log.clone()), LogOp::Vote(*vote)).await?;
        log.inner.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.0.inner.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        // A marker may have outlived entries that were never synced: it says no more than the log can show.
        let inner = self.0.inner.lock();
        Ok(inner.committed.filter(|committed| Some(*committed) <= inner.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let Some(last) = entries.last() else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let next = last.log_id.index + 1;
        let log = &self.0;
        log.remember(&entries)?;
        log.shared.budget.make_room(log);
        let op = LogOp::Append { entries, committed: log.inner.lock().news() };
        let done = Done::Appended { next, callback };
        // A leader's followers get the entries once they are queued here; a follower has nothing to do until they are written.
        let writer = &log.shared.writer;
        if log.follows() {
            writer.write_here(log.group, Some(log.clone()), op, done).await?;
        } else {
            writer.queue(log.group, Some(log.clone()), op, done).await?;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let log = &self.0;
        let from = types::next_index(last_log_id.as_ref());
        if log.last().is_none_or(|last| last.index < from) {
            return Ok(());
        }
        log.forget_from(from, last_log_id);
        let op = LogOp::Truncate { from };
        log.shared.writer.write(log.group, Some(log.clone()), op).await?;
        // Only now: the entries before the cut stay as synced as they were.
        log.retreat_synced(from);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let log = &self.0;
        let group = log.group;
        let store = log.shared.flushed.upgrade().ok_or(LogError::Closed)?;
        let flushed = tokio::task::spawn_blocking(move || store.flushed(group)).await.map_err(io::Error::other)??;
        if flushed < Some(upto.index) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: purge up to {} but the state is on disk up to {flushed:?}", log.group, upto.index),
            ));
        }
        log.forget_upto(&upto);
        log.advance_synced(upto.index + 1);
        log.shared.writer.queue(log.group, Some(log.clone()), LogOp::Purge { upto }, Done::Nobody).await?;
        Ok(())
    }
}
