//! This node's replicas, as the services see them: consensus in their words, and rows to read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::Clock;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, fault::Fault};
use postrider_raft::{GroupId, GroupStatus, Host, Proposed, state_prefix};
use postrider_shard::store::RocksReader;
use rocksdb::{DB, Snapshot};
use tokio::sync::{Semaphore, watch};

use crate::fault;
use crate::machine::Machines;

/// A read that waits longer for a quorum than this is told that there is none: callers have other replicas to ask.
const BARRIER: Duration = Duration::from_millis(1200);
/// A leader that has heard no quorum for this long is cut off: reads are refused at once, not after a wait each.
const CUT_OFF_MS: u64 = 2000;

pub(crate) fn group(shard: ShardId) -> GroupId {
    GroupId(shard.0)
}

/// All replicas of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replicas {
    pub(crate) host: Host,
    pub(crate) db: Arc<DB>,
    pub(crate) machines: Arc<Machines>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Scans of whole shards that may run at once: each takes a thread and reads much.
    pub(crate) scans: Arc<Semaphore>,
}

impl Replicas {
    pub(crate) fn status(&self, shard: ShardId) -> Option<GroupStatus> {
        self.host.status(group(shard))
    }

    pub(crate) fn watch(&self, shard: ShardId) -> Option<watch::Receiver<GroupStatus>> {
        self.host.watch(group(shard))
    }

    /// The term in which this node leads the shard; otherwise whom to ask.
    pub(crate) fn leading(&self, shard: ShardId) -> Result<u64, pb::Fault> {
        let status = self.status(shard).ok_or_else(fault::unknown_group)?;
        if status.leads() { Ok(status.term) } else { Err(fault::not_leader(Some(&status), status.leader)) }
    }

    /// Returns when reads of this node's rows are linearizable.
    pub(crate) async fn barrier(&self, shard: ShardId) -> Result<u64, pb::Fault> {
        let silence = self.status(shard).filter(GroupStatus::leads).and_then(|status| status.quorum_ack_age_ms);
        if silence.is_some_and(|silence| silence > CUT_OFF_MS) {
            return Err(fault::no_quorum());
        }
        match tokio::time::timeout(BARRIER, self.host.read_barrier(group(shard))).await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(error)) => Err(fault::of_read(error, self.status(shard).as_ref())),
            Err(_) => Err(fault::no_quorum()),
        }
    }

    /// Proposes an encoded command.
    pub(crate) async fn propose(&self, shard: ShardId, command: Bytes) -> Result<Proposed, pb::Fault> {
        self.host
            .propose(group(shard), command)
            .await
            .map_err(|error| fault::of_propose(error, self.status(shard).as_ref()))
    }

    /// Reads rows of one moment. Short reads only: it runs where it is called.
    pub(crate) fn read<T>(&self, shard: ShardId, read: impl FnOnce(&RocksReader<'_>) -> T) -> T {
        read_snapshot(&self.db.snapshot(), shard, read)
    }

    /// Reads many rows on a thread of its own; at most a few at once.
    pub(crate) async fn scan<T: Send + 'static>(
        &self,
        shard: ShardId,
        read: impl FnOnce(&RocksReader<'_>) -> T + Send + 'static,
    ) -> Result<T, pb::Fault> {
        let permit = self.scans.clone().acquire_owned().await.map_err(|_| fault::busy())?; // closed: shutting down
        let db = self.db.clone();
        let scan = tokio::task::spawn_blocking(move || {
            let read = read_snapshot(&db.snapshot(), shard, read);
            drop(permit);
            read
        });
        // The task ends early only when the process does.
        scan.await.map_err(|_| fault::fault(Fault::Unknown(pb::Unknown {})))
    }

    /// Whether `proof` names a session of its user that has not expired. Call behind a barrier.
    pub(crate) fn session_holds(&self, shard: ShardId, proof: &pb::SessionProof) -> Result<(), pb::Fault> {
        let valid = self.read(shard, |reader| postrider_shard::session_valid(reader, self.clock.wall_ms(), proof));
        match valid {
            Ok(true) => Ok(()),
            Ok(false) => Err(fault::unauthenticated()),
            Err(error) => Err(fault::corrupt(&error)),
        }
    }
}

pub(crate) fn read_snapshot<T>(snapshot: &Snapshot<'_>, shard: ShardId, read: impl FnOnce(&RocksReader<'_>) -> T) -> T {
    read(&RocksReader::of_snapshot(snapshot, state_prefix(group(shard))))
}
