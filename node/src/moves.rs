//! Replicas move from node to node.
//!
//! Invariant: a move is recorded in placement before anything happens and forgotten there when everything has; each step in
//! between may be done again, so whoever leads the shard carries a move on from wherever it stands.
//!
//! Invariant: who is a member is decided in the group's log, and the map follows it. A move is given up only while the
//! source votes and the target does not; from the moment that a change of voters is in the log it can only go on, because
//! that change may be completed at any later time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, command::Op};
use postrider_raft::{GroupStatus, Member, MemberError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::fault;
use crate::map::{Map, MapView};
use crate::options::NodeTimings;
use crate::peers::Peers;
use crate::placement::{Placement, PlacementError};
use crate::replicas::{Replicas, group};

/// A learner that lacks at most this many entries votes next; the rest comes while the change is agreed on.
const LAG_MAX: u64 = 128;
/// The pause before a move is looked at again.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after a step has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// The source is asked this often to drop its replica; if it is gone for good, it drops it should it ever come back.
const REMOVALS_MAX: u32 = 3;

/// How long a leader may take to have agreed on what its log ends with.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Carries moves of the shards that this node leads.
#[derive(Clone)]
pub(crate) struct Mover {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) placement: Placement,
    pub(crate) timings: NodeTimings,
    /// The slowest link that a snapshot may take, bytes per second.
    pub(crate) link_bytes_per_s_min: u64,
    pub(crate) stop: CancellationToken,
    pub(crate) running: Arc<Mutex<HashSet<ShardId>>>,
}

