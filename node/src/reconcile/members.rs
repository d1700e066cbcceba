//! A group gets the members that are wanted: new ones join and catch up, what mail refers to is made durable where they are, the voters
//! change, the old ones go.
//!
//! Invariant: a group never has fewer replicas up to date than before; a new one votes only when it has caught up. A leader that is to
//! go hands the lead over first: one that removes itself would stop in the middle.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, OperationState, OperationStep};
use postrider_raft::{GroupStatus, Member};

use super::{PAUSE, Progress, Reconciler, StepError, Wanted};
use crate::map::MapView;
use crate::replicas::group;

/// A learner that lacks at most this many entries votes next; the rest comes while the change is agreed on.
const LAG_MAX: u64 = 128;
/// A node is asked this often to drop its replica; if it is gone for good, it drops it should it ever come back.
const REMOVALS_MAX: u32 = 3;
/// How long a leader may take to have agreed on what its log ends with.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Whether exactly these nodes vote. While the voters change, both sets do.
pub(super) fn votes_exactly(status: &GroupStatus, members: &[u64]) -> bool {
    status.voters.len() == members.len() && members.iter().all(|node| votes(status, *node))
}

/// A member that the map has at another address than the membership does.
pub(super) fn elsewhere<'m>(status: &GroupStatus, map: &'m MapView) -> Option<&'m pb::Node> {
    status.voters.iter().chain(&status.learners).find_map(|(id, member)| {
        let node = map.node(NodeId(id.0))?;
        (node.address != member.address || node.region != member.region).then_some(node)
    })
}

fn votes(status: &GroupStatus, node: u64) -> bool {
    status.voters.contains_key(&postrider_raft::NodeId(node))
}

fn is_member(status: &GroupStatus, node: u64) -> bool {
    votes(status, node) || status.learners.contains_key(&postrider_raft::NodeId(node))
}

fn member(node: &pb::Node) -> Member {
    Member { address: node.address.clone(), region: node.region.clone() }
}

/// Whether a member lacks entries that its leader has no more: it gets the state as a whole.
fn needs_snapshot(matched: Option<u64>, purged: Option<u64>) -> bool {
    purged.is_some() && matched < purged
}

impl Reconciler {
    /// What is to be done next about the members; `None` when they are as they are wanted, and agreed on.
    pub(super) async fn step_members(
        &self,
        shard: ShardId,
        wanted: &Wanted,
        status: &GroupStatus,
        map: &MapView,
    ) -> Result<Option<Progress>, StepError> {
        let host = &self.replicas.host;
        if let Some(stray) = status.learners.keys().copied().find(|learner| wanted.excludes(NodeId(learner.0))) {
            self.confirm(shard, wanted).await?;
            host.remove_learner(group(shard), stray).await?;
            return Ok(Some(Progress::At(OperationStep::Removing, stray.0)));
        }
        if let Some(node) = elsewhere(status, map) {
            self.confirm(shard, wanted).await?;
            host.set_member(group(shard), postrider_raft::NodeId(node.id), member(node)).await?;
            tracing::info!(shard = shard.0, node = node.id, address = %node.address, "a member has another address");
            return Ok(Some(Progress::At(OperationStep::Joining, node.id)));
        }
        if let Some(new) = wanted.members.iter().copied().find(|node| !is_member(status, *node)) {
            self.confirm(shard, wanted).await?;
            self.join(shard, new, status, map).await?;
            return Ok(Some(Progress::At(OperationStep::Joining, new)));
        }
        let new: Vec<u64> = wanted.members.iter().copied().filter(|node| !votes(status, *node)).collect();
        if let Some(progress) = self.catching_up(&new, status, map).await {
            return Ok(Some(progress));
        }
        if votes_exactly(status, &wanted.members) {
            self.agreed(shard, status.last_log).await?;
            return Ok(None);
        }
        if !new.is_empty() {
            let regions =
                new.iter().filter_map(|node| map.node(NodeId(*node))).map(|node| node.region.clone()).collect();
            self.preparation.prepare(shard, regions).await.map_err(StepError::NotPrepared)?;
        }
        self.change_voters(shard, wanted, status).await.map(Some)
    }

    async fn catching_up(&self, new: &[u64], status: &GroupStatus, map: &MapView) -> Option<Progress> {
        for node in new {
            let matched = status.matched.get(&postrider_raft::NodeId(*node)).copied().flatten();
            let is_near = matched.unwrap_or(0) + LAG_MAX >= status.last_log.unwrap_or(0);
            if matched.is_some() && !needs_snapshot(matched, status.purged) && is_near {
                continue;
            }
            let answers = match map.node(NodeId(*node)) {
                Some(node) => self.peers.status(&node.address, true).await.is_ok(),
                None => false,
            };
            return Some(match answers {
                false => Progress::Waits(OperationStep::CatchingUp, format!("node {node} does not answer")),
                true if needs_snapshot(matched, status.purged) => Progress::Receiving,
                true => Progress::At(OperationStep::CatchingUp, matched.map_or(0, |index| index + 1)),
            });
        }
        None
    }

