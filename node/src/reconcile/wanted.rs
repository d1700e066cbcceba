//! What placement wants of a shard.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState};
use postrider_raft::GroupStatus;

use crate::map::MapView;
use crate::reconcile::members;

/// The members that a shard's group shall have, and the operation that wants it so.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) members: Vec<u64>,
    pub(crate) operation: Option<pb::Operation>,
}

impl Wanted {
    /// `None`: the shard is not placed (yet), or the map does not tell what changes it.
    pub(crate) fn of(map: &MapView, shard: ShardId) -> Option<Self> {
        let placed = map.shard(shard)?;
        if placed.operation == 0 {
            return Some(Self { members: placed.replicas.clone(), operation: None });
        }
        let operation = map.operation(placed.operation)?.clone();
        let members = match &operation.kind {
            Some(Kind::SetReplicas(set)) if operation.state() == OperationState::Running => set.replicas.clone(),
            _ => placed.replicas.clone(),
        };
        Some(Self { members, operation: Some(operation) })
    }

    /// Whether the group is otherwise: other members, or members at other addresses.
    pub(crate) fn differs(&self, status: &GroupStatus, map: &MapView) -> bool {
        !status.learners.is_empty()
            || !members::votes_exactly(status, &self.members)
            || members::elsewhere(status, map).is_some()
    }

    /// Whether the node's replica of the shard is to go.
    pub(crate) fn excludes(&self, node: NodeId) -> bool {
        !self.members.contains(&node.0)
    }
}
