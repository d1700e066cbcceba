//! What should move, by what the nodes say now.

use std::collections::BTreeSet;

use anyhow::Context as _;
use postrider_api::id::NodeId;
use postrider_api::pb;
use postrider_balance::Plan;
use postrider_balance::limits::Limits;
use postrider_balance::observed::{self, Observed, Reports};
use postrider_router::Router;

/// What should be done now, and the nodes that say nothing.
///
/// # Errors
/// When the shard map does not hang together.
pub async fn make(
    router: &Router,
    map: &pb::ShardMap,
    given_up: &BTreeSet<NodeId>,
    limits: &Limits,
) -> anyhow::Result<(Plan, Vec<u64>)> {
    let (loads, silent) = router.loads().await;
    let reports: Reports = loads.iter().collect();
    let answering: BTreeSet<NodeId> = loads.iter().map(|load| NodeId(load.node)).collect();
    let view = observed::view(Observed { map, reports: &reports, answering: &answering, given_up });
    let planned = postrider_balance::plan(&view, limits).context("understand the shard map")?;
    Ok((planned, silent))
}

/// Whether all is as it should be.
#[must_use]
pub fn is_good(planned: &Plan) -> bool {
    planned.steps.is_empty() && planned.blocked_shards == 0 && planned.waiting_shards == 0
}
