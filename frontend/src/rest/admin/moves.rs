//! What moves now, what moved of late, and what should: operations and the plan.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, outcome, query};
use postrider_router::operate::OperationSummary;
use serde::Serialize;
use utoipa::ToSchema;

use crate::operating::{Plan, PlanStep};
use crate::rest::admin::operator::{Act, Operator, Reason};
use crate::rest::extract::JsonBody;
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;

/// A change that takes time.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationView {
    id: u64,
    #[schema(example = "drain", pattern = "^(replicas|home|drain|balance|make|unknown)$")]
    kind: &'static str,
    /// Of what.
    #[schema(example = "node 3")]
    of: String,
    #[schema(example = "running", pattern = "^(running|cancelling|done|cancelled|unknown)$")]
    state: &'static str,
    /// What is being done.
    #[schema(example = "catching_up")]
    step: String,
    /// Why it gets no further; empty: it gets on.
    waits_for: String,
    /// Where the cluster began it by itself.
    why: String,
    /// The operation that it is a step of; null: of none.
    parent: Option<u64>,
    started_at: Time,
    /// Null while it runs.
    ended_at: Option<Time>,
}

impl From<OperationSummary> for OperationView {
    fn from(summary: OperationSummary) -> Self {
        Self {
            id: summary.id,
            kind: summary.kind,
            of: summary.of,
            state: summary.state,
            step: summary.step.replace(' ', "_"),
            waits_for: summary.waits_for,
            why: summary.why,
            parent: (summary.parent != 0).then_some(summary.parent),
            started_at: Time(summary.started_ms),
            ended_at: summary.ended_ms.map(Time),
        }
    }
}

/// Operations.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationViews {
    /// Those that run and the last that have ended, the newest first.
    operations: Vec<OperationView>,
}

/// List what moves, and what moved of late.
#[utoipa::path(
    get, path = "/v1/admin/operations", operation_id = "list_operations", tag = "administration",
    responses((status = 200, description = "The operations", body = OperationViews), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn operations(operator: Operator) -> Result<Json<OperationViews>, Problem> {
    let list = query::Query::ListOperations(pb::ListOperations { limit: 0 });
    let answer::Answer::Operations(listed) = operator.ask(ShardId::PLACEMENT, list).await? else {
        return Err(Problem::internal("placement gave an answer to another question"));
    };
    let operations = listed.operations.iter().map(|one| OperationSummary::of(one).into()).collect();
    Ok(Json(OperationViews { operations }))
}

/// A step of a plan.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanStepView {
    shard: u32,
    /// What it is for.
    priority: String,
    change: String,
    reason: String,
}

/// A shard that cannot be put right.
#[derive(Serialize, ToSchema)]
pub(crate) struct BlockedView {
    shard: u32,
    reason: String,
}

/// What should move. Nothing is done.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanView {
    /// What would be under way at a time, in this order.
    steps: Vec<PlanStepView>,
    /// Some of those that stay as they are.
    blocked: Vec<BlockedView>,
    /// All of them.
    blocked_shards: usize,
    /// Shards that wait for nodes that do not answer.
    waiting_shards: usize,
    /// More steps would follow.
    has_more: bool,
    /// Nodes that do not answer.
    silent_nodes: Vec<u64>,
}

impl From<Plan> for PlanView {
    fn from(plan: Plan) -> Self {
        let step = |PlanStep { shard, priority, change, reason }| PlanStepView { shard, priority, change, reason };
        Self {
            steps: plan.steps.into_iter().map(step).collect(),
            blocked: plan.blocked.into_iter().map(|(shard, reason)| BlockedView { shard, reason }).collect(),
            blocked_shards: plan.blocked_shards,
            waiting_shards: plan.waiting_shards,
            has_more: plan.has_more,
            silent_nodes: plan.silent_nodes,
        }
    }
}

/// Show what should move, and why. Nothing is done.
#[utoipa::path(
    get, path = "/v1/admin/plan", operation_id = "read_plan", tag = "administration",
    responses((status = 200, description = "The plan", body = PlanView), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn plan(operator: Operator) -> Result<Json<PlanView>, Problem> {
    let plan = operator.settings.operating.plan().await;
    plan.map(|plan| Json(plan.into())).map_err(|reason| Problem::new(Kind::Unavailable).detail(reason))
}

/// An operation that has begun.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationBegun {
    /// Its number; null: all is as it is wanted already.
    operation: Option<u64>,
}

impl OperationBegun {
    pub(crate) fn of(made: outcome::Result) -> Result<Self, Problem> {
        match made {
            outcome::Result::OperationBegun(begun) => Ok(Self { operation: Some(begun.id) }),
            outcome::Result::Done(_) => Ok(Self { operation: None }),
            _ => Err(Problem::internal("placement gave an outcome of another kind")),
        }
    }
}

impl IntoResponse for OperationBegun {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self)).into_response()
    }
}

/// Have the cluster put right and evened out, step by step. It goes on by itself: see the operations.
#[utoipa::path(
    post, path = "/v1/admin/balance", operation_id = "balance_cluster", tag = "administration", request_body = Reason,
    responses((status = 202, description = "It has begun", body = OperationBegun), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn balance(operator: Operator, JsonBody(reason): JsonBody<Reason>) -> Result<OperationBegun, Problem> {
    let why = reason.checked()?;
    let act = Act { action: "cluster.balance", targets: vec!["cluster".to_owned()], why: &why };
    let work = operator.propose(ShardId::PLACEMENT, Op::Balance(pb::Balance {}));
    OperationBegun::of(operator.carry_out(act, work).await?)
}
