//! Reads.

use std::time::Duration;

use postrider_api::id::{ShardId, UserId};
use postrider_api::pb::{self, answer, fault::Fault, query, query_reply};
use postrider_raft::Role;

use crate::fault::{self, malformed};
use crate::propose::Proposer;
use crate::replicas::{Replicas, group};
use crate::scan::ScanReader;
use crate::search::Search;
use crate::subject;

/// A replica takes at most this long from being made to being open. Whoever is heard within it may not have been heard at all.
const OPENING: Duration = Duration::from_secs(1);

/// Answers queries.
#[derive(Clone)]
pub(crate) struct Querier {
    pub(crate) replicas: Replicas,
    pub(crate) proposer: Proposer,
    pub(crate) search: Search,
}

struct Answered {
    answer: pb::Answer,
    stale_ms: Option<u64>,
    applied: u64,
    modseq: Option<u64>,
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
                modseq: answered.modseq,
            },
            Err(fault) => {
                fault::count("query", &fault);
                pb::QueryReply { result: Some(query_reply::Result::Fault(fault)), ..Default::default() }
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
        let asks = request.min_modseq > 0 || request.tell_modseq || request.unless_modseq.is_some();
        let mut modseq = None;
        if let Some(user) = subject::of_query(&query).filter(|_| asks) {
            // Before any row: who keeps an answer under it may be told of a change that he has seen, and misses none.
            modseq = self.modseq(shard, subject::user(user)?)?;
            let known = modseq.unwrap_or(0);
            if known < request.min_modseq {
                return Err(fault::fault(Fault::Behind(pb::Behind { modseq: known })));
            }
        }
        if modseq.is_some() && modseq == request.unless_modseq {
            metrics::counter!("postrider_node_unchanged_reads_total").increment(1);
            let answer = pb::Answer { answer: Some(answer::Answer::Unchanged(pb::Unchanged {})) };
            return Ok(Answered { answer, stale_ms, applied, modseq });
        }
        let answer = self.read(shard, query).await?;
        Ok(Answered { answer, stale_ms, applied, modseq })
    }

    async fn read(&self, shard: ShardId, query: pb::Query) -> Result<pb::Answer, pb::Fault> {
        if Search::answers(&query) {
            return self.search.answer(&self.replicas, shard, query).await;
        }
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

    /// `None`: there is no such mailbox here.
    fn modseq(&self, shard: ShardId, user: UserId) -> Result<Option<u64>, pb::Fault> {
        let modseq = self.replicas.read(shard, |reader| postrider_shard::modseq(reader, user));
        Ok(modseq.map_err(|error| fault::corrupt(&error))?.map(|modseq| modseq.0))
    }
}

/// Queries whose cost grows with the shard: an operator waits for them as long as they take.
fn reads_the_whole_shard(query: &pb::Query) -> bool {
    matches!(query.query, Some(query::Query::FindMessageId(_)))
}
