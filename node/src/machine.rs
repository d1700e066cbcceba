//! Where consensus and mail meet: the bytes of the log become commands, and what they write becomes rows.
//!
//! Invariant (P-12): apply sees the rows and the commands and nothing else. Everything that looks at the time or at who is
//! connected happens in [`Machine::applied`], after the rows are written.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use postrider_api::id::{EntryId, ShardId, UserId};
use postrider_api::pb::{self, outcome};
use postrider_api::trace::{self, Context, Kind};
use postrider_raft::{Committed, GroupId, Machine, MachineError, MachineFactory, state_prefix};
use postrider_shard::store::{PREFIX_BYTES, RocksReader, Txn};
use prost::Message;
use rocksdb::{DB, WriteBatch};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::follow::Follow;
use crate::hub::Hub;
use crate::trail::Trail;

/// One shard's state machine on this node.
pub(crate) struct ShardMachine {
    shard: ShardId,
    prefix: [u8; PREFIX_BYTES],
    hub: Arc<Hub>,
    trail: Arc<Trail>,
    follow: Follow,
    map_generation: watch::Sender<u64>,
    deletions: Arc<Notify>,
    /// What the batches since the last `applied` have touched; bounded by the commands of those batches.
    effects: Mutex<Effects>,
    progress: Mutex<Progress>,
    /// When this replica was opened.
    pub(crate) opened: Instant,
    /// Wakes who waits for a queue entry to become due, once something about the queue has changed.
    pub(crate) queue: Notify,
}

/// How far the rows are, and whether they are changing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Rises with each batch, so that two moments can be told apart.
    batches: u64,
    writing: bool,
    /// The last index that was applied.
    pub(crate) index: u64,
}

#[derive(Default)]
struct Effects {
    touched: Vec<(UserId, Option<Context>)>,
    traced: Vec<Traced>,
    queue: bool,
    map: bool,
    deletions: bool,
    changes: bool,
}

/// A command of a trace that is being applied. Its time is measured around apply, which knows nothing of it (P-12).
struct Traced {
    context: Context,
    index: u64,
    began: std::time::Instant,
}

impl Traced {
    fn of(committed: &Committed, command: &pb::Command) -> Option<Self> {
        if !trace::is_on() {
            return None;
        }
        let context = Context::from_bytes(&command.trace)?;
        Some(Self { context, index: committed.index, began: std::time::Instant::now() })
    }

    /// The rows are written.
    fn ends(self, shard: ShardId) {
        let mut span = trace::remote(Some(self.context), "apply", Kind::Internal).since(self.began);
        span.set("postrider.shard", shard.0);
        span.set("postrider.index", self.index);
    }
}

/// The entry that waits in the queue by a command, if it made one.
fn entry_of(outcome: &pb::Outcome) -> Option<EntryId> {
    let entry = match &outcome.result {
        Some(outcome::Result::Accepted(accepted)) => accepted.entry,
        Some(outcome::Result::Sent(sent)) => sent.entry,
        _ => 0,
    };
    (entry != 0).then_some(EntryId(entry))
}

impl ShardMachine {
    /// A moment at which no batch is on its way; `None` while one is. The same before and after a snapshot was taken: the
    /// snapshot holds exactly the commands up to its index.
    pub(crate) fn resting(&self) -> Option<Progress> {
        Some(*self.progress.lock()).filter(|progress| !progress.writing)
    }

    fn rest_at(&self, index: u64) {
        let mut progress = self.progress.lock();
        *progress = Progress { batches: progress.batches + 1, writing: false, index };
    }

