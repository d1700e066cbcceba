//! `/healthz`, `/readyz`, `/metrics`, `/openapi.json`: for those who run it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use metrics_exporter_prometheus::PrometheusHandle;
use postrider_api::env::Clock;
use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_api::pb::query;
use postrider_router::ReadMode;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use crate::cluster::Cluster;
use crate::rest::administrator::Administrator;
use crate::rest::limit::{READY_CALL_MAX, READY_REUSE, READY_SHARDS_MAX};
use crate::rest::openapi::{MetricsProblems, OperationProblems};
use crate::rest::problem::{Kind, Problem};

/// What answers operators.
pub(crate) struct Operations {
    cluster: Arc<dyn Cluster>,
    clock: Arc<dyn Clock>,
    region: String,
    metrics: Option<PrometheusHandle>,
    /// The last answer and when it was found: checks that come together share one.
    last: Mutex<Option<(Duration, Readiness)>>,
}

impl Operations {
    /// Of a frontend in `region`; `metrics` renders what was counted.
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        clock: Arc<dyn Clock>,
        region: String,
        metrics: Option<PrometheusHandle>,
    ) -> Self {
        Self { cluster, clock, region, metrics, last: Mutex::new(None) }
    }

    async fn readiness(&self) -> Readiness {
        let mut last = self.last.lock().await;
        let now = self.clock.monotonic();
        if let Some((at, readiness)) = &*last
            && now.saturating_sub(*at) < READY_REUSE
        {
            return *readiness;
        }
        let readiness = self.check().await;
        *last = Some((self.clock.monotonic(), readiness));
        readiness
    }

    async fn check(&self) -> Readiness {
        let map = self.cluster.map();
        let of_kind = |kind: pb::ShardKind| map.shards.iter().filter(move |shard| shard.kind() == kind);
        let directory = of_kind(pb::ShardKind::Directory).take(READY_SHARDS_MAX).map(|shard| ShardId(shard.id));
        // The shards that are at home here come first: they are what this frontend is for.
        let here = of_kind(pb::ShardKind::Mailbox).filter(|shard| shard.home_region == self.region);
        let elsewhere = of_kind(pb::ShardKind::Mailbox).filter(|shard| shard.home_region != self.region);
        let mailbox = here.chain(elsewhere).take(READY_SHARDS_MAX).map(|shard| ShardId(shard.id));
        let (directory, mailbox) = futures::join!(self.reach(directory.collect()), self.reach(mailbox.collect()));
        Readiness {
            ready: directory.any() && mailbox.any(),
            degraded: !(directory.all() && mailbox.all()),
            directory,
            mailbox,
        }
    }

    async fn reach(&self, shards: Vec<ShardId>) -> Reached {
        let asked = shards.len();
        let answers = stream::iter(shards).map(|shard| self.has_quorum(shard)).buffer_unordered(READY_SHARDS_MAX);
        let answered = answers.filter(|answered| std::future::ready(*answered)).count().await;
        Reached { asked, answered }
    }

    /// A consistent read needs the leader and its quorum, whatever it asks for.
    async fn has_quorum(&self, shard: ShardId) -> bool {
        let query = query::Query::GetShardStats(pb::GetShardStats {});
        self.cluster.query(shard, None, query, ReadMode::Consistent, 0, READY_CALL_MAX).await.is_ok()
    }
}

/// How many of the shards that were asked have answered.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Reached {
    asked: usize,
    answered: usize,
}

impl Reached {
    fn all(self) -> bool {
        self.asked > 0 && self.answered == self.asked
    }

    fn any(self) -> bool {
        self.answered > 0
    }
}

/// Whether this frontend can serve.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// Whether a directory shard and a mailbox shard that were asked have a quorum: a lost shard is lost at every frontend, so
    /// it must not take one of them out of service.
    ready: bool,
    /// Whether some shard that was asked has none: what is kept there has to wait.
    degraded: bool,
    /// Directory shards.
    directory: Reached,
    /// Mailbox shards, those of this region first.
    mailbox: Reached,
}

/// That the process lives.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// Always true.
    alive: bool,
}

/// Whether the process lives.
#[utoipa::path(
    get, path = "/healthz", tag = "operations",
    responses((status = 200, description = "It does", body = Health), OperationProblems), security(()),
)]
pub(crate) async fn healthz() -> Json<Health> {
    Json(Health { alive: true })
}

/// Whether the cluster can be reached: a quorum of a directory shard and of a mailbox shard.
#[utoipa::path(
    get, path = "/readyz", tag = "operations",
    responses((status = 200, description = "It can", body = Readiness), OperationProblems), security(()),
)]
pub(crate) async fn readyz(State(operations): State<Arc<Operations>>) -> Result<Json<Readiness>, Problem> {
    let readiness = operations.readiness().await;
    if readiness.ready {
        return Ok(Json(readiness));
    }
    let reached = |reached: Reached| serde_json::json!({"asked": reached.asked, "answered": reached.answered});
    Err(Problem::new(Kind::NotReady)
        .member("degraded", readiness.degraded)
        .member("directory", reached(readiness.directory))
        .member("mailbox", reached(readiness.mailbox)))
}

/// Counters, in Prometheus' text format. For the administrator: they tell how much each path is used and how often log-ins fail.
#[utoipa::path(
    get, path = "/metrics", tag = "operations",
    responses((status = 200, description = "The counters", body = String, content_type = "text/plain"), MetricsProblems),
    security(("token" = [])),
)]
pub(crate) async fn metrics(
    State(operations): State<Arc<Operations>>,
    State(administrator): State<Administrator>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if !administrator.asks(&headers) {
        return Err(Problem::new(Kind::Unauthenticated).detail("the administrator's token shows the counters"));
    }
    let text = operations.metrics.as_ref().map(PrometheusHandle::render).unwrap_or_default();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(CONTENT_TYPE, content_type)], text).into_response())
}

/// The OpenAPI document, rendered once.
#[derive(Clone)]
pub(crate) struct OpenApiDocument(pub Bytes);

/// What this page is generated from.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations",
    responses((status = 200, description = "The OpenAPI document", body = Object, content_type = "application/json"), OperationProblems),
    security(()),
)]
pub(crate) async fn openapi_json(State(document): State<OpenApiDocument>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, content_type)], Body::from(document.0)).into_response()
}
