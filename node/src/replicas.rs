//! This node's replicas, as the services see them: consensus in their words, and rows to read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::Clock;
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb::{self, answer, fault::Fault, query};
use postrider_api::version;
use postrider_raft::{GroupId, GroupStatus, Host, Proposed, state_prefix};
use postrider_shard::key::Key;
use postrider_shard::store::{Reader, RocksReader};
use postrider_shard::{Broken, QueryError, Standing};
use prost::Message;
use rocksdb::{DB, Snapshot};
use tokio::sync::watch;

use crate::budget::{self, INLINE_KEYS_PASSED_OVER_MAX};
use crate::fault;
use crate::machine::Machines;
use crate::node::StartError;
use crate::scan::{self, Place, ScanReader, Scans};

/// A read that waits longer for a quorum than this is told that there is none: callers have other replicas to ask.
const BARRIER: Duration = Duration::from_millis(1200);
/// A leader that has heard no quorum for this long is cut off: reads are refused at once, not after a wait each.
const CUT_OFF_MS: u64 = 2000;

pub(crate) fn group(shard: ShardId) -> GroupId {
    GroupId(shard.0)
}

/// Since when this node leads a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lead {
    pub(crate) term: u64,
    /// On the node's clock.
    pub(crate) since: Duration,
    /// The same as wall time, milliseconds.
    pub(crate) since_ms: i64,
}

