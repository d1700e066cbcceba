//! Applies one group's entries to the state database, as openraft wants it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::storage::{ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use parking_lot::{Mutex, MutexGuard};
use rocksdb::WriteBatch;

use crate::blocking::{self, Threads};
use crate::faults::{FaultPoint, Faults};
use crate::ids::GroupId;
use crate::log::engine::LogError;
use crate::log::store::GroupLog;
use crate::machine::{Committed, Machine};
use crate::snapshot::install::Installer;
use crate::snapshot::{Outgoing, SnapshotData};
use crate::state::key;
use crate::state::store::{StateStore, encode_meta};
use crate::stats::Counters;
use crate::types::{self, Entry, LogId, Payload, Reply, SnapshotMeta, StoredMembership, Types};

/// Decides which entries may be applied, and when.
pub(crate) trait EntryGate: Send + Sync + 'static {
    /// Whether the entry at `index` may be applied to a state that has `applied`. Without gaps is the only way, except
    /// for openraft's conformance suite, which leaves some.
    fn follows(&self, applied: Option<u64>, index: u64) -> bool;

    /// Returns once the entry at `index` is synced.
    fn wait(&self, index: u64) -> BoxFuture<'_, Result<(), LogError>>;
}

impl EntryGate for GroupLog {
    fn follows(&self, applied: Option<u64>, index: u64) -> bool {
        index == applied.map_or(0, |applied| applied + 1)
    }

    fn wait(&self, index: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(self.wait_synced(index))
    }
}

/// What all groups' state machines share.
#[derive(Clone)]
pub(crate) struct StateShared {
    pub(crate) store: Arc<StateStore>,
    pub(crate) installer: Arc<Installer>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) faults: Arc<dyn Faults>,
    pub(crate) threads: Threads,
    /// Entries applied in one write, in bytes.
    pub(crate) apply_bytes_max: usize,
}

/// How far a replica has applied, for those who read its state, and whether it can go on at all.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Index + 1; 0 is "nothing".
    next: AtomicU64,
    /// Why this replica can never apply what comes next.
    broken: OnceLock<String>,
    /// Set when another instance takes over the group's rows. Held while they are written.
    retired: Arc<Mutex<bool>>,
}

/// This instance of consensus has been replaced, or its replica removed.
#[derive(Debug, thiserror::Error)]
#[error("another instance has taken over")]
struct Retired;

impl Applied {
    pub(crate) fn get(&self) -> Option<u64> {
        self.next.load(Ordering::Acquire).checked_sub(1)
    }

    fn set(&self, index: Option<u64>) {
        self.next.store(index.map_or(0, |index| index + 1), Ordering::Release);
    }

    /// Ends what this instance may write: when this returns, nothing of it is under way and nothing will come. openraft's
    /// worker outlives the rest of its instance and goes on with what is queued, so an end of the instance is not enough.
    /// Blocks while a write is under way.
    pub(crate) fn retire(&self) {
        *self.retired.lock() = true;
    }

    /// Why opening the replica again would not help, if so.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.get().cloned()
    }

    /// Remembers errors that no second attempt mends: damage, and broken invariants.
    fn judge<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() == io::ErrorKind::InvalidData
        {
            // The first reason is the one that counts.
            self.broken.get_or_init(|| error.to_string());
        }
        result
    }
}

/// The right to change a group's rows, for as long as the guard is held.
pub(crate) fn enter(retired: &Mutex<bool>) -> io::Result<MutexGuard<'_, bool>> {
    let guard = retired.lock();
    if *guard { Err(io::Error::other(Retired)) } else { Ok(guard) }
}

/// One group's state machine.
pub(crate) struct StateAdapter {
    group: GroupId,
    shared: StateShared,
    machine: Arc<dyn Machine>,
    gate: Arc<dyn EntryGate>,
    applied: Arc<Applied>,
    /// What the database holds, memory included.
    meta: SnapshotMeta,
}

type Item = (Entry, Option<ApplyResponder<Types>>);

/// Rows of a command beside those that hold what it brings, roughly.
const ROWS_BYTES: usize = 512;
/// Commands that bring no more than this are carried out on the thread that they came on, if it can be spared: memory is written, and what is
/// read is mostly there, so that it takes less than going to another thread and back.
const HERE_BYTES_MAX: usize = 1 << 20;

