//! What a router is told when it starts.

use std::sync::Arc;
use std::time::Duration;

use postrider_api::env::{Clock, Entropy};
use postrider_api::tls::TlsIdentity;

/// What a router needs to start.
#[derive(Clone)]
pub struct RouterOptions {
    /// Addresses (host:port) of storage nodes to ask first. The rest comes from the shard map.
    pub nodes: Vec<String>,
    /// The region that this process runs in: its nodes are near until measured otherwise.
    pub region: String,
    /// This process's certificate; its role decides what the nodes let it call.
    pub identity: TlsIdentity,
    /// Measures round trips and deadlines.
    pub clock: Arc<dyn Clock>,
    /// Forms request ids, the random bits of commands, and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// How long things may take.
    pub timings: RouterTimings,
    /// How much may be held.
    pub limits: RouterLimits,
}

impl RouterOptions {
    /// Options with the timings and limits that suit regions up to 250 ms apart.
    pub fn new(
        nodes: Vec<String>,
        region: String,
        identity: TlsIdentity,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            nodes,
            region,
            identity,
            clock,
            entropy,
            timings: RouterTimings::default(),
            limits: RouterLimits::default(),
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct RouterTimings {
    /// One attempt at one node: longer than a commit across regions under load takes, short enough that a node which
    /// swallows requests does not use up the caller's time.
    pub attempt: Duration,
    /// A shard without a leader that has a quorum for this long is given up. Failover takes at most 3 s (P-7), and SMTP and
    /// REST must refuse within 5 s.
    pub leaderless: Duration,
    /// A shard whose leader is overloaded for this long is given up.
    pub busy: Duration,
    /// How long a read that may be stale tries to be consistent first.
    pub consistent_first: Duration,
    /// The same, for a shard that was found without a leader a moment ago.
    pub consistent_first_troubled: Duration,
    /// Pause before the second attempt; doubles from there, with jitter.
    pub backoff_min: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
    /// A node that failed is not believed to lead for this long, and twice as long each time it fails again.
    pub suspicion: Duration,
    /// The longest that it is not believed: less than `leaderless`, so that one that is back is found before a call is given
    /// up.
    pub suspicion_max: Duration,
    /// How often the round trip to each region is measured.
    pub probe: Duration,
    /// How long [`crate::Router::connect`] looks for a first shard map.
    pub first_map: Duration,
    /// A map stream is opened anew at another node after this long, so that nobody follows a cut-off replica for ever.
    pub map_stream: Duration,
    /// A watch that is silent for this long is opened anew; nodes send a heartbeat every 5 s.
    pub watch_silence: Duration,
}

impl Default for RouterTimings {
    fn default() -> Self {
        Self {
            attempt: Duration::from_millis(1500),
            leaderless: Duration::from_millis(3800),
            busy: Duration::from_millis(2000),
            consistent_first: Duration::from_millis(1500),
            consistent_first_troubled: Duration::from_millis(250),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(300),
            suspicion: Duration::from_millis(1000),
            suspicion_max: Duration::from_millis(3000),
            probe: Duration::from_secs(10),
            first_map: Duration::from_secs(30),
            map_stream: Duration::from_secs(120),
            watch_silence: Duration::from_secs(15),
        }
    }
}

/// How much may be held (P-13).
#[derive(Debug, Clone)]
pub struct RouterLimits {
    /// Shards whose leader is remembered.
    pub leaders_max: u64,
    /// Users whose shard is remembered.
    pub users_max: u64,
    /// Nodes with open connections.
    pub nodes_max: u64,
    /// Connections a node for calls. Several, because one connection's packets arrive in order: a lost one holds up every
    /// call behind it.
    pub connections_per_node: usize,
    /// Connections a node for watches; one more is opened as they fill.
    pub watch_connections_per_node: usize,
    /// Watches on one connection; less than the streams that a node grants a connection.
    pub watches_per_connection: usize,
}

impl Default for RouterLimits {
    fn default() -> Self {
        Self {
            leaders_max: 200_000,
            users_max: 200_000,
            nodes_max: 4096,
            connections_per_node: 3,
            watch_connections_per_node: 32,
            watches_per_connection: 1000,
        }
    }
}
