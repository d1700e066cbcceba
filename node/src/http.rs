//! `/metrics` and `/healthz` over plain HTTP, for what scrapes and what restarts.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use postrider_raft::Role;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::replicas::Replicas;

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
    stop: CancellationToken,
) {
    let routes = Router::new()
        .route("/metrics", get(move || std::future::ready(render(&metrics))))
        .route("/healthz", get(move || std::future::ready(health(&replicas))));
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the metrics listener has ended");
    }
}

fn render(metrics: &PrometheusHandle) -> String {
    metrics.run_upkeep();
    metrics.render()
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