impl StateAdapter {
    pub(crate) fn open(
        group: GroupId,
        shared: StateShared,
        machine: Arc<dyn Machine>,
        gate: Arc<dyn EntryGate>,
        applied: Arc<Applied>,
    ) -> io::Result<Self> {
        let meta = shared.store.meta(group)?.unwrap_or_default();
        applied.set(meta.last_log_id.map(|id| id.index));
        Ok(Self { group, shared, machine, gate, applied, meta })
    }

    /// The group and what its machine reads from; for sending its state.
    fn outgoing(&self) -> Outgoing {
        Outgoing::new(self.group, self.shared.store.clone())
    }

    async fn apply_chunk(&mut self, items: Vec<Item>) -> io::Result<()> {
        let Some(last) = items.last().map(|(entry, _)| entry.log_id) else {
            return Ok(());
        };
        self.applied.judge(self.check_order(&items))?;
        self.gate.wait(last.index).await?;

        let mut commands = Vec::with_capacity(items.len());
        let mut responders = Vec::with_capacity(items.len());
        let entries = items.len() as u64;
        let mut membership = None;
        for (entry, responder) in items {
            let index = entry.log_id.index;
            let term = entry.log_id.leader_id.term;
            match entry.payload {
                Payload::Blank => responders.push((responder, false)),
                Payload::Normal(command) => {
                    commands.push(Committed { index, term, payload: command.0 });
                    responders.push((responder, true));
                }
                Payload::Membership(new) => {
                    membership = Some(StoredMembership::new(Some(entry.log_id), new));
                    responders.push((responder, false));
                }
            }
        }
        let meta = SnapshotMeta {
            last_log_id: Some(last),
            last_membership: membership.unwrap_or_else(|| self.meta.last_membership.clone()),
        };
        let written = self.write(commands, meta, entries).await;
        let replies = self.applied.judge(written)?;
        self.machine.applied(last.index);
        answer(responders, replies);
        Ok(())
    }

    /// Entries come in order and without gap: a border that is worth guarding.
    fn check_order(&self, items: &[Item]) -> io::Result<()> {
        let mut applied = self.meta.last_log_id.map(|id| id.index);
        for (entry, _) in items {
            let index = entry.log_id.index;
            if !self.gate.follows(applied, index) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{}: asked to apply entry {index} after {applied:?}", self.group),
                ));
            }
            applied = Some(index);
        }
        Ok(())
    }

    async fn write(&mut self, commands: Vec<Committed>, meta: SnapshotMeta, entries: u64) -> io::Result<Vec<Bytes>> {
        let panicked = |error: blocking::Panicked| io::Error::new(io::ErrorKind::InvalidData, format!("apply {error}"));
        let write = Write {
            group: self.group,
            shared: self.shared.clone(),
            machine: self.machine.clone(),
            retired: self.applied.retired.clone(),
            row: encode_meta(&meta),
            commands,
            entries,
        };
        let held = if write.bytes() <= HERE_BYTES_MAX { self.shared.threads.hold_soon().await } else { None };
        let written = match held {
            Some(_held) => blocking::caught(|| write.run(Patience::None)).map_err(panicked)??,
            None => None,
        };
        let written = match written {
            Some(replies) => Some(replies),
            None => blocking::here(move || write.run(Patience::All)).await.map_err(panicked)??,
        };
        let replies = written.ok_or_else(|| io::Error::other("the state was not written"))?;
        self.applied.set(meta.last_log_id.map(|id| id.index));
        self.meta = meta;
        Ok(replies)
    }
}

/// Whether a write waits for flushes and compactions that are behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    None,
    All,
}

/// Commands on their way into the state.
struct Write {
    group: GroupId,
    shared: StateShared,
    machine: Arc<dyn Machine>,
    retired: Arc<Mutex<bool>>,
    /// How far the state is with them.
    row: Vec<u8>,
    commands: Vec<Committed>,
    entries: u64,
}

impl Write {
    /// What it writes, roughly: mostly what the commands bring.
    fn bytes(&self) -> usize {
        self.commands.iter().map(|command| command.payload.len() + ROWS_BYTES).sum::<usize>() + self.row.len()
    }

