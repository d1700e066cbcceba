//! `/metrics` and `/healthz` over plain HTTP, for what scrapes and what restarts.

use std::future::IntoFuture;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use postrider_raft::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::gauges::Gauges;
use crate::replicas::Replicas;

/// How often samples are folded into summaries.
const UPKEEP: Duration = Duration::from_secs(5);

/// Makes this process's metrics visible.
///
/// # Errors
/// When another recorder was installed in this process before.
pub(crate) fn install_recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new().install_recorder()
}

pub(crate) async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    replicas: Replicas,
    gauges: Gauges,
    stop: CancellationToken,
) {
    let (upkeep, held) = (metrics.clone(), replicas.clone());
    let render = move || {
        gauges.set(&held);
        std::future::ready(metrics.render())
    };
    let routes = Router::new()
        .route("/metrics", get(render))
        .route("/healthz", get(move || std::future::ready(health(&replicas))));
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    tokio::select! {
        served = serving.into_future() => {
            if let Err(error) = served {
                tracing::error!(%error, "the metrics listener has ended");
            }
        }
        () = keep_up(upkeep) => {}
    }
}

/// Folds samples into summaries also while nobody scrapes: they would be kept one by one until somebody does.
async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

/// Well while no replica has stopped: a stopped one does not come back by itself.
fn health(replicas: &Replicas) -> (StatusCode, String) {
    let stopped: Vec<_> = replicas
        .host
        .groups()
        .into_iter()
        .filter_map(|group| match replicas.host.status(group)?.role {
            Role::Stopped { reason } => Some(format!("shard {}: {reason}\n", group.0)),
            _ => None,
        })
        .collect();
    if stopped.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, stopped.concat())
    }
}
