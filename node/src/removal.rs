//! Replicas that go, with everything this node remembers of them.
//!
//! Invariant: a replica that has begun goes only on the word of its shard's leader that this node is no member, in a term not
//! older than the replica's own and by a membership that is agreed on. The shard map alone is no proof: this node's may be
//! old, and a replica that voted must not forget what it acknowledged.

use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, ReplicaRole};
use postrider_raft::{GroupError, GroupStatus, Role};

use crate::lease::Leases;
use crate::map::Map;
use crate::peers::Peers;
use crate::reconcile::Wanted;
use crate::replicas::{Replicas, group};

/// Looks at a leader until its membership is agreed on.
const LOOKS_MAX: u32 = 5;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// Removes replicas from this node.
#[derive(Clone)]
pub(crate) struct Remover {
    pub(crate) node: NodeId,
    pub(crate) replicas: Replicas,
    pub(crate) map: Map,
    pub(crate) peers: Peers,
    pub(crate) leases: Leases,
}

impl Remover {
    /// Whether nothing is lost when this node's replica of the shard goes.
    pub(crate) async fn may_go(&self, shard: ShardId) -> bool {
        match self.replicas.status(shard) {
            Some(status) if may_have_acknowledged(&status) => self.is_disowned(shard, &status).await,
            // Nothing is here, or nothing was ever written to it.
            _ => true,
        }
    }

    /// Removes the replica.
    pub(crate) async fn remove(&self, shard: ShardId) -> Result<(), GroupError> {
        self.replicas.host.remove_replica(group(shard)).await?;
        self.replicas.machines.forget(shard);
        self.leases.forget(shard);
        Ok(())
    }

    /// Whether the shard's leader says that this node is no member.
    async fn is_disowned(&self, shard: ShardId, status: &GroupStatus) -> bool {
        for address in self.members(shard, status) {
            if let Some(leader) = self.leader_at(&address, shard, status.term).await {
                return self.excludes(&address, shard, leader).await;
            }
        }
        false
    }

    /// Where the leader may be: by the map, by what is wanted, and by what the replica last knew.
    fn members(&self, shard: ShardId, status: &GroupStatus) -> Vec<String> {
        let map = self.map.get();
        let placed = map.iter().flat_map(|map| map.replicas(shard).map(|node| (node.id, &node.address)));
        let wanted =
            map.as_ref().and_then(|map| Wanted::of(map, shard)).map(|wanted| wanted.members).unwrap_or_default();
        let wanted =
            wanted.iter().filter_map(|id| map.as_ref()?.node(NodeId(*id))).map(|node| (node.id, &node.address));
        let known = status.voters.iter().chain(&status.learners).map(|(id, member)| (id.0, &member.address));
        let mut addresses: Vec<String> = Vec::new();
        for (id, address) in placed.chain(wanted).chain(known) {
            if id != self.node.0 && !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// What a node says of its replica of the shard, if it leads it in a term that is not older than `term`.
    async fn leader_at(&self, address: &str, shard: ShardId, term: u64) -> Option<pb::ReplicaStatus> {
        let replicas = self.peers.status(address, false).await.ok()?.status.replicas;
        replicas
            .into_iter()
            .find(|replica| replica.shard == shard.0 && replica.role() == ReplicaRole::Leader && replica.term >= term)
    }

    /// Whether `leader` counts this node out, and has had that agreed on: what its log ends with may still be overwritten, and
    /// with it who is a member. Once everything that was in the log at the first look is committed in the same term, it may not.
    async fn excludes(&self, address: &str, shard: ShardId, leader: pb::ReplicaStatus) -> bool {
        let (term, wanted) = (leader.term, leader.last_log);
        let mut leader = leader;
        for _ in 0..LOOKS_MAX {
            if leader.term != term || leader.voters.contains(&self.node.0) || leader.learners.contains(&self.node.0) {
                return false;
            }
            if leader.committed >= wanted {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
            match self.leader_at(address, shard, term).await {
                Some(next) => leader = next,
                None => return false,
            }
        }
        false
    }
}

/// Whether the replica may hold what a quorum counts on. One that was opened and waits for its group holds nothing; of one
/// that has stopped nothing is known.
fn may_have_acknowledged(status: &GroupStatus) -> bool {
    matches!(status.role, Role::Stopped { .. }) || status.last_log.is_some() || !status.voters.is_empty()
}
