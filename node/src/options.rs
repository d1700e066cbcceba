//! What a node is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use postrider_api::env::{Clock, Entropy};
use postrider_api::id::NodeId;
use postrider_api::tls::TlsIdentity;
use postrider_raft::transport::Transport;
use postrider_raft::{Clock as RaftClock, Faults, Limits, NoFaults, SystemClock, Timings};

use crate::sweep::SweepOptions;

/// What a node needs to start.
#[derive(Clone)]
pub struct NodeOptions {
    /// Its id; never given to another data directory.
    pub node: NodeId,
    /// The region it is in.
    pub region: String,
    /// What fails at once with other nodes that name the same: a rack, a power feed. Empty: nothing but its region, or what an operator has
    /// registered.
    pub failure_domain: String,
    /// Where it listens for gRPC.
    pub listen: SocketAddr,
    /// The address (host:port) under which others reach it.
    pub advertise: String,
    /// Where it keeps everything. Exclusively its own.
    pub dir: PathBuf,
    /// Its certificate, of the role `node`.
    pub tls: TlsIdentity,
    /// Addresses of other nodes, to get a shard map from while this one holds no placement replica.
    pub seeds: Vec<String>,
    /// Where `/metrics` and `/healthz` are served over HTTP, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The process's metrics, where another role has installed the recorder already; otherwise the node installs one.
    pub metrics: Option<PrometheusHandle>,
    /// Timings of consensus.
    pub raft_timings: Timings,
    /// Limits of consensus.
    pub raft_limits: Limits,
    /// The clocks that leases are measured with.
    pub raft_clock: Arc<dyn RaftClock>,
    /// How consensus reaches other nodes; gRPC over TCP where nothing else is given.
    pub raft_transport: Option<Arc<dyn Transport>>,
    /// Faults for tests; none in production.
    pub faults: Arc<dyn Faults>,
    /// Timings of the node itself.
    pub timings: NodeTimings,
    /// Limits of the node itself.
    pub limits: NodeLimits,
    /// Whether it keeps search indexes. Without them searches read the mailbox, as far as a read's budget goes.
    pub search: bool,
    /// How it looks after the object stores when it leads placement.
    pub sweep: SweepOptions,
    /// How it looks after the whole cluster when it leads placement.
    pub balance: BalanceOptions,
    /// What it can take.
    pub capacity: CapacityOptions,
    /// Stamps commands, and tells whether a session has expired.
    pub clock: Arc<dyn Clock>,
    /// Forms request ids and jitter.
    pub entropy: Arc<dyn Entropy>,
}

impl NodeOptions {
    /// Options with the timings and limits that suit regions up to 250 ms apart.
    pub fn new(
        node: NodeId,
        region: String,
        listen: SocketAddr,
        dir: PathBuf,
        tls: TlsIdentity,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            node,
            region,
            failure_domain: String::new(),
            listen,
            advertise: listen.to_string(),
            dir,
            tls,
            seeds: Vec::new(),
            metrics_listen: None,
            metrics: None,
            raft_timings: Timings::default(),
            raft_limits: Limits::default(),
            raft_clock: Arc::new(SystemClock),
            raft_transport: None,
            faults: Arc::new(NoFaults),
            timings: NodeTimings::default(),
            limits: NodeLimits::default(),
            search: true,
            sweep: SweepOptions::default(),
            balance: BalanceOptions::default(),
            capacity: CapacityOptions::default(),
            clock,
            entropy,
        }
    }
}

/// How long things may take.
#[derive(Debug, Clone)]
pub struct NodeTimings {
    /// A watch that has nothing to tell says so this often.
    pub heartbeat: Duration,
    /// A watch ends when its leader has heard no quorum for this long: another replica may lead by then.
    pub watch_without_quorum: Duration,
    /// How often the steward looks after leadership, moves and leftovers.
    pub steward: Duration,
    /// How long a shard's lead must be away from home, with home healthy, before it is handed over.
    pub homesick: Duration,
    /// How often the node compares its clock with its peers'.
    pub clock_check: Duration,
    /// A clock that is this far off its peers' must not stamp commands.
    pub clock_skew: Duration,
    /// A move that gets no further for this long is given up.
    pub move_patience: Duration,
    /// A replica that the map does not list is removed after this long.
    pub leftover: Duration,
    /// What handing the leads over may take when the node shuts down.
    pub drain: Duration,
    /// What a call to another node may take.
    pub peer_call: Duration,
    /// What opened connections are given to end by themselves when the node shuts down.
    pub close: Duration,
}