    /// Carries the commands out; `None` when that needs more patience, and nothing was written.
    fn run(&self, patience: Patience) -> io::Result<Option<Vec<Bytes>>> {
        let shared = &self.shared;
        shared.faults.reach(FaultPoint::StateBeforeApply).map_err(io::Error::other)?;
        // The batch does not grow through all sizes up to that.
        let mut batch = WriteBatch::with_capacity_bytes(self.bytes());
        let replies = if self.commands.is_empty() {
            Vec::new()
        } else {
            self.machine
                .apply(shared.store.db(), &mut batch, &self.commands)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
        };
        if replies.len() != self.commands.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the machine gave another number of replies than it got commands",
            ));
        }
        check_keys(self.group, &batch)?;
        batch.put(key::meta(self.group), &self.row);
        let entered = enter(&self.retired)?;
        match patience {
            Patience::All => shared.store.write(batch)?,
            Patience::None if shared.store.write_now(batch)? => {}
            Patience::None => return Ok(None),
        }
        drop(entered);
        shared.counters.applied(self.entries);
        shared.faults.reach(FaultPoint::StateAfterApply).map_err(io::Error::other)?;
        Ok(Some(replies))
    }
}

/// A machine writes below its own prefix and nowhere else: one group cannot touch another's rows.
fn check_keys(group: GroupId, batch: &WriteBatch) -> io::Result<()> {
    struct Check {
        prefix: [u8; 5],
        ok: bool,
    }
    impl rocksdb::WriteBatchIterator for Check {
        fn put(&mut self, key: &[u8], _: &[u8]) {
            self.ok &= key.starts_with(&self.prefix);
        }

        fn delete(&mut self, key: &[u8]) {
            self.ok &= key.starts_with(&self.prefix);
        }
    }
    let mut check = Check { prefix: key::state_prefix(group), ok: true };
    batch.iterate(&mut check);
    if check.ok {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("the machine of {group} wrote outside its prefix")))
    }
}

fn answer(responders: Vec<(Option<ApplyResponder<Types>>, bool)>, replies: Vec<Bytes>) {
    let mut replies = replies.into_iter();
    for (responder, is_command) in responders {
        let reply = if is_command { replies.next().unwrap_or_default() } else { Bytes::new() };
        if let Some(responder) = responder {
            responder.send(Reply(reply));
        }
    }
}

impl RaftStateMachine<Types> for StateAdapter {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = FlushedMeta;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.meta.last_log_id, self.meta.last_membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while let Some((entry, responder)) = self.applied.judge(entries.try_next().await)? {
            bytes += types::weight(&entry);
            chunk.push((entry, responder));
            if bytes >= self.shared.apply_bytes_max {
                self.apply_chunk(std::mem::take(&mut chunk)).await?;
                bytes = 0;
            }
        }
        self.apply_chunk(chunk).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<FlushedMeta> {
        Some(FlushedMeta { group: self.group, store: self.shared.store.clone(), flush: force })
    }

    async fn get_snapshot_builder(&mut self) -> FlushedMeta {
        FlushedMeta { group: self.group, store: self.shared.store.clone(), flush: true }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> Result<(), io::Error> {
        let retired = self.applied.retired.clone();
        let installed = self.shared.installer.install(self.group, snapshot, retired).await;
        let installed = self.applied.judge(installed)?;
        if installed.last_log_id < meta.last_log_id {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: a snapshot of {:?} holds only {:?}", self.group, meta.last_log_id, installed.last_log_id),
            ));
        }
        let index = installed.last_log_id.map(|id| id.index);
        self.meta = installed;
        self.applied.set(index);
        self.machine.restored(index.unwrap_or(0));
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<types::Term, crate::NodeId, crate::Member, SnapshotData>>, io::Error> {
        if self.meta.last_log_id.is_none() {
            return Ok(None);
        }
        Ok(Some(Snapshot { meta: self.meta.clone(), snapshot: SnapshotData::Outgoing(self.outgoing()) }))
    }
}

/// "Builds a snapshot": says how far the state is on disk already. Nothing is copied.
pub(crate) struct FlushedMeta {
    group: GroupId,
    store: Arc<StateStore>,
    /// openraft must have one now.
    flush: bool,
}

impl RaftSnapshotBuilder<Types> for FlushedMeta {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<Snapshot<types::Term, crate::NodeId, crate::Member, SnapshotData>, io::Error> {
        let store = self.store.clone();
        let (group, flush) = (self.group, self.flush);
        let meta = tokio::task::spawn_blocking(move || {
            if flush {
                store.flush()?;
            }
            store.flushed_meta(group)
        })
        .await
        .map_err(io::Error::other)??;
        Ok(Snapshot {
            meta: meta.unwrap_or_default(),
            snapshot: SnapshotData::Outgoing(Outgoing::new(self.group, self.store.clone())),
        })
    }
}
