//! openraft's own conformance suite for storage, on the log of segments and the RocksDB state.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use rocksdb::{DB, WriteBatch};
use tempfile::TempDir;

use crate::blocking::Threads;
use crate::faults::NoFaults;
use crate::ids::{GroupId, NodeId};
use crate::log::disk::Directory;
use crate::log::engine::LogError;
use crate::log::segment::{SegmentLimits, SegmentLog};
use crate::log::store::{FlushedIndex, GroupLog, LogShared, LogStore};
use crate::log::tail::TailBudget;
use crate::log::writer::Writer;
use crate::machine::{Committed, Machine, MachineError};
use crate::options::Limits;
use crate::snapshot::install::Installer;
use crate::snapshot::spool::Spool;
use crate::state::machine::{Applied, EntryGate, StateAdapter, StateShared};
use crate::state::store::StateStore;
use crate::stats::Counters;
use crate::types::Types;

/// The suite applies entries that no log holds, and not all of them.
struct OpenGate;

impl EntryGate for OpenGate {
    fn follows(&self, _: Option<u64>, _: u64) -> bool {
        true
    }

    fn wait(&self, _: u64) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The suite purges entries that no state contains.
struct AllFlushed;

impl FlushedIndex for AllFlushed {
    fn flushed(&self, _: GroupId) -> io::Result<Option<u64>> {
        Ok(Some(u64::MAX))
    }
}

struct NoMachine;

impl Machine for NoMachine {
    fn apply(&self, _: &DB, _: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        Ok(vec![Bytes::new(); commands.len()])
    }
    fn applied(&self, _: u64) {}
    fn restored(&self, _: u64) {}
}

struct Builder {
    tail_bytes_max: usize,
    flushed: Arc<dyn FlushedIndex>,
}

impl StoreBuilder<Types, LogStore, StateAdapter, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateAdapter), StorageError<Types>> {
        let group = GroupId(7);
        let limits = Limits::default();
        let dir = tempfile::tempdir().expect("a directory");
        let counters = Arc::new(Counters::default());
        std::fs::create_dir(dir.path().join("log")).expect("a directory");
        let disk = Directory::open(&dir.path().join("log")).expect("a directory");
        let sizes = SegmentLimits { segment_bytes: 64 << 10, log_bytes: 1 << 20 };
        let engine = Arc::new(SegmentLog::open(Arc::new(disk), sizes).expect("a log"));
        let store = Arc::new(StateStore::open(&dir.path().join("state"), &limits).expect("a state"));
        let writer =
            Writer::start(engine.clone(), counters.clone(), Arc::new(NoFaults), Threads::watch().expect("watched"))
                .expect("a writer");
        let log = LogShared {
            node: NodeId(1),
            engine,
            writer: writer.clone(),
            budget: Arc::new(TailBudget::new(self.tail_bytes_max)),
            flushed: Arc::downgrade(&self.flushed),
            append_bytes_max: limits.append_bytes_max,
            apply_bytes_max: limits.apply_bytes_max,
        };
        let installer = Installer {
            store: store.clone(),
            writer,
            spool: Spool {
                dir: dir.path().join("spool"),
                file_bytes: limits.snapshot_file_bytes,
                faults: Arc::new(NoFaults),
            },
            faults: Arc::new(NoFaults),
            block_bytes: limits.snapshot_block_bytes,
            serial: AtomicU64::new(0),
        };
        let shared = StateShared {
            store,
            installer: Arc::new(installer),
            counters,
            faults: Arc::new(NoFaults),
            threads: Threads::watch().expect("watched"),
            apply_bytes_max: limits.apply_bytes_max,
        };
        let log = LogStore(GroupLog::open(group, log).expect("a group's log"));
        let machine = Arc::new(NoMachine);
        let state = StateAdapter::open(group, shared, machine, Arc::new(OpenGate), Arc::new(Applied::default()))
            .expect("a group's state");
        Ok((dir, log, state))
    }
}

fn run(tail_bytes_max: usize) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime
        .block_on(Suite::test_all(Builder { tail_bytes_max, flushed: Arc::new(AllFlushed) }))
        .expect("openraft's suite");
}

#[test]
fn storage_conforms_with_entries_in_memory() {
    run(Limits::default().tail_bytes_max);
}

#[test]
fn storage_conforms_with_entries_read_from_disk() {
    run(0);
}
