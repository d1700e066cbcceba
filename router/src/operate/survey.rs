//! What nodes say of themselves, all of them asked at once.

use futures::stream::{self, StreamExt as _};
use postrider_api::id::NodeId;
use postrider_api::pb;

use crate::admin::{AdminClient, AdminError};
use crate::router::Router;

/// Nodes that are asked at a time.
const NODES_AT_A_TIME: usize = 64;

/// What a node said of itself.
pub struct NodeReport {
    /// As the shard map has it.
    pub node: pb::Node,
    /// Its answer.
    pub status: Result<pb::StatusReply, AdminError>,
}

/// What a node said of its search indexes.
pub struct NodeIndexes {
    /// Which.
    pub node: u64,
    /// Its answer, one of each replica.
    pub indexes: Result<Vec<pb::SearchStatus>, AdminError>,
}

impl Router {
    /// What every node of the map says, by number; those that do not answer are listed with the reason.
    pub async fn reports(&self) -> Vec<NodeReport> {
        let map = self.map();
        let ask = |node: &pb::Node| {
            let node = node.clone();
            async move {
                let status = match self.admin_of(&node) {
                    Ok(client) => client.status().await,
                    Err(error) => Err(error),
                };
                NodeReport { node, status }
            }
        };
        let asked: Vec<_> = map.nodes.iter().map(ask).collect();
        let mut reports: Vec<_> = stream::iter(asked).buffer_unordered(NODES_AT_A_TIME).collect().await;
        reports.sort_by_key(|report| report.node.id);
        reports
    }

    /// What every node bears and can bear, and the nodes that do not answer.
    pub async fn loads(&self) -> (Vec<pb::LoadReply>, Vec<u64>) {
        let map = self.map();
        let ask = |node: &pb::Node| {
            let node = node.clone();
            async move {
                match self.admin_of(&node) {
                    Ok(client) => client.load().await.map_err(|_| node.id),
                    Err(_) => Err(node.id),
                }
            }
        };
        let asked: Vec<_> = map.nodes.iter().map(ask).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(NODES_AT_A_TIME).collect().await;
        let (mut loads, mut silent) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Ok(load) => loads.push(load),
                Err(node) => silent.push(node),
            }
        }
        (loads, silent)
    }

    /// The search indexes of every node, in the order of the map.
    pub async fn search_statuses(&self) -> Vec<NodeIndexes> {
        let map = self.map();
        let ask = |node: &pb::Node| {
            let node = node.clone();
            async move {
                let indexes = match self.admin_of(&node) {
                    Ok(client) => client.search_status().await,
                    Err(error) => Err(error),
                };
                NodeIndexes { node: node.id, indexes }
            }
        };
        let asked: Vec<_> = map.nodes.iter().map(ask).collect();
        stream::iter(asked).buffered(NODES_AT_A_TIME).collect().await
    }

    /// The map may have moved on since it was looked at: that is a node that cannot be asked, like others.
    fn admin_of(&self, node: &pb::Node) -> Result<AdminClient, AdminError> {
        self.admin(NodeId(node.id))
            .map_err(|error| AdminError::Unreachable { address: node.address.clone(), detail: error.to_string() })
    }
}

/// The leader with the newest term: an older one has not yet heard that it leads no more.
pub fn primary_of(shard: u32, reports: &[NodeReport]) -> Option<u64> {
    replicas_of(shard, reports)
        .filter(|(_, replica)| replica.role() == pb::ReplicaRole::Leader)
        .max_by_key(|(_, replica)| replica.term)
        .map(|(node, _)| node)
}

/// What the nodes that answered say of their replicas of `shard`.
pub fn replicas_of(shard: u32, reports: &[NodeReport]) -> impl Iterator<Item = (u64, &pb::ReplicaStatus)> {
    reports.iter().filter_map(move |report| {
        let status = report.status.as_ref().ok()?;
        let replica = status.replicas.iter().find(|replica| replica.shard == shard)?;
        Some((report.node.id, replica))
    })
}

/// The replica whose counters stand for the shard's: the primary's; without one, that of the replica that has applied most.
pub fn counters_of(shard: u32, primary: Option<u64>, reports: &[NodeReport]) -> Option<&pb::ReplicaStatus> {
    replicas_of(shard, reports)
        .max_by_key(|(node, replica)| (Some(*node) == primary, replica.applied))
        .map(|(_, replica)| replica)
}