/// All replicas of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Replicas {
    pub(crate) host: Host,
    pub(crate) db: Arc<DB>,
    pub(crate) machines: Arc<Machines>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scans: Arc<Scans>,
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

    /// Since when this node leads the shard; otherwise whom to ask.
    pub(crate) fn lead(&self, shard: ShardId) -> Result<Lead, pb::Fault> {
        let status = self.status(shard).ok_or_else(fault::unknown_group)?;
        if !status.leads() {
            return Err(fault::not_leader(Some(&status), status.leader));
        }
        let leads_for_ms = status.leads_for_ms.unwrap_or(0);
        Ok(Lead {
            term: status.term,
            since: self.clock.monotonic().saturating_sub(Duration::from_millis(leads_for_ms)),
            since_ms: self.clock.wall_ms().saturating_sub(i64::try_from(leads_for_ms).unwrap_or(i64::MAX)),
        })
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

    /// Answers a query, where it is called if it is short, otherwise on a thread of its own and in one of few places.
    ///
    /// # Errors
    /// What is wrong with the query or the rows; "busy" where too many large reads run, or this one goes over what any may take.
    pub(crate) async fn answer(&self, shard: ShardId, query: pb::Query) -> Result<pb::Answer, pb::Fault> {
        let now_ms = self.clock.wall_ms();
        let short = self.read(shard, |rows| {
            let rows = rows.passing_over(INLINE_KEYS_PASSED_OVER_MAX);
            budget::within(&rows, budget::INLINE, |rows| postrider_shard::query(shard, rows, now_ms, &query))
        });
        if let Some(answer) = short {
            return answer.map_err(fault::of_query);
        }
        metrics::counter!("postrider_node_large_reads_total").increment(1);
        let place = self.scans.large().await?;
        let read = move |rows: &ScanReader<'_>| {
            budget::within(rows, budget::LARGE, |rows| postrider_shard::query(shard, rows, now_ms, &query))
        };
        match self.scan(shard, place, read).await? {
            Some(answer) => answer.map_err(fault::of_query),
            None => {
                tracing::warn!(shard = shard.0, "a read was given up: it takes more than any may");
                Err(fault::busy())
            }
        }
    }

    /// Reads many rows on a thread of its own, in a place that [`Self::scans`] has given.
    pub(crate) async fn scan<T: Send + 'static>(
        &self,
        shard: ShardId,
        place: Place,
        read: impl FnOnce(&ScanReader<'_>) -> T + Send + 'static,
    ) -> Result<T, pb::Fault> {
        let db = self.db.clone();
        let scanned = scan::on_thread(move |gone| {
            let read = read_snapshot(&db.snapshot(), shard, |rows| read(&ScanReader::new(*rows, gone)));
            drop(place);
            read
        });
        scanned.await.ok_or_else(|| fault::fault(Fault::Unknown(pb::Unknown {})))
    }

    /// Refuses to go on with rows that a newer build has begun to write.
    pub(crate) fn check_versions(&self) -> Result<(), StartError> {
        for group in self.host.groups() {
            let shard = ShardId(group.0);
            // Anything else that is wrong with it stops this replica alone, and says so there.
            if let Err(QueryError::Broken(source @ Broken::Newer { .. })) = self.record(shard) {
                return Err(StartError::Newer { shard: shard.0, source });
            }
        }
        Ok(())
    }

    /// Whether nobody else votes in the shard's group.
    pub(crate) fn votes_alone(&self, shard: ShardId) -> bool {
        self.status(shard).is_some_and(|status| status.leads() && status.voters.len() == 1)
    }

    /// The shard's own record; empty where it has no rows yet.
    fn record(&self, shard: ShardId) -> Result<pb::ShardRecord, QueryError> {
        let query = pb::Query { query: Some(query::Query::GetShardStats(pb::GetShardStats {})) };
        let now_ms = self.clock.wall_ms();
        let answered = self.read(shard, |reader| postrider_shard::query(shard, reader, now_ms, &query));
        Ok(match answered?.answer {
            Some(answer::Answer::ShardStats(record)) => record,
            _ => pb::ShardRecord::default(),
        })
    }

    /// The time of the shard's newest command, milliseconds.
    pub(crate) fn now_ms(&self, shard: ShardId) -> Result<i64, pb::Fault> {
        self.record(shard).map(|record| record.now_ms).map_err(fault::of_query)
    }

    /// What a replica counts of itself; nothing where it cannot be read.
    pub(crate) fn counts(&self, shard: ShardId) -> pb::ShardRecord {
        self.record(shard).unwrap_or_else(|error| {
            tracing::error!(shard = shard.0, %error, "a shard's record cannot be read");
            pb::ShardRecord::default()
        })
    }

    /// The version that this node's rows of the shard are at.
    pub(crate) fn version(&self, shard: ShardId) -> Result<u32, QueryError> {
        Ok(version::or_initial(self.record(shard)?.version))
    }

    /// The outcome of the command's request, if it was carried out before (P-6). Call behind a barrier.
    pub(crate) fn first_outcome(
        &self,
        shard: ShardId,
        command: &pb::Command,
    ) -> Result<Option<pb::Outcome>, pb::Fault> {
        let Ok(request) = RequestId::try_from(&command.request) else { return Ok(None) };
        let row = self.read(shard, |reader| reader.get(&Key::Dedup(request).bytes()));
        let Some(row) = row.map_err(|error| fault::corrupt(&error))? else { return Ok(None) };
        let record = pb::DedupRecord::decode(row).map_err(|error| fault::corrupt(&error))?;
        if record.fingerprint != command.fingerprint || record.expires_at_ms <= self.clock.wall_ms() {
            return Ok(None);
        }
        pb::Outcome::decode(record.outcome).map(Some).map_err(|error| fault::corrupt(&error))
    }

    /// Whether `proof` names a session of its user that has not expired. Call behind a barrier.
    pub(crate) fn session_holds(&self, shard: ShardId, proof: &pb::SessionProof) -> Result<(), pb::Fault> {
        let now_ms = self.clock.wall_ms();
        match self.read(shard, |reader| postrider_shard::session_standing(reader, now_ms, proof)) {
            Ok(Standing::Valid) => Ok(()),
            Ok(Standing::Suspended) => Err(fault::suspended()),
            Ok(Standing::Nothing) => Err(fault::unauthenticated()),
            Err(error) => Err(fault::corrupt(&error)),
        }
    }
}

pub(crate) fn read_snapshot<T>(snapshot: &Snapshot<'_>, shard: ShardId, read: impl FnOnce(&RocksReader<'_>) -> T) -> T {
    read(&RocksReader::of_snapshot(snapshot, state_prefix(group(shard))))
}
