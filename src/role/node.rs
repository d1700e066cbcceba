//! `postrider node`: a storage node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::id::NodeId;
use postrider_node::{Node, NodeOptions};
use serde::{Deserialize, Serialize};

use super::{StoreConfig, TlsFiles};
use crate::signal::Stop;

/// Settings of a storage node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRoleConfig {
    /// This node's number; no other node of the cluster ever has it.
    pub(crate) node: u64,
    /// The region that it stands in.
    pub(crate) region: String,
    /// Where gRPC listens.
    pub(crate) listen: SocketAddr,
    /// How others reach it, host:port.
    pub(crate) advertise: String,
    /// Where its log and state are kept. Holds one node for ever: a node that lost it comes back under another number.
    pub(crate) data_dir: PathBuf,
    /// gRPC addresses of other storage nodes, to learn the shard map from.
    pub(crate) seeds: Vec<String>,
    /// Where counters are served over HTTP at /metrics; not at all when it is left out.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// From the end of a sweep of the object stores to the next, seconds; an hour where it is left out.
    pub(crate) sweep_every_s: Option<u64>,
    /// Its certificate.
    pub(crate) tls: TlsFiles,
    /// Its search indexes.
    #[serde(default)]
    pub(crate) search: SearchConfig,
    /// The object stores of all regions: the node that leads placement sweeps them, and one that moves a shard copies what its
    /// new regions lack. Without them it does neither.
    #[serde(default)]
    pub(crate) stores: Vec<StoreConfig>,
}

/// Settings of a node's search indexes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SearchConfig {
    /// Whether there are any. Without them a search reads the mailbox, which a large one refuses.
    pub(crate) enabled: bool,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Serves until it is told to stop.
pub(crate) async fn run(config: &Path) -> anyhow::Result<()> {
    let config: NodeRoleConfig = super::read(config)?;
    let mut stop = Stop::listen()?;
    let mut options = NodeOptions::new(
        NodeId(config.node),
        config.region,
        config.listen,
        config.data_dir,
        config.tls.load()?,
        SystemClock::shared(),
        SystemEntropy::shared(),
    );
    options.advertise = config.advertise;
    options.seeds = config.seeds;
    options.search = config.search.enabled;
    options.metrics_listen = config.metrics_listen;
    if config.metrics_listen.is_some() {
        // The node listens itself: its gauges are set when somebody looks.
        options.metrics = Some(super::counters::install(None).await?);
    }
    options.sweep.stores = super::backend::stores(&config.stores).await?;
    if let Some(seconds) = config.sweep_every_s {
        options.sweep.every = Duration::from_secs(seconds);
    }
    let node = Node::start(options).await.context("start the storage node")?;
    tracing::info!(node = config.node, listen = %config.listen, "storage node serves");
    let reason = stop.wait().await;
    tracing::info!(reason, "storage node stops");
    node.shutdown().await;
    Ok(())
}
