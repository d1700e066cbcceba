//! What follows the shards: search indexes, and the blobs in the object stores.

use axum::Json;
use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_api::pb::{SweepPhase, SweepTally, answer, query};
use postrider_router::operate::{self, NodeIndexes};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::admin::operator::Operator;
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// A replica's search index.
#[derive(Serialize, ToSchema)]
pub(crate) struct IndexView {
    shard: u32,
    node: u64,
    /// Messages in it.
    documents: u64,
    bytes: u64,
    /// Changes that it is behind the replica's newest.
    lag: u64,
    rebuilding: bool,
    /// Of so many messages while it is built anew.
    rebuilt: u64,
    /// See there.
    to_rebuild: u64,
}

/// A node that did not answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct SilentView {
    node: u64,
    error: String,
}

/// The search indexes.
#[derive(Serialize, ToSchema)]
pub(crate) struct IndexViews {
    /// By shard and node.
    indexes: Vec<IndexView>,
    failed: Vec<SilentView>,
}

/// List the search indexes of all replicas, and how far each is behind.
#[utoipa::path(
    get, path = "/v1/admin/search", operation_id = "list_search_indexes", tag = "administration",
    responses((status = 200, description = "The indexes", body = IndexViews), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn search(operator: Operator) -> Json<IndexViews> {
    let mut views = IndexViews { indexes: Vec::new(), failed: Vec::new() };
    for NodeIndexes { node, indexes } in operator.settings.operating.search_statuses().await {
        match indexes {
            Ok(indexes) => views.indexes.extend(indexes.into_iter().map(|index| IndexView {
                shard: index.shard,
                node,
                documents: index.documents,
                bytes: index.bytes,
                lag: index.newest.saturating_sub(index.watermark),
                rebuilding: index.rebuilding,
                rebuilt: index.rebuilt,
                to_rebuild: index.to_rebuild,
            })),
            Err(error) => views.failed.push(SilentView { node, error: error.to_string() }),
        }
    }
    views.indexes.sort_by_key(|index| (index.shard, index.node));
    Json(views)
}

/// What a sweep has counted.
#[derive(Serialize, ToSchema)]
pub(crate) struct TallyView {
    blobs: u64,
    bytes: u64,
    copies_read: u64,
    missing: u64,
    damaged: u64,
    restored: u64,
    /// Of which no copy is left.
    lost: u64,
    deleted: u64,
    deleted_bytes: u64,
}

impl From<SweepTally> for TallyView {
    fn from(tally: SweepTally) -> Self {
        Self {
            blobs: tally.blobs,
            bytes: tally.bytes,
            copies_read: tally.copies_read,
            missing: tally.missing,
            damaged: tally.damaged,
            restored: tally.restored,
            lost: tally.lost,
            deleted: tally.deleted,
            deleted_bytes: tally.deleted_bytes,
        }
    }
}

/// The sweep of a zone's blobs.
#[derive(Serialize, ToSchema)]
pub(crate) struct SweepView {
    zone: String,
    number: u64,
    #[schema(example = "ended", pattern = "^(ended|comparing|condemning|deleting|pardoning)$")]
    phase: &'static str,
    /// How much of the hashes is done.
    percent: u64,
    started_at: Time,
    /// Null while it runs.
    ended_at: Option<Time>,
    /// Whether the last that came to its end found everything, or restored it.
    whole: bool,
    /// Of the one that is running.
    running: Option<TallyView>,
    /// Of the last that came to its end.
    last: Option<TallyView>,
}

impl From<pb::Sweep> for SweepView {
    fn from(sweep: pb::Sweep) -> Self {
        let is_running = sweep.phase() != SweepPhase::Ended;
        Self {
            phase: operate::phase(sweep.phase()),
            percent: if is_running { operate::percent(&sweep.cursor) } else { 100 },
            started_at: Time(sweep.started_ms),
            ended_at: (!is_running).then_some(Time(sweep.ended_ms)),
            whole: sweep.last.as_ref().is_none_or(operate::is_whole),
            running: sweep.tally.filter(|_| is_running).map(TallyView::from),
            last: sweep.last.map(TallyView::from),
            number: sweep.number,
            zone: sweep.zone,
        }
    }
}

/// The sweeps.
#[derive(Serialize, ToSchema)]
pub(crate) struct SweepViews {
    /// One of each zone that has had one.
    sweeps: Vec<SweepView>,
}

/// Show what the object stores hold, by the sweeps that look after it.
#[utoipa::path(
    get, path = "/v1/admin/blobs", operation_id = "list_sweeps", tag = "administration",
    responses((status = 200, description = "The sweeps", body = SweepViews), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn blobs(operator: Operator) -> Result<Json<SweepViews>, Problem> {
    let list = query::Query::ListSweeps(pb::ListSweeps {});
    match operator.ask(ShardId::PLACEMENT, list).await? {
        answer::Answer::Sweeps(sweeps) => {
            Ok(Json(SweepViews { sweeps: sweeps.sweeps.into_iter().map(SweepView::from).collect() }))
        }
        _ => Err(Problem::internal("placement gave an answer to another question")),
    }
}
