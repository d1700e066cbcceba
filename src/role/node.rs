//! `postrider node`: a storage node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::id::NodeId;
use postrider_api::limit::NODE_SILENT_MS_MIN;
use postrider_balance::view::CAPACITY_MAX;
use postrider_node::{BalanceOptions, CapacityOptions, Node, NodeOptions};
use serde::{Deserialize, Serialize};

use super::{StoreConfig, TlsFiles};
use crate::signal::Stop;
use crate::telemetry::traces::{self, Process, TracesConfig};

/// Settings of a storage node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeRoleConfig {
    /// This node's number; no other node of the cluster ever has it.
    pub(crate) node: u64,
    /// The region that it stands in.
    pub(crate) region: String,
    /// What fails at once with other nodes that name the same: a rack, a power feed.
    #[serde(default)]
    pub(crate) failure_domain: String,
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
    /// How the cluster looks after itself while this node leads placement.
    #[serde(default)]
    pub(crate) balance: BalanceConfig,
    /// What it can take.
    #[serde(default)]
    pub(crate) capacity: CapacityConfig,
    /// Which traces are kept, and where they go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) traces: Option<TracesConfig>,
    /// The object stores of all regions: the node that leads placement sweeps them, and one that moves a shard copies what its
    /// new regions lack. Without them it does neither.
    #[serde(default)]
    pub(crate) stores: Vec<StoreConfig>,
}

/// Settings of the balancer. All nodes should have the same: whichever leads placement goes by its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BalanceConfig {
    /// A node that is silent for so long is given up, and what it has is made elsewhere, seconds; 0: never by itself.
    pub(crate) dead_after_s: u64,
    /// Whether homes and what is uneven are looked after without an operator, too.
    pub(crate) automatic: bool,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self { dead_after_s: BalanceOptions::DEAD_AFTER.as_secs(), automatic: false }
    }
}

impl BalanceConfig {
    fn options(&self) -> anyhow::Result<BalanceOptions> {
        let least = NODE_SILENT_MS_MIN.unsigned_abs() / 1000;
        ensure!(
            self.dead_after_s == 0 || self.dead_after_s >= least,
            "balance.dead_after_s: 0, or at least {least}: a restart must not count as a loss"
        );
        let dead_after = (self.dead_after_s > 0).then(|| Duration::from_secs(self.dead_after_s));
        Ok(BalanceOptions { dead_after, automatic: self.automatic, ..Default::default() })
    }
}

/// What a node can take: shares of replicas and leads follow it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CapacityConfig {
    /// What shards may take of its disk, bytes. Where it is left out: all that nothing else has.
    pub(crate) bytes: Option<u64>,
    /// Writes a second that it bears all day. Where it is left out: 500 for each of its processors.
    pub(crate) writes_per_s: Option<u64>,
}

impl CapacityConfig {
    fn options(&self) -> anyhow::Result<CapacityOptions> {
        for (key, value) in [("bytes", self.bytes), ("writes_per_s", self.writes_per_s)] {
            let is_one = value.is_none_or(|value| (1..=CAPACITY_MAX).contains(&value));
            ensure!(is_one, "capacity.{key}: 1 to {CAPACITY_MAX}");
        }
        Ok(CapacityOptions { bytes: self.bytes, writes_per_s: self.writes_per_s })
    }
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
    let process = Process { role: "node", region: config.region.clone(), node: Some(config.node) };
    traces::start(config.traces.as_ref(), &process)?;
    let mut stop = Stop::listen()?;
    let identity = config.tls.load()?;
    let _kept_up = super::keep_up(&identity);
    let mut options = NodeOptions::new(
        NodeId(config.node),
        config.region,
        config.listen,
        config.data_dir,
        identity,
        SystemClock::shared(),
        SystemEntropy::shared(),
    );
    options.failure_domain = config.failure_domain;
    options.advertise = config.advertise;
    options.seeds = config.seeds;
    options.balance = config.balance.options()?;
    options.capacity = config.capacity.options()?;
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
