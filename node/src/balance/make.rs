//! New shards: placement says that one shall be, its group is made on its nodes, and its leader says that it is.

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, OperationStep};

use super::{Balancer, Tenure};
use crate::map::MapView;
use crate::placement::PlacementError;

impl Balancer {
    /// Opens the replicas and makes the group on the one that is at home. Each of it may be done again.
    pub(super) async fn make(
        &self,
        shard: ShardId,
        operation: u64,
        map: &MapView,
        tenure: &mut Tenure,
    ) -> Result<(), PlacementError> {
        let Some(placed) = map.shard(shard) else { return Ok(()) };
        // Whoever is given up gets nothing: what it should have had is made elsewhere once there is a group.
        let mut members: Vec<pb::Node> = map.replicas(shard).cloned().collect();
        members.sort_by_key(|node| (node.region != placed.home_region, node.id));
        let waits_for = match self.try_to_make(shard, placed, &members).await {
            Ok(()) => String::new(),
            Err(reason) => reason,
        };
        self.tell(operation, OperationStep::Making, waits_for, tenure).await
    }

    async fn try_to_make(&self, shard: ShardId, placed: &pb::Shard, members: &[pb::Node]) -> Result<(), String> {
        let there: Vec<&pb::Node> = members.iter().filter(|node| node.given_up_ms == 0).collect();
        let Some(first) = there.first() else { return Err("none of its nodes answers".to_owned()) };
        for node in &there {
            let opened = self.peers.open_replica(&node.address, shard, placed.incarnation).await;
            opened.map_err(|status| format!("node {}: {}", NodeId(node.id), status.message()))?;
        }
        let made = self.peers.create_group(&first.address, shard, placed.incarnation, members.to_vec()).await;
        made.map_err(|status| format!("node {}: {}", NodeId(first.id), status.message()))
    }
}