    fn writes(&self, db: &DB, batch: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        let reader = RocksReader::new(db, self.prefix);
        let mut txn = Txn::new(&reader);
        let mut replies = Vec::with_capacity(commands.len());
        let mut effects = self.effects.lock();
        for committed in commands {
            let stop = |error: &dyn std::error::Error| {
                MachineError(format!("shard {}, index {}: {error}", self.shard, committed.index))
            };
            // The command's texts and bodies stay slices of the log entry's bytes.
            let command = pb::Command::decode(committed.payload.clone()).map_err(|error| stop(&error))?;
            let traced = Traced::of(committed, &command);
            let applied = postrider_shard::apply(self.shard, &mut txn, committed.index, &command)
                .map_err(|error| stop(&error))?;
            let context = traced.as_ref().map(|traced| traced.context);
            if let (Some(context), Some(entry)) = (context, entry_of(&applied.outcome)) {
                self.trail.remember(self.shard, entry, context);
            }
            effects.traced.extend(traced);
            effects.touched.extend(applied.touched.into_iter().map(|(user, _)| (user, context)));
            effects.queue |= applied.queue_due.is_some();
            effects.map |= applied.map_changed;
            effects.deletions |= applied.deletions;
            effects.changes |= applied.changes > 0;
            replies.push(applied.outcome.encode_to_vec().into());
        }
        let mut prefixed = Vec::with_capacity(64);
        for (key, value) in txn.into_writes() {
            prefixed.clear();
            prefixed.extend_from_slice(&self.prefix);
            prefixed.extend_from_slice(key.as_ref());
            match value {
                Some(value) => batch.put(&prefixed, value),
                None => batch.delete(&prefixed),
            }
        }
        Ok(replies)
    }

    fn map_may_differ(&self) {
        if self.shard == ShardId::PLACEMENT {
            self.map_generation.send_modify(|generation| *generation += 1);
        }
    }
}

impl Machine for ShardMachine {
    fn apply(&self, db: &DB, batch: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        self.progress.lock().writing = true;
        self.writes(db, batch, commands)
    }

    fn applied(&self, index: u64) {
        self.rest_at(index);
        let effects = std::mem::take(&mut *self.effects.lock());
        for (user, trace) in effects.touched {
            self.hub.wake(self.shard, user, trace);
        }
        for traced in effects.traced {
            traced.ends(self.shard);
        }
        if effects.queue {
            self.queue.notify_waiters();
        }
        if effects.map {
            self.map_may_differ();
        }
        if effects.deletions {
            self.deletions.notify_one();
        }
        if effects.changes {
            self.follow.changed(self.shard);
        }
    }

    fn restored(&self, applied: u64) {
        *self.effects.lock() = Effects::default();
        self.rest_at(applied);
        self.hub.wake_shard(self.shard);
        self.queue.notify_waiters();
        self.map_may_differ();
        self.follow.restored(self.shard);
    }
}

/// The machines of this node's replicas.
pub(crate) struct Machines {
    hub: Arc<Hub>,
    /// Where entries of queues stand in traces.
    pub(crate) trail: Arc<Trail>,
    follow: Follow,
    by_shard: RwLock<HashMap<ShardId, Arc<ShardMachine>>>,
    map_generation: watch::Sender<u64>,
    /// Rings when an account begins to be deleted.
    pub(crate) deletions: Arc<Notify>,
}

impl Machines {
    pub(crate) fn new(hub: Arc<Hub>, follow: Follow) -> Self {
        let (trail, by_shard, deletions) = (Arc::default(), RwLock::default(), Arc::default());
        Self { hub, trail, follow, by_shard, map_generation: watch::Sender::new(0), deletions }
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<Arc<ShardMachine>> {
        self.by_shard.read().get(&shard).cloned()
    }

    /// The replica was removed.
    pub(crate) fn forget(&self, shard: ShardId) {
        self.by_shard.write().remove(&shard);
        self.follow.removed(shard);
        if shard == ShardId::PLACEMENT {
            self.map_generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Rises whenever this node's own placement replica may hold another map than before.
    pub(crate) fn map_generation(&self) -> watch::Receiver<u64> {
        self.map_generation.subscribe()
    }
}

impl MachineFactory for Machines {
    fn machine(&self, group: GroupId) -> Arc<dyn Machine> {
        let shard = ShardId(group.0);
        let machine = Arc::new(ShardMachine {
            shard,
            prefix: state_prefix(group),
            hub: self.hub.clone(),
            trail: self.trail.clone(),
            follow: self.follow.clone(),
            map_generation: self.map_generation.clone(),
            deletions: self.deletions.clone(),
            effects: Mutex::default(),
            progress: Mutex::default(),
            opened: Instant::now(),
            queue: Notify::new(),
        });
        self.by_shard.write().insert(shard, machine.clone());
        machine
    }
}
