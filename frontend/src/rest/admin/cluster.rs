//! Regions, nodes and shards: what there is and how it is. A node can be drained, and taken back.

use axum::Json;
use postrider_api::audit;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::limit::REGION_WEIGHT;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome;
use postrider_router::operate::{
    Lacks, NodeReport, committed, counters_of, node_state, primary_of, replicas_of, shard_kind,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::admin::moves::OperationBegun;
use crate::rest::admin::operator::{Act, Operator, Reason};
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// A cluster at a glance.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClusterView {
    regions: Vec<RegionView>,
    nodes: Vec<NodeView>,
    shards: ShardHealth,
}

/// A region.
#[derive(Serialize, ToSchema)]
pub(crate) struct RegionView {
    #[schema(example = "seoul")]
    name: String,
    /// Its residency zone.
    zone: String,
    /// How much of what is near to it is sent there: 100 is its fair share, 0 drains it.
    weight: u32,
    /// Where clients reach its REST; empty: they are not told of it.
    url: String,
    nodes: usize,
    /// Of those, the ones that answer.
    answering: usize,
    /// Shards whose primary is there.
    primaries: usize,
    /// Shards that are at home there.
    homes: usize,
}

/// A storage node.
#[derive(Serialize, ToSchema)]
pub(crate) struct NodeView {
    id: u64,
    region: String,
    /// Of its gRPC.
    address: String,
    /// As placement has it.
    #[schema(example = "active", pattern = "^(active|draining|drained|silent|given_up)$")]
    state: String,
    /// Whether it answered just now.
    up: bool,
    /// Why it did not.
    error: Option<String>,
    /// Of its build.
    version: Option<String>,
    /// Replicas that it has.
    replicas: usize,
    /// Shards that it leads.
    primaries: usize,
    /// Replicas that have stopped, each with the reason.
    stopped: Vec<StoppedView>,
    /// Since when it has been silent.
    silent_since: Option<Time>,
}

/// A replica that has stopped.
#[derive(Serialize, ToSchema)]
pub(crate) struct StoppedView {
    shard: u32,
    reason: String,
}

/// Whether the shards are whole.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShardHealth {
    /// All there are.
    count: usize,
    without_primary: Vec<u32>,
    missing_replicas: Vec<u32>,
    /// Replicas that have not applied what their primary has committed at this moment: under load some always are.
    behind: Vec<u32>,
}

/// Show regions, nodes and whether the shards are whole.
#[utoipa::path(
    get, path = "/v1/admin/cluster", operation_id = "read_cluster", tag = "administration",
    responses((status = 200, description = "The cluster", body = ClusterView), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn overview(operator: Operator) -> Result<Json<ClusterView>, Problem> {
    let reports = operator.settings.operating.reports().await;
    let map = operator.map();
    let lacks = Lacks::of(&map, &reports, &committed(&map, &reports));
    let primaries: Vec<(u32, u64)> =
        map.shards.iter().filter_map(|shard| Some((shard.id, primary_of(shard.id, &reports)?))).collect();
    let region_of = |node: u64| map.nodes.iter().find(|known| known.id == node).map(|known| known.region.as_str());
    let region = |region: &pb::Region| RegionView {
        name: region.name.clone(),
        zone: region.zone.clone(),
        weight: region.weight.unwrap_or(REGION_WEIGHT),
        url: region.api_url.clone(),
        nodes: map.nodes.iter().filter(|node| node.region == region.name).count(),
        answering: reports.iter().filter(|one| one.node.region == region.name && one.status.is_ok()).count(),
        primaries: primaries.iter().filter(|(_, node)| region_of(*node) == Some(region.name.as_str())).count(),
        homes: map.shards.iter().filter(|shard| shard.home_region == region.name).count(),
    };
    Ok(Json(ClusterView {
        regions: map.regions.iter().map(region).collect(),
        nodes: reports.iter().map(|report| node_view(report, &primaries)).collect(),
        shards: ShardHealth {
            count: map.shards.len(),
            without_primary: lacks.without_primary,
            missing_replicas: lacks.missing_replicas,
            behind: lacks.behind,
        },
    }))
}

fn node_view(report: &NodeReport, primaries: &[(u32, u64)]) -> NodeView {
    let (node, answer) = (&report.node, report.status.as_ref().ok());
    let replicas = answer.map(|answer| answer.replicas.as_slice()).unwrap_or_default();
    let stopped = replicas.iter().filter(|replica| !replica.stopped_reason.is_empty());
    NodeView {
        id: node.id,
        region: node.region.clone(),
        address: node.address.clone(),
        state: node_state(node).replace(' ', "_"),
        up: answer.is_some(),
        error: report.status.as_ref().err().map(ToString::to_string),
        version: answer.map(|answer| answer.version.clone()),
        replicas: replicas.len(),
        primaries: primaries.iter().filter(|(_, leader)| *leader == node.id).count(),
        stopped: stopped
            .map(|replica| StoppedView { shard: replica.shard, reason: replica.stopped_reason.clone() })
            .collect(),
        silent_since: (node.silent_since_ms != 0).then_some(Time(node.silent_since_ms)),
    }
}

/// A shard.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShardView {
    shard: u32,
    #[schema(example = "mailbox", pattern = "^(placement|directory|mailbox|-)$")]
    kind: &'static str,
    zone: String,
    /// The region where its primary should be.
    home: String,
    /// The node that leads it; null: none that is known.
    primary: Option<u64>,
    /// The nodes that should have a replica.
    replicas: Vec<u64>,
    /// Of those, the ones whose replica runs.
    running: Vec<u64>,
    users: u64,
    bytes: u64,
    /// Entries of its log that its slowest running replica has not applied yet.
    lag: u64,
    /// The operation that changes it; null: none.
    operation: Option<u64>,
}