#[derive(Debug, Error)]
enum MoveError {
    #[error("another node leads now")]
    NotLeader,
    #[error("placement knows of no such move any more")]
    NotRecorded,
    #[error("the new membership is not agreed on")]
    NotAgreed,
    #[error("node {0} is not in the shard map")]
    UnknownNode(u64),
    #[error("{what}: {status}")]
    Peer { what: &'static str, status: tonic::Status },
    #[error(transparent)]
    Member(#[from] MemberError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

/// How far a step has brought a move.
enum Progress {
    /// Over and recorded so.
    Finished,
    /// A step was done, or more entries have arrived; the number tells one state from another.
    At(u64),
    /// The target answers and gets the state as a whole, of which nothing shows before it is all there.
    Receiving,
}

impl Mover {
    /// Begins a move and waits for its end.
    pub(crate) async fn start(&self, shard: ShardId, from: NodeId, to: NodeId) -> pb::AdminReply {
        if let Err(fault) = self.replicas.leading(shard) {
            let error = "this node does not lead the shard".to_owned();
            return pb::AdminReply { ok: false, error, fault: Some(fault) };
        }
        match self.record_and_wait(shard, from, to).await {
            Ok(()) => pb::AdminReply { ok: true, ..Default::default() },
            Err(error) => pb::AdminReply { ok: false, error, fault: None },
        }
    }

    /// `Err`: a sentence for the operator.
    async fn record_and_wait(&self, shard: ShardId, from: NodeId, to: NodeId) -> Result<(), String> {
        let mut changes = self.map.changes();
        let record = Op::RecordMove(pb::RecordMove { shard: shard.0, from: from.0, to: to.0 });
        self.placement.propose(record).await.map_err(|error| error.to_string())?;
        let recorded = |map: &Option<Arc<MapView>>| map.as_ref().is_some_and(|map| map.running(shard).is_some());
        let moved = |map: &Option<Arc<MapView>>| map.as_ref().is_some_and(|map| has_moved(map, shard, from, to));
        let gone = async {
            // This node's map may be a moment behind what placement has agreed on, and may even skip the move as a whole.
            changes.wait_for(|map| recorded(map) || moved(map)).await?;
            self.resume();
            changes.wait_for(|map| !recorded(map)).await.map(|_| ())
        };
        tokio::select! {
            ended = gone => ended.map_err(|_| "the node is shutting down".to_owned())?,
            () = self.stop.cancelled() => return Err("the node is shutting down; the move goes on elsewhere".to_owned()),
        }
        if moved(&self.map.get()) {
            Ok(())
        } else {
            Err("the move was given up; the shard keeps its replicas".to_owned())
        }
    }

    /// Carries on every recorded move of a shard that this node leads, unless it is at it already.
    pub(crate) fn resume(&self) {
        let Some(map) = self.map.get() else { return };
        for recorded in &map.map.moves {
            let shard = ShardId(recorded.shard);
            if self.replicas.leading(shard).is_err() || !self.running.lock().insert(shard) {
                continue;
            }
            let (mover, recorded) = (self.clone(), *recorded);
            tokio::spawn(async move {
                tokio::select! {
                    () = mover.carry(recorded) => {}
                    () = mover.stop.cancelled() => {}
                }
                mover.running.lock().remove(&shard);
            });
        }
    }

    async fn carry(&self, recorded: pb::Move) {
        let shard = ShardId(recorded.shard);
        tracing::info!(shard = shard.0, from = recorded.from, to = recorded.to, "moving a replica");
        let mut stood = None;
        let mut since = self.replicas.clock.monotonic();
        loop {
            let mut patience = self.timings.move_patience;
            let pause = match self.step(&recorded).await {
                Ok(Progress::Finished) => {
                    tracing::info!(shard = shard.0, from = recorded.from, to = recorded.to, "a replica has moved");
                    return;
                }
                Ok(Progress::At(state)) => {
                    if stood != Some(state) {
                        stood = Some(state);
                        since = self.replicas.clock.monotonic();
                    }
                    PAUSE
                }
                Ok(Progress::Receiving) => {
                    patience = patience.saturating_add(self.time_of_snapshot(shard));
                    PAUSE
                }
                // Whoever leads now carries it on.
                Err(MoveError::NotLeader | MoveError::Member(MemberError::NotLeader { .. })) => return,
                Err(MoveError::NotRecorded) => {
                    tracing::info!(shard = shard.0, from = recorded.from, to = recorded.to, "a move was over already");
                    return;
                }
                Err(error) => {
                    tracing::warn!(shard = shard.0, %error, "a move does not get on; trying again");
                    PAUSE_AFTER_FAILURE
                }
            };
            if self.replicas.clock.monotonic().saturating_sub(since) > patience {
                let Some(status) = self.replicas.status(shard).filter(GroupStatus::leads) else { return };
                if may_give_up(&status.voters, &recorded) {
                    self.give_up(&recorded).await;
                    return;
                }
                tracing::error!(shard = shard.0, from = recorded.from, to = recorded.to, "a move does not end");
                since = self.replicas.clock.monotonic();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Does what comes next, whatever was done before and by whom.
    async fn step(&self, recorded: &pb::Move) -> Result<Progress, MoveError> {
        let shard = ShardId(recorded.shard);
        let (from, to) = (postrider_raft::NodeId(recorded.from), postrider_raft::NodeId(recorded.to));
        let status = self.replicas.status(shard).filter(GroupStatus::leads).ok_or(MoveError::NotLeader)?;
        let is_member = |node| status.voters.contains_key(node) || status.learners.contains_key(node);
        if status.voters.contains_key(&to) && !is_member(&from) {
            self.agreed(shard, status.last_log).await?;
            return self.finish(recorded).await;
        }
        if !is_member(&to) {
            self.confirm(recorded).await?;
            self.join(shard, recorded.to).await?;
            return Ok(Progress::At(1));
        }
        if !status.voters.contains_key(&to) {
            let matched = status.matched.get(&to).copied().flatten();
            if needs_snapshot(matched, status.purged) && self.answers(recorded.to).await {
                return Ok(Progress::Receiving);
            }
            let matched = matched.unwrap_or(0);
            if matched + LAG_MAX < status.last_log.unwrap_or(0) {
                return Ok(Progress::At(matched.max(2)));
            }
        }
        if recorded.from == self.node.0 {
            // A leader that removes itself would stop in the middle: the next leader goes on from here.
            self.hand_over(shard, &status).await?;
            return Err(MoveError::NotLeader);
        }
        self.confirm(recorded).await?;
        let voters: BTreeSet<_> = status.voters.keys().copied().filter(|voter| *voter != from).chain([to]).collect();
        self.replicas.host.change_members(group(shard), voters).await?;
        Ok(Progress::At(u64::MAX))
    }

    /// Whether placement still wants the move. This node's map may be old: it may have been given up, or be over since long.
    async fn confirm(&self, recorded: &pb::Move) -> Result<(), MoveError> {
        let map = self.placement.newest().await?;
        let is_running = map.running(ShardId(recorded.shard)) == Some(recorded);
        if is_running { Ok(()) } else { Err(MoveError::NotRecorded) }
    }

    async fn answers(&self, node: u64) -> bool {
        let Some(node) = self.map.node(NodeId(node)) else { return false };
        self.peers.status(&node.address, true).await.is_ok()
    }

    /// What the shard's state may take on its way, on the slowest link that still counts as working.
    fn time_of_snapshot(&self, shard: ShardId) -> Duration {
        let (_, bytes) = self.replicas.size(shard);
        Duration::from_secs(bytes / self.link_bytes_per_s_min.max(1))
    }

    /// Returns when everything that the leader's log ends with is agreed on: what is not may still be overwritten, and with it
    /// who is a member.
    async fn agreed(&self, shard: ShardId, last_log: Option<u64>) -> Result<(), MoveError> {
        let mut changes = self.replicas.watch(shard).ok_or(MoveError::NotLeader)?;
        let agreed = changes.wait_for(|status| !status.leads() || status.committed >= last_log);
        match tokio::time::timeout(AGREEMENT, agreed).await {
            Ok(Ok(status)) if status.leads() => Ok(()),
            Ok(_) => Err(MoveError::NotLeader),
            Err(_) => Err(MoveError::NotAgreed),
        }
    }

    async fn join(&self, shard: ShardId, to: u64) -> Result<(), MoveError> {
        let node = self.map.node(NodeId(to)).ok_or(MoveError::UnknownNode(to))?;
        self.peers
            .open_replica(&node.address, shard)
            .await
            .map_err(|status| MoveError::Peer { what: "open the new replica", status })?;
        let member = Member { address: node.address, region: node.region };
        self.replicas.host.add_learner(group(shard), postrider_raft::NodeId(to), member).await?;
        Ok(())
    }

    /// Hands the lead to the first other voter that can take it, those of the home region first.
    pub(crate) async fn hand_over(&self, shard: ShardId, status: &GroupStatus) -> Result<(), MemberError> {
        let map = self.map.get();
        let home = map.as_ref().and_then(|map| map.shard(shard)).map_or("", |placed| placed.home_region.as_str());
        let mut others: Vec<_> = status.voters.iter().filter(|(id, _)| id.0 != self.node.0).collect();
        others.sort_by_key(|(id, member)| {
            (member.region != home, std::cmp::Reverse(status.matched.get(*id).copied().flatten()), **id)
        });
        let mut last = MemberError::Impossible { reason: "there is no other voter".to_owned() };
        for (id, _) in others {
            match self.replicas.host.transfer(group(shard), *id).await {
                Ok(()) => return Ok(()),
                Err(error @ MemberError::Impossible { .. }) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    async fn finish(&self, recorded: &pb::Move) -> Result<Progress, MoveError> {
        let shard = ShardId(recorded.shard);
        if let Some(source) = self.map.node(NodeId(recorded.from)) {
            for attempt in 1..=REMOVALS_MAX {
                match self.peers.remove_replica(&source.address, shard).await {
                    Ok(()) => break,
                    Err(status) => {
                        tracing::warn!(shard = shard.0, node = recorded.from, attempt, %status, "the old replica stays for now");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        match self.record_end(recorded, true).await {
            Err(PlacementError::Refused(detail)) => self.record_late(recorded, detail).await,
            other => other.map(|()| Progress::Finished).map_err(MoveError::from),
        }
    }

    /// Placement knows of no running move. Either somebody has recorded its end before, or a leader that had given it up was
    /// heard late: then the map is wrong, and the move that was made is recorded anew.
    async fn record_late(&self, recorded: &pb::Move, detail: String) -> Result<Progress, MoveError> {
        let (shard, from, to) = (ShardId(recorded.shard), NodeId(recorded.from), NodeId(recorded.to));
        if has_moved(&*self.placement.newest().await?, shard, from, to) {
            tracing::info!(shard = shard.0, %detail, "the end of a move was recorded already");
            return Ok(Progress::Finished);
        }
        tracing::warn!(shard = shard.0, from = from.0, to = to.0, %detail, "a move that was made is recorded anew");
        let record = pb::RecordMove { shard: shard.0, from: from.0, to: to.0 };
        self.placement.propose(Op::RecordMove(record)).await?;
        // It has another time now, and its end is recorded under that.
        let map = self.placement.newest().await?;
        let anew = map.running(shard).filter(|anew| (anew.from, anew.to) == (from.0, to.0));
        self.record_end(anew.ok_or(MoveError::NotRecorded)?, true).await?;
        Ok(Progress::Finished)
    }

    async fn give_up(&self, recorded: &pb::Move) {
        let shard = ShardId(recorded.shard);
        tracing::error!(shard = shard.0, from = recorded.from, to = recorded.to, "a move is given up");
        let to = postrider_raft::NodeId(recorded.to);
        let is_learner = self.replicas.status(shard).is_some_and(|status| status.learners.contains_key(&to));
        if is_learner && let Err(error) = self.replicas.host.remove_learner(group(shard), to).await {
            tracing::error!(shard = shard.0, %error, "the replica that did not catch up is still a learner");
            return;
        }
        // One that only believes to lead must not decide: the leader that there is may have changed the voters.
        if self.replicas.barrier(shard).await.is_err() {
            tracing::error!(shard = shard.0, "the move is not given up yet: no quorum says who leads");
            return;
        }
        match self.record_end(recorded, false).await {
            Ok(()) => {}
            // Somebody has recorded it before; the map will tell.
            Err(PlacementError::Refused(detail)) => {
                tracing::info!(shard = shard.0, %detail, "the end of a move was recorded already");
            }
            Err(error) => tracing::error!(shard = shard.0, %error, "that the move was given up is not recorded"),
        }
    }

    async fn record_end(&self, recorded: &pb::Move, done: bool) -> Result<(), PlacementError> {
        let pb::Move { shard, from, to, started_ms } = *recorded;
        self.placement.propose(Op::FinishMove(pb::FinishMove { shard, done, from, to, started_ms })).await
    }
}

fn has_moved(map: &MapView, shard: ShardId, from: NodeId, to: NodeId) -> bool {
    let placed = map.shard(shard);
    placed.is_some_and(|placed| placed.replicas.contains(&to.0) && !placed.replicas.contains(&from.0))
}

/// Whether nothing has been decided yet: `voters` are both sets while they change.
fn may_give_up(voters: &BTreeMap<postrider_raft::NodeId, Member>, recorded: &pb::Move) -> bool {
    let votes = |node| voters.contains_key(&postrider_raft::NodeId(node));
    votes(recorded.from) && !votes(recorded.to)
}

/// Whether a member lacks entries that its leader has no more: it gets the state as a whole.
fn needs_snapshot(matched: Option<u64>, purged: Option<u64>) -> bool {
    purged.is_some() && matched < purged
}

/// For the operator's reply.
pub(crate) fn admin_error(error: &MemberError, status: Option<&GroupStatus>) -> pb::AdminReply {
    pb::AdminReply { ok: false, error: error.to_string(), fault: fault::of_member(error, status) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(ids: &[u64]) -> BTreeMap<postrider_raft::NodeId, Member> {
        let member = |id: u64| Member { address: format!("n{id}:1"), region: "seoul".to_owned() };
        ids.iter().map(|id| (postrider_raft::NodeId(*id), member(*id))).collect()
    }

    #[test]
    fn a_move_is_given_up_only_before_the_voters_change() {
        let recorded = pb::Move { shard: 1000, from: 3, to: 4, started_ms: 0 };
        assert!(may_give_up(&voters(&[1, 2, 3]), &recorded));
        assert!(!may_give_up(&voters(&[1, 2, 3, 4]), &recorded), "the change is in the log, agreed on or not");
        assert!(!may_give_up(&voters(&[1, 2, 4]), &recorded), "it was made, and placement does not know yet");
        assert!(!may_give_up(&voters(&[1, 2]), &recorded), "the source is gone: there is no way back");
    }

    #[test]
    fn whoever_lacks_what_is_purged_gets_a_snapshot() {
        assert!(!needs_snapshot(None, None), "everything is in the log still");
        assert!(needs_snapshot(None, Some(10)));
        assert!(needs_snapshot(Some(9), Some(10)));
        assert!(!needs_snapshot(Some(10), Some(10)));
    }
}
