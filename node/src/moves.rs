//! Replicas move from node to node.
//!
//! Invariant: a move is recorded in placement before anything happens and forgotten there when everything has; each step in
//! between may be done again, so whoever leads the shard carries a move on from wherever it stands.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, command::Op};
use postrider_raft::{GroupStatus, Member, MemberError};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::fault;
use crate::map::Map;
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

/// Carries moves of the shards that this node leads.
#[derive(Clone)]
pub(crate) struct Mover {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) placement: Placement,
    pub(crate) timings: NodeTimings,
    pub(crate) stop: CancellationToken,
    pub(crate) running: Arc<Mutex<HashSet<ShardId>>>,
}

#[derive(Debug, Error)]
enum MoveError {
    #[error("another node leads now")]
    NotLeader,
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
        let recorded = |map: &Option<Arc<pb::ShardMap>>| {
            map.as_ref().is_some_and(|map| map.moves.iter().any(|running| running.shard == shard.0))
        };
        let moved = |map: &Option<Arc<pb::ShardMap>>| {
            let placed = map.as_ref().and_then(|map| map.shards.iter().find(|placed| placed.id == shard.0));
            placed.is_some_and(|placed| placed.replicas.contains(&to.0) && !placed.replicas.contains(&from.0))
        };
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
        for recorded in &map.moves {
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
                // Whoever leads now carries it on.
                Err(MoveError::NotLeader | MoveError::Member(MemberError::NotLeader { .. })) => return,
                Err(error) => {
                    tracing::warn!(shard = shard.0, %error, "a move does not get on; trying again");
                    PAUSE_AFTER_FAILURE
                }
            };
            let stuck = self.replicas.clock.monotonic().saturating_sub(since);
            if stuck > self.timings.move_patience {
                self.give_up(&recorded).await;
                return;
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
            return self.finish(recorded).await;
        }
        if !is_member(&to) {
            self.join(shard, recorded.to).await?;
            return Ok(Progress::At(1));
        }
        let matched = status.matched.get(&to).copied().flatten().unwrap_or(0);
        if matched + LAG_MAX < status.last_log.unwrap_or(0) {
            return Ok(Progress::At(matched.max(2)));
        }
        if recorded.from == self.node.0 {
            // A leader that removes itself would stop in the middle: the next leader goes on from here.
            self.hand_over(shard, &status).await?;
            return Err(MoveError::NotLeader);
        }
        let voters: BTreeSet<_> = status.voters.keys().copied().filter(|voter| *voter != from).chain([to]).collect();
        self.replicas.host.change_members(group(shard), voters).await?;
        Ok(Progress::At(u64::MAX))
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
        let home = self.map.shard(shard).map(|shard| shard.home_region).unwrap_or_default();
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
        self.record_end(recorded, true).await?;
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
        if let Err(error) = self.record_end(recorded, false).await {
            tracing::error!(shard = shard.0, %error, "that the move was given up is not recorded");
        }
    }

    async fn record_end(&self, recorded: &pb::Move, done: bool) -> Result<(), PlacementError> {
        match self.placement.propose(Op::FinishMove(pb::FinishMove { shard: recorded.shard, done })).await {
            // Somebody has recorded it before; the map will tell.
            Err(PlacementError::Refused(detail)) => {
                tracing::info!(shard = recorded.shard, %detail, "the end of a move was recorded already");
                Ok(())
            }
            other => other,
        }
    }
}

/// For the operator's reply.
pub(crate) fn admin_error(error: &MemberError, status: Option<&GroupStatus>) -> pb::AdminReply {
    pb::AdminReply { ok: false, error: error.to_string(), fault: fault::of_member(error, status) }
}
