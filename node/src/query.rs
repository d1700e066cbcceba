//! Reads.

use std::time::Duration;

use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, fault::Fault, query, query_reply};
use postrider_raft::Role;

use crate::fault::{self, malformed};
use crate::propose::Proposer;
use crate::replicas::{Replicas, group};
use crate::scan::ScanReader;
use crate::subject;

/// A replica takes at most this long from being made to being open. Whoever is heard within it may not have been heard at all.
const OPENING: Duration = Duration::from_secs(1);

/// Answers queries.
#[derive(Clone)]
pub(crate) struct Querier {
    pub(crate) replicas: Replicas,
    pub(crate) proposer: Proposer,
}

struct Answered {
    answer: pb::Answer,
    stale_ms: Option<u64>,
    applied: u64,
}

impl Querier {
    pub(crate) async fn handle(&self, request: pb::QueryRequest) -> pb::QueryReply {
        let began = self.replicas.clock.monotonic();
        let answered = self.query(request).await;
        let took = self.replicas.clock.monotonic().saturating_sub(began);
        metrics::histogram!("postrider_node_query_seconds").record(took);
        match answered {
            Ok(answered) => pb::QueryReply {
                result: Some(query_reply::Result::Answer(answered.answer)),
                stale_ms: answered.stale_ms,
                applied: answered.applied,
            },
            Err(fault) => {
                fault::count("query", &fault);
                pb::QueryReply { result: Some(query_reply::Result::Fault(fault)), stale_ms: None, applied: 0 }
            }
        }
    }

    async fn query(&self, request: pb::QueryRequest) -> Result<Answered, pb::Fault> {
        let shard = ShardId(request.shard);
        let mode = request.mode();
        let query = request.query.ok_or_else(|| malformed("there is no query"))?;
        let (applied, stale_ms) = match mode {
            pb::ReadMode::Consistent => {
                self.replicas.leading(shard)?;
                self.proposer.check_epoch(shard, request.epoch)?;
                (self.replicas.barrier(shard).await?, None)
            }
            pb::ReadMode::Stale => self.stale(shard)?,
        };
        if let Some(proof) = &request.session {
            subject::check(proof, subject::of_query(&query))?;
            self.replicas.session_holds(shard, proof)?;
        }
        if request.min_modseq > 0
            && let Some(user) = subject::of_query(&query)
        {
            self.check_modseq(shard, subject::user(user)?, request.min_modseq)?;
        }
        let answer = self.read(shard, query).await?;
        Ok(Answered { answer, stale_ms, applied })
    }

    async fn read(&self, shard: ShardId, query: pb::Query) -> Result<pb::Answer, pb::Fault> {
        if !reads_the_whole_shard(&query) {
            return self.replicas.answer(shard, query).await;
        }
        let now_ms = self.replicas.clock.wall_ms();
        let place = self.replicas.scans.search()?;
        let read = move |reader: &ScanReader<'_>| postrider_shard::query(shard, reader, now_ms, &query);
        self.replicas.scan(shard, place, read).await?.map_err(fault::of_query)
    }

    /// How old this replica's rows may be, milliseconds, and its applied index.
    fn stale(&self, shard: ShardId) -> Result<(u64, Option<u64>), pb::Fault> {
        let status = self.replicas.status(shard).ok_or_else(fault::unknown_group)?;
        // A stopped replica may have stopped because its rows are wrong.
        if let Role::Stopped { reason } = status.role {
            return Err(fault::fault(Fault::Stopped(pb::StoppedReplica { reason })));
        }
        let applied = status.applied.ok_or_else(fault::unknown_group)?;
        let age = match status.role {
            Role::Leader => status.quorum_ack_age_ms,
            _ => self.heard(shard)?,
        };
        Ok((applied, Some(age.unwrap_or(u64::MAX))))
    }

    /// How long ago the replica heard a leader, milliseconds. It counts from when it was opened at the latest; one that has
    /// heard nobody since then may be as old as the newest command that it has.
    fn heard(&self, shard: ShardId) -> Result<Option<u64>, pb::Fault> {
        let machine = self.replicas.machines.get(shard).ok_or_else(fault::unknown_group)?;
        let Some(heard_ms) = self.replicas.host.heard_age_ms(group(shard)) else { return Ok(None) };
        if Duration::from_millis(heard_ms).saturating_add(OPENING) < machine.opened.elapsed() {
            return Ok(Some(heard_ms));
        }
        let newest_ms = self.replicas.now_ms(shard)?;
        let age_ms = self.replicas.clock.wall_ms().saturating_sub(newest_ms);
        Ok(Some(heard_ms.max(u64::try_from(age_ms).unwrap_or(0))))
    }

    fn check_modseq(&self, shard: ShardId, user: UserId, min_modseq: u64) -> Result<(), pb::Fault> {
        let modseq = self
            .replicas
            .read(shard, |reader| postrider_shard::modseq(reader, user))
            .map_err(|error| fault::corrupt(&error))?
            .map_or(0, |modseq| modseq.0);
        if modseq < min_modseq {
            return Err(fault::fault(Fault::Behind(pb::Behind { modseq })));
        }
        Ok(())
    }
}

/// Queries whose cost grows with the shard: an operator waits for them as long as they take.
fn reads_the_whole_shard(query: &pb::Query) -> bool {
    matches!(query.query, Some(query::Query::FindMessageId(_)))
}