impl Default for NodeTimings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(5),
            watch_without_quorum: Duration::from_secs(5),
            steward: Duration::from_secs(2),
            homesick: Duration::from_secs(15),
            clock_check: Duration::from_secs(10),
            clock_skew: Duration::from_secs(1),
            move_patience: Duration::from_secs(600),
            leftover: Duration::from_secs(60),
            drain: Duration::from_secs(5),
            peer_call: Duration::from_secs(3),
            close: Duration::from_secs(1),
        }
    }
}

/// How the cluster looks after itself while this node leads placement.
#[derive(Debug, Clone)]
pub struct BalanceOptions {
    /// What a node has that was silent for so long is made elsewhere; `None`: never by itself.
    pub dead_after: Option<Duration>,
    /// Policies, homes and what is uneven are looked after by themselves as well, not only when an operator asks for it.
    pub automatic: bool,
    /// What may move at once, and how uneven the cluster may be.
    pub limits: postrider_balance::limits::Limits,
}

impl BalanceOptions {
    /// How long a node is silent before it is given up, unless somebody says otherwise: a machine has started again by then.
    pub const DEAD_AFTER: Duration = Duration::from_secs(600);
    /// The longest pause between two looks at all nodes.
    const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
    /// The shortest.
    const LOOK_EVERY_MIN: Duration = Duration::from_millis(500);
    /// Looks in the time after which a node is given up.
    const LOOKS: u32 = 10;

    /// How often all nodes are asked whether they are there.
    pub(crate) fn look_every(&self) -> Duration {
        let shared_out = self.dead_after.map_or(Self::LOOK_EVERY_MAX, |after| after / Self::LOOKS);
        shared_out.clamp(Self::LOOK_EVERY_MIN, Self::LOOK_EVERY_MAX)
    }
}

impl Default for BalanceOptions {
    fn default() -> Self {
        let limits = postrider_balance::limits::Limits::default();
        Self { dead_after: Some(Self::DEAD_AFTER), automatic: false, limits }
    }
}

/// What a node can take. Shares of replicas and leads follow it.
#[derive(Debug, Clone, Default)]
pub struct CapacityOptions {
    /// What shards may take of its disk; `None`: all that nothing else has.
    pub bytes: Option<u64>,
    /// Writes a second that it bears all day; `None`: by its processors.
    pub writes_per_s: Option<u64>,
}

/// How much may be held (P-13).
#[derive(Debug, Clone)]
pub struct NodeLimits {
    /// Open gRPC connections.
    pub connections_max: usize,
    /// Mailboxes watched at once.
    pub watches_max: usize,
    /// Map streams at once.
    pub map_watches_max: usize,
    /// Lease calls that wait for an entry at once.
    pub lease_waiters_max: usize,
    /// Entries of one shard that are leased at once.
    pub leases_max: usize,
    /// The longest lease, milliseconds.
    pub lease_ms_max: u32,
    /// The longest wait for an entry to become due, milliseconds.
    pub lease_wait_ms_max: u32,
    /// Scans of whole shards for an operator (digest, verify) at once.
    pub scans_max: usize,
    /// The same that wait for a place.
    pub scans_waiting_max: usize,
    /// Searches of whole shards (by Message-ID) at once; none waits.
    pub searches_max: usize,
    /// Reads at once that went over the budget of the threads that answer.
    pub large_reads_max: usize,
    /// The same that wait for a place.
    pub large_reads_waiting_max: usize,
    /// Searches of one mailbox at once.
    pub finds_max: usize,
    /// The same that wait for a place.
    pub finds_waiting_max: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            connections_max: 8192,
            watches_max: 200_000,
            map_watches_max: 8192,
            lease_waiters_max: 4096,
            leases_max: 10_000,
            lease_ms_max: postrider_api::limit::LEASE_MS_MAX,
            lease_wait_ms_max: 60 * 1000,
            scans_max: 2,
            scans_waiting_max: 64,
            searches_max: 2,
            large_reads_max: 4,
            large_reads_waiting_max: 256,
            finds_max: 4,
            finds_waiting_max: 256,
        }
    }
}
