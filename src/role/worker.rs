//! `postrider worker`: delivers what waits in queues, in a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_frontend::limits::RegionWorkers;
use postrider_frontend::rest::ClusterSecret;
use postrider_frontend::worker::WorkerTimings;
use postrider_frontend::{Frontend, FrontendOptions};
use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::cache::RedisConfig;
use super::outgoing::{OutgoingConfig, machine_name};
use super::{ClusterConfig, StoreConfig};
use crate::signal::Stop;
use crate::telemetry::traces::{self, Process, TracesConfig};

/// Settings of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerRoleConfig {
    /// The region that it stands in.
    pub(crate) region: String,
    /// Where counters are served over plain HTTP at /metrics; not at all when it is left out.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// The storage nodes.
    pub(crate) cluster: ClusterConfig,
    /// The frontends' secret, which opens the keys that mail is signed with; without it mail of domains that have keys waits for another
    /// worker.
    pub(crate) cursor_secret_file: Option<PathBuf>,
    /// How mail leaves.
    #[serde(default)]
    pub(crate) outgoing: OutgoingConfig,
    /// The region's Redis, by which its workers know of each other.
    pub(crate) redis: Option<RedisConfig>,
    /// Which traces are kept, and where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<TracesConfig>,
    /// The object stores of all regions.
    pub(crate) stores: Vec<StoreConfig>,
}

/// Works until it is told to stop, then finishes what is under way.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let config: WorkerRoleConfig = super::read(config)?;
    if config.metrics_listen.is_some() {
        super::counters::install(config.metrics_listen).await?;
    }
    let process = Process { role: "worker", region: config.region.clone(), node: None };
    traces::start(config.traces.as_ref(), &process)?;
    let mut stop = Stop::listen()?;
    let backend = Backend::new(&config.region, &config.cluster, &config.stores).await?;
    let Some(router) = backend.connect(&mut stop).await? else { return Ok(()) };
    let secret = config.cursor_secret_file.as_deref().map(super::read_secret).transpose()?;
    let secret =
        secret.map(|secret| ClusterSecret::new(secret.into_bytes())).transpose().context("cursor_secret_file")?;
    let redis = config.redis.as_ref().map(|redis| redis.settings().context("redis")).transpose()?;
    let region = redis.as_ref().map(RegionWorkers::start).transpose().context("redis")?;
    let outside = config.outgoing.settings(&machine_name(), &backend.blobs, secret.as_ref(), region)?;
    let options = FrontendOptions {
        accounts: None,
        region: config.region.clone(),
        cluster: Arc::new(router),
        blobs: backend.blobs,
        clock: SystemClock::shared(),
        entropy: SystemEntropy::shared(),
        rest: None,
        smtp: None,
        worker: Some(WorkerTimings::default()),
        outside,
    };
    let worker = Frontend::start(options).await.context("start the worker")?;
    tracing::info!(region = config.region, "worker works");
    let reason = stop.wait().await;
    tracing::info!(reason, "worker stops");
    worker.shutdown().await;
    Ok(())
}
