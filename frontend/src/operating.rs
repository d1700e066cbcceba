//! What the operator's page needs of the cluster beside [`Cluster`]: a seam as that one is, since nodes have to be asked one by one, and
//! what plans and DNS say is known outside of this room.
//!
//! Invariant: everything here goes out under an operator's certificate. A frontend that was given none shows and does nothing of it,
//! and its own certificate could not (docs/adr/149-the-operators-page.md).

use std::sync::Arc;

use async_trait::async_trait;
use postrider_api::address::Address;
use postrider_router::operate::{NodeIndexes, NodeReport};

use crate::cluster::Cluster;

/// The nodes, the planner and the DNS, as an operator asks them.
#[async_trait]
pub trait Operating: Send + Sync + 'static {
    /// What every node of the map says of itself, by number.
    async fn reports(&self) -> Vec<NodeReport>;

    /// The search indexes of every node.
    async fn search_statuses(&self) -> Vec<NodeIndexes>;

    /// What should move, and why; otherwise why that is not known. Nothing is done.
    async fn plan(&self) -> Result<Plan, String>;

    /// What the world sees of a domain's records; otherwise why that cannot be told.
    async fn check_domain(&self, domain: &str) -> Result<Vec<CheckedName>, String>;
}

/// What should move.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<PlanStep>,
    /// Shards that stay as they are, each with the reason; not all of them where there are many.
    pub blocked: Vec<(u32, String)>,
    /// How many there are of those.
    pub blocked_shards: usize,
    /// Shards that wait for nodes that do not answer.
    pub waiting_shards: usize,
    /// More steps follow once these are done.
    pub has_more: bool,
    /// Nodes that do not answer.
    pub silent_nodes: Vec<u64>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// Of which shard.
    pub shard: u32,
    /// What it is for.
    pub priority: String,
    /// What would change.
    pub change: String,
    /// Why.
    pub reason: String,
}

/// One name and type of a domain's records.
#[derive(Debug, Clone)]
pub struct CheckedName {
    /// The name.
    pub name: String,
    /// The type of its records.
    pub rtype: String,
    /// `ok`, `missing` or `differs`.
    pub state: &'static str,
    /// What should be there.
    pub expected: Vec<String>,
    /// What was seen.
    pub seen: Vec<String>,
}

/// Who operates through this frontend, and with what.
#[derive(Clone)]
pub struct OperatorSettings {
    /// The storage cluster, under the operator's certificate.
    pub cluster: Arc<dyn Cluster>,
    /// The rest of what operators ask.
    pub operating: Arc<dyn Operating>,
    /// Whose accounts are operators'.
    pub accounts: Vec<Address>,
}