/// All shards.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShardViews {
    /// By number.
    shards: Vec<ShardView>,
}

/// List the shards with their primaries and what they hold.
#[utoipa::path(
    get, path = "/v1/admin/shards", operation_id = "list_shards", tag = "administration",
    responses((status = 200, description = "The shards", body = ShardViews), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn shards(operator: Operator) -> Result<Json<ShardViews>, Problem> {
    let reports = operator.settings.operating.reports().await;
    let map = operator.map();
    let mut shards: Vec<ShardView> = map.shards.iter().map(|shard| shard_view(shard, &reports)).collect();
    shards.sort_by_key(|shard| shard.shard);
    Ok(Json(ShardViews { shards }))
}

fn shard_view(shard: &pb::Shard, reports: &[NodeReport]) -> ShardView {
    let primary = primary_of(shard.id, reports);
    let counters = counters_of(shard.id, primary, reports);
    let is_running = |(node, replica): &(u64, &pb::ReplicaStatus)| {
        shard.replicas.contains(node) && replica.stopped_reason.is_empty()
    };
    let running: Vec<_> = replicas_of(shard.id, reports).filter(is_running).collect();
    let done = running.iter().map(|(_, replica)| replica.applied).min().unwrap_or_default();
    ShardView {
        shard: shard.id,
        kind: shard_kind(shard.id),
        zone: shard.zone.clone(),
        home: shard.home_region.clone(),
        primary,
        replicas: shard.replicas.clone(),
        users: counters.map_or(0, |replica| replica.users),
        bytes: counters.map_or(0, |replica| replica.bytes),
        lag: counters.map_or(0, |replica| replica.committed.saturating_sub(done)),
        running: running.into_iter().map(|(node, _)| node).collect(),
        operation: (shard.operation != 0).then_some(shard.operation),
    }
}

/// Give a node's leads and replicas to others. It goes on by itself: see the operations.
#[utoipa::path(
    post, path = "/v1/admin/nodes/{node}/drain", operation_id = "drain_node", tag = "administration",
    params(("node" = u64, Path, description = "Its number")), request_body = Reason,
    responses((status = 202, description = "It has begun", body = OperationBegun), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn drain(
    operator: Operator,
    PathId(node): PathId<u64>,
    JsonBody(reason): JsonBody<Reason>,
) -> Result<OperationBegun, Problem> {
    let why = reason.checked()?;
    let act = Act { action: "node.drain", targets: vec![audit::node(NodeId(node))], why: &why };
    let work = operator.propose(ShardId::PLACEMENT, Op::DrainNode(pb::DrainNode { node }));
    OperationBegun::of(operator.carry_out(act, work).await?)
}

/// Let a node that was drained take leads and replicas again.
#[utoipa::path(
    post, path = "/v1/admin/nodes/{node}/activate", operation_id = "activate_node", tag = "administration",
    params(("node" = u64, Path, description = "Its number")), request_body = Reason,
    responses((status = 204, description = "It takes them again"), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn activate(
    operator: Operator,
    PathId(node): PathId<u64>,
    JsonBody(reason): JsonBody<Reason>,
) -> Result<http::StatusCode, Problem> {
    let why = reason.checked()?;
    let act = Act { action: "node.activate", targets: vec![audit::node(NodeId(node))], why: &why };
    let work = operator.propose(ShardId::PLACEMENT, Op::ActivateNode(pb::ActivateNode { node }));
    match operator.carry_out(act, work).await? {
        outcome::Result::Done(_) => Ok(http::StatusCode::NO_CONTENT),
        _ => Err(Problem::internal("placement gave an outcome of another kind")),
    }
}
