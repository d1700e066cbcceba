//! `postrider store`: the embedded object store of one region.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use postrider_blob::server::{S3ServerOptions, serve};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::signal::Stop;
use crate::telemetry::traces::{self, Process, TracesConfig};

/// Settings of the object store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreRoleConfig {
    /// Where to listen. Plain HTTP with signed requests: for a loopback or a protected network.
    pub(crate) listen: SocketAddr,
    /// Where the objects are kept.
    pub(crate) data_dir: PathBuf,
    /// The one S3 access key that is known.
    pub(crate) access_key: String,
    /// File that holds its secret key.
    pub(crate) secret_key_file: PathBuf,
    /// Where counters are served over plain HTTP at /metrics; not at all when it is left out.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Which traces are kept, and where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<TracesConfig>,
}

/// Serves until it is told to stop.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let config: StoreRoleConfig = super::read(config)?;
    let secret_key = super::read_secret(&config.secret_key_file)?;
    if config.metrics_listen.is_some() {
        super::counters::install(config.metrics_listen).await?;
    }
    traces::start(config.traces.as_ref(), &Process { role: "store", region: String::new(), node: None })?;
    let mut stop = Stop::listen()?;
    let listener = TcpListener::bind(config.listen).await.with_context(|| format!("listen on {}", config.listen))?;
    let options =
        S3ServerOptions { dir: config.data_dir, address: config.listen, access_key: config.access_key, secret_key };
    tracing::info!(listen = %config.listen, "object store serves");
    serve(options, listener, async move {
        let reason = stop.wait().await;
        tracing::info!(reason, "object store stops");
    })
    .await
    .context("serve objects")
}
