//! Operators of the frontends under test, and nodes that say what the map of a cluster in memory implies.

use std::sync::Arc;

use async_trait::async_trait;
use postrider_api::address::Address;
use postrider_api::pb;
use postrider_frontend::cluster::Cluster as _;
use postrider_frontend::operating::{CheckedName, Operating, OperatorSettings, Plan, PlanStep};
use postrider_router::AdminError;
use postrider_router::operate::{NodeIndexes, NodeReport};

use crate::cluster::MemoryCluster;

pub(crate) const OPERATOR: &str = "operator@postrider.example";
/// The node that does not answer.
pub(crate) const SILENT: u64 = 3;

/// Nodes that say what the map of a cluster in memory implies: the first replica of each shard leads.
struct Nodes(MemoryCluster);

#[async_trait]
impl Operating for Nodes {
    async fn reports(&self) -> Vec<NodeReport> {
        let map = self.0.map();
        let replica = |shard: &pb::Shard, node: u64| pb::ReplicaStatus {
            shard: shard.id,
            role: if shard.replicas.first() == Some(&node) {
                pb::ReplicaRole::Leader
            } else {
                pb::ReplicaRole::Follower
            }
            .into(),
            term: 1,
            committed: 100,
            applied: if node == 2 { 93 } else { 100 },
            users: 5,
            bytes: 5000,
            ..Default::default()
        };
        let report = |node: &pb::Node| NodeReport {
            status: match node.id {
                SILENT => Err(AdminError::Unreachable { address: "seoul-3:7105".into(), detail: "refused".into() }),
                id => Ok(pb::StatusReply {
                    node: id,
                    version: "1.2.3".into(),
                    replicas: map
                        .shards
                        .iter()
                        .filter(|one| one.replicas.contains(&id))
                        .map(|one| replica(one, id))
                        .collect(),
                    ..Default::default()
                }),
            },
            node: node.clone(),
        };
        map.nodes.iter().map(report).collect()
    }

    async fn search_statuses(&self) -> Vec<NodeIndexes> {
        let index = pb::SearchStatus { shard: 1000, documents: 7, watermark: 90, newest: 100, ..Default::default() };
        let refused = AdminError::Unreachable { address: "b:1".into(), detail: "refused".into() };
        vec![NodeIndexes { node: 1, indexes: Ok(vec![index]) }, NodeIndexes { node: SILENT, indexes: Err(refused) }]
    }

    async fn plan(&self) -> Result<Plan, String> {
        let step = PlanStep {
            shard: 1000,
            priority: "evenness".into(),
            change: "2 instead of 1".into(),
            reason: "node 1 is fuller".into(),
        };
        Ok(Plan { steps: vec![step], silent_nodes: vec![SILENT], waiting_shards: 2, ..Plan::default() })
    }

    async fn check_domain(&self, domain: &str) -> Result<Vec<CheckedName>, String> {
        Ok(vec![CheckedName {
            name: format!("{domain}."),
            rtype: "MX".into(),
            state: "missing",
            expected: vec!["10 mx.postrider.example.".into()],
            seen: Vec::new(),
        }])
    }
}

/// Who operates the frontends of these tests.
pub(crate) fn operators(cluster: &MemoryCluster) -> OperatorSettings {
    OperatorSettings {
        cluster: Arc::new(cluster.clone()),
        operating: Arc::new(Nodes(cluster.clone())),
        accounts: vec![Address::parse(OPERATOR).unwrap()],
    }
}