    async fn change_voters(
        &self,
        shard: ShardId,
        wanted: &Wanted,
        status: &GroupStatus,
    ) -> Result<Progress, StepError> {
        let mut voters: BTreeSet<_> = wanted.members.iter().copied().map(postrider_raft::NodeId).collect();
        if wanted.excludes(self.node) {
            if wanted.members.iter().any(|node| votes(status, *node)) {
                self.hand_over_among(shard, status, |node| !wanted.excludes(node)).await?;
                return Err(StepError::NotLeader);
            }
            // Nobody who votes now stays: the new ones vote beside the old ones first, and one of them leads then.
            voters.extend(status.voters.keys());
        }
        self.confirm(shard, wanted).await?;
        self.replicas.host.change_members(group(shard), voters).await?;
        Ok(Progress::At(OperationStep::Voting, u64::MAX))
    }

    async fn join(&self, shard: ShardId, new: u64, status: &GroupStatus, map: &MapView) -> Result<(), StepError> {
        let node = map.node(NodeId(new)).ok_or(StepError::UnknownNode(new))?;
        self.peers
            .open_replica(&node.address, shard, status.incarnation.0)
            .await
            .map_err(|status| StepError::Peer { node: new, what: "open the new replica", status })?;
        self.replicas.host.add_learner(group(shard), postrider_raft::NodeId(new), member(node)).await?;
        Ok(())
    }

    /// Returns when everything that the leader's log ends with is agreed on: what is not may still be overwritten, and with it
    /// who is a member.
    async fn agreed(&self, shard: ShardId, last_log: Option<u64>) -> Result<(), StepError> {
        let mut changes = self.replicas.watch(shard).ok_or(StepError::NotLeader)?;
        let agreed = changes.wait_for(|status| !status.leads() || status.committed >= last_log);
        match tokio::time::timeout(AGREEMENT, agreed).await {
            Ok(Ok(status)) if status.leads() => Ok(()),
            Ok(_) => Err(StepError::NotLeader),
            Err(_) => Err(StepError::NotAgreed),
        }
    }

    /// The members are as they are wanted: those that are no more drop their replicas, and placement learns of it.
    pub(super) async fn finish_members(
        &self,
        shard: ShardId,
        wanted: &Wanted,
        operation: &pb::Operation,
        set: &pb::SetReplicas,
        map: &MapView,
    ) -> Result<Progress, StepError> {
        let before = map.shard(shard).map(|placed| placed.replicas.as_slice()).unwrap_or_default();
        let others = if operation.state() == OperationState::Cancelling { &set.replicas } else { before };
        let gone = others.iter().copied().filter(|node| wanted.excludes(NodeId(*node)));
        let gone = gone.filter_map(|node| map.node(NodeId(node)));
        futures::future::join_all(gone.map(|node| self.drop_replica(shard, node))).await;
        self.finish(operation.id, wanted.members.clone()).await
    }

    async fn drop_replica(&self, shard: ShardId, node: &pb::Node) {
        for attempt in 1..=REMOVALS_MAX {
            match self.peers.remove_replica(&node.address, shard).await {
                Ok(()) => return,
                Err(status) => {
                    tracing::warn!(shard = shard.0, node = node.id, attempt, %status, "the old replica stays for now");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(voters: &[u64], learners: &[u64]) -> GroupStatus {
        let member = |id: u64| Member { address: format!("n{id}:1"), region: "seoul".to_owned() };
        let members = |ids: &[u64]| ids.iter().map(|id| (postrider_raft::NodeId(*id), member(*id))).collect();
        let mut status = GroupStatus::new(group(ShardId(1000)));
        status.voters = members(voters);
        status.learners = members(learners);
        status
    }

    #[test]
    fn both_sets_vote_while_the_voters_change() {
        assert!(votes_exactly(&status(&[1, 2, 3], &[4]), &[3, 2, 1]));
        assert!(!votes_exactly(&status(&[1, 2, 3, 4], &[]), &[1, 2, 3]));
        assert!(!votes_exactly(&status(&[1, 2, 4], &[]), &[1, 2, 3]));
        assert!(!votes_exactly(&status(&[1, 2], &[3]), &[1, 2, 3]));
    }

    #[test]
    fn whoever_lacks_what_is_purged_gets_a_snapshot() {
        assert!(!needs_snapshot(None, None), "everything is in the log still");
        assert!(needs_snapshot(None, Some(10)));
        assert!(needs_snapshot(Some(9), Some(10)));
        assert!(!needs_snapshot(Some(10), Some(10)));
    }
}
