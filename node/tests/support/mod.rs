//! Nodes in one process, each in a runtime of its own so that it can die at once, over real TLS on loopback.

#[path = "../../../router/tests/support/authority.rs"]
pub mod authority;
#[path = "../../../router/tests/support/ending.rs"]
mod ending;
pub mod mail;
mod pulse;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use authority::Authority;
use ending::end;
use postrider_api::env::{Clock, SystemClock, SystemEntropy};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::identity::Role;
use postrider_api::pb::command::Op;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::pb::{self, ReplicaRole, answer, outcome, query};
use postrider_api::tls::TlsIdentity;
use postrider_node::{BalanceOptions, Node, NodeLimits, NodeOptions, NodeTimings, StartError};
use postrider_router::{AdminClient, BootstrapPlan, ReadMode, Router, RouterOptions, bootstrap};
pub use pulse::Pulse;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

/// What anything may take on a machine that is busy with other things.
pub const GENEROUS: Duration = Duration::from_secs(60);
/// One for each node: a shard has no two replicas in one region.
pub const REGIONS: [&str; 5] = ["seoul", "frankfurt", "virginia", "sydney", "mumbai"];
pub const DIRECTORY: ShardId = ShardId(2);
pub const MAILBOX: ShardId = ShardId(1000);
pub const OTHER_MAILBOX: ShardId = ShardId(1001);

/// The system's clock, set wrong by a test.
pub struct WrongClock {
    right: Arc<dyn Clock>,
    pub ahead_ms: AtomicI64,
}

impl Clock for WrongClock {
    fn wall_ms(&self) -> i64 {
        self.right.wall_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        self.right.monotonic()
    }
}

struct Running {
    runtime: Runtime,
    node: Node,
}

pub struct Cluster {
    /// Threads of each node's runtime.
    workers: usize,
    pub authority: Authority,
    dir: TempDir,
    timings: NodeTimings,
    limits: NodeLimits,
    balance: BalanceOptions,
    addresses: BTreeMap<u64, (SocketAddr, &'static str)>,
    clocks: BTreeMap<u64, Arc<WrongClock>>,
    running: BTreeMap<u64, Running>,
}

impl Cluster {
    /// `nodes` nodes, the regions in turn, not yet a cluster.
    pub fn start(nodes: u64, timings: NodeTimings) -> Self {
        Self::start_within(nodes, timings, NodeLimits::default())
    }

    /// The same, with other limits than the usual ones.
    pub fn start_within(nodes: u64, timings: NodeTimings, limits: NodeLimits) -> Self {
        Self::start_numbered(1..=nodes, timings, limits)
    }

    /// The same, with these numbers.
    pub fn start_numbered(ids: RangeInclusive<u64>, timings: NodeTimings, limits: NodeLimits) -> Self {
        Self::start_on(2, ids, timings, limits)
    }

    /// The same, with so many threads in each node's runtime.
    pub fn start_on(workers: usize, ids: RangeInclusive<u64>, timings: NodeTimings, limits: NodeLimits) -> Self {
        // Other tests count replicas where they have put them.
        let balance = BalanceOptions { dead_after: None, automatic: false, ..Default::default() };
        Self::start_with(workers, ids, timings, limits, balance)
    }

    /// The same, and it looks after itself.
    pub fn start_balanced(nodes: u64, timings: NodeTimings, balance: BalanceOptions) -> Self {
        Self::start_with(2, 1..=nodes, timings, NodeLimits::default(), balance)
    }

    fn start_with(
        workers: usize,
        ids: RangeInclusive<u64>,
        timings: NodeTimings,
        limits: NodeLimits,
        balance: BalanceOptions,
    ) -> Self {
        let mut cluster = Self {
            workers,
            authority: Authority::new(),
            dir: tempfile::tempdir().unwrap(),
            timings,
            limits,
            balance,
            addresses: BTreeMap::new(),
            clocks: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        for id in ids {
            // Free until it is bound again; nothing else in a test binds ports that it was not given.
            let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let region = REGIONS[(id as usize - 1) % REGIONS.len()];
            cluster.addresses.insert(id, (probe.local_addr().unwrap(), region));
            drop(probe);
            let clock = WrongClock { right: SystemClock::shared(), ahead_ms: AtomicI64::new(0) };
            cluster.clocks.insert(id, Arc::new(clock));
            cluster.run(id);
        }
        cluster
    }

    /// Starts a node, or starts it again from its directory.
    pub fn run(&mut self, id: u64) {
        let began = Instant::now();
        loop {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(self.workers).enable_all();
            if self.workers == 1 {
                // Timers are looked at behind every task: a pulse shows how long one of them kept the thread, not sixty.
                builder.event_interval(1);
            }
            let runtime = builder.build().unwrap();
            match runtime.block_on(Node::start(self.options(id))) {
                Ok(node) => {
                    self.running.insert(id, Running { runtime, node });
                    return;
                }
                // What was killed lets go of its locks when its last thread ends.
                Err(error) if began.elapsed() < GENEROUS => {
                    eprintln!("node {id} does not start yet: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => panic!("node {id} does not start: {error}"),
            }
        }
    }

    fn options(&self, id: u64) -> NodeOptions {
        let (address, region) = self.addresses[&id];
        let mut options = NodeOptions::new(
            NodeId(id),
            region.to_owned(),
            address,
            self.directory(id),
            self.authority.issue(Role::Node),
            self.clocks[&id].clone(),
            SystemEntropy::shared(),
        );
        options.seeds = self.addresses.values().map(|(address, _)| address.to_string()).collect();
        options.timings = self.timings.clone();
        options.limits = self.limits.clone();
        options.balance = self.balance.clone();
        // They are all on one disk.
        options.capacity.bytes = Some(1 << 40);
        options
    }

    /// From its next start on the node is at another address.
    pub fn relocate(&mut self, id: u64) {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        self.addresses.get_mut(&id).unwrap().0 = probe.local_addr().unwrap();
    }

    /// Starts a node that is not to start, and says why it does not.
    pub fn start_refused(&self, id: u64) -> StartError {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started = runtime.block_on(Node::start(self.options(id)));
        end(runtime);
        match started {
            Ok(_) => panic!("node {id} starts"),
            Err(error) => error,
        }
    }

    pub fn directory(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("node-{id}"))
    }

    pub fn address(&self, id: u64) -> String {
        self.addresses[&id].0.to_string()
    }

    /// As `kill -9` would: nothing is flushed, nobody is told.
    pub fn kill(&mut self, id: u64) {
        let Running { runtime, node } = self.running.remove(&id).unwrap();
        end(runtime);
        // Its database is closed now and not while the process exits: RocksDB has no locks any more then, and aborts.
        drop(node);
    }

    /// Feels a node's pulse, which its runtime's only thread beats.
    pub fn pulse(&self, id: u64) -> Pulse {
        assert_eq!(self.workers, 1, "another thread would beat it while this one is kept");
        Pulse::feel(&self.running[&id].runtime)
    }

    /// Stops a node in good order.
    pub fn shut_down(&mut self, id: u64) {
        let Running { runtime, node } = self.running.remove(&id).unwrap();
        runtime.block_on(node.shutdown());
        end(runtime);
    }

    /// Sets a node's clock wrong.
    pub fn set_ahead(&self, id: u64, ms: i64) {
        self.clocks[&id].ahead_ms.store(ms, Ordering::Relaxed);
    }

    pub fn nodes(&self) -> Vec<pb::Node> {
        self.addresses
            .iter()
            .map(|(id, (address, region))| pb::Node {
                id: *id,
                region: (*region).to_owned(),
                address: address.to_string(),
                ..Default::default()
            })
            .collect()
    }

    fn router_options(&self, role: Role) -> RouterOptions {
        RouterOptions::new(
            self.addresses.values().map(|(address, _)| address.to_string()).collect(),
            "seoul".to_owned(),
            self.authority.issue(role),
            SystemClock::shared(),
            SystemEntropy::shared(),
        )
    }

    /// Makes the cluster: placement, one directory shard, two mailbox shards, on the first three nodes.
    pub async fn bootstrap(&self) {
        self.bootstrap_on(&[NodeId(1), NodeId(2), NodeId(3)]).await;
    }

    /// The same, on these nodes.
    pub async fn bootstrap_on(&self, replicas: &[NodeId]) {
        let shard = |id, home| BootstrapPlan::shard(id, replicas, home, "zone");
        let plan = BootstrapPlan {
            regions: REGIONS
                .iter()
                .map(|region| pb::Region {
                    name: (*region).to_owned(),
                    zone: "zone".to_owned(),
                    store_address: "127.0.0.1:9".to_owned(),
                    ..Default::default()
                })
                .collect(),
            nodes: self.nodes(),
            shards: vec![
                shard(ShardId::PLACEMENT, "seoul"),
                pb::Shard { slot_last: 0xffff, ..shard(DIRECTORY, "seoul") },
                shard(MAILBOX, "seoul"),
                shard(OTHER_MAILBOX, "frankfurt"),
            ],
            domains: vec![pb::Domain {
                name: "postrider.example".to_owned(),
                zone: "zone".to_owned(),
                ..Default::default()
            }],
        };
        bootstrap(self.router_options(Role::Ctl), &plan, GENEROUS, |_| ()).await.unwrap();
    }

    pub async fn router(&self) -> Router {
        Router::connect(self.router_options(Role::Frontend)).await.unwrap()
    }

    /// A router with an operator's certificate.
    pub async fn operator(&self) -> Router {
        Router::connect(self.router_options(Role::Ctl)).await.unwrap()
    }

    /// Has placement carry out a command; `Err`: the sentence of its refusal.
    pub async fn place(&self, op: Op) -> Result<outcome::Result, String> {
        let command = pb::Command { op: Some(op), ..Default::default() };
        let outcome = self.operator().await.propose(ShardId::PLACEMENT, None, command, GENEROUS).await.unwrap();
        match outcome.result.unwrap() {
            outcome::Result::Refused(refused) => Err(refused.detail),
            result => Ok(result),
        }
    }

    /// Has placement begin an operation, and waits until it has ended.
    pub async fn operate(&self, op: Op) -> pb::Operation {
        let outcome::Result::OperationBegun(begun) = self.place(op).await.unwrap() else { panic!("it is so already") };
        self.ended(begun.id).await
    }

    /// An operation, running or ended.
    pub async fn operation(&self, id: u64) -> pb::Operation {
        let get = query::Query::GetOperation(pb::GetOperation { id });
        let operator = self.operator().await;
        let answered = operator.query(ShardId::PLACEMENT, None, get, ReadMode::Consistent, 0, GENEROUS).await.unwrap();
        let Some(answer::Answer::Operation(operation)) = answered.answer.answer else { panic!("{answered:?}") };
        operation
    }

    /// Waits until an operation has ended.
    pub async fn ended(&self, id: u64) -> pb::Operation {
        let began = Instant::now();
        loop {
            let operation = self.operation(id).await;
            if operation.ended_ms > 0 {
                return operation;
            }
            assert!(began.elapsed() < GENEROUS, "it does not end: {operation:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The nodes that the map has replicas of a shard on, by their numbers.
    pub async fn placed(&self, shard: ShardId) -> Vec<u64> {
        let map = self.operator().await.map();
        let placed = map.shards.iter().find(|placed| placed.id == shard.0).unwrap();
        let mut replicas = placed.replicas.clone();
        replicas.sort_unstable();
        replicas
    }

    /// Gives a shard its replicas on these nodes, and waits until that is done or given up.
    pub async fn set_replicas(&self, shard: ShardId, replicas: &[u64]) -> pb::Operation {
        let set = pb::SetReplicas { shard: shard.0, replicas: replicas.to_vec(), ..Default::default() };
        self.operate(Op::SetReplicas(set)).await
    }

    /// The same, with one replica on another node.
    pub async fn move_replica(&self, shard: ShardId, from: u64, to: u64) -> pb::Operation {
        let map = self.operator().await.map();
        let placed = map.shards.iter().find(|placed| placed.id == shard.0).unwrap();
        assert!(placed.replicas.contains(&from), "{placed:?}");
        let replicas: Vec<u64> = placed.replicas.iter().map(|id| if *id == from { to } else { *id }).collect();
        self.set_replicas(shard, &replicas).await
    }

    pub fn identity(&self, role: Role) -> TlsIdentity {
        self.authority.issue(role)
    }

    /// A node as a process of `role` reaches it, without a router between.
    pub fn shard_service(&self, id: u64, role: Role) -> ShardServiceClient<Channel> {
        ShardServiceClient::new(self.identity(role).endpoint(&self.address(id)).unwrap().connect_lazy())
    }

    pub fn admin(&self, id: u64) -> AdminClient {
        AdminClient::connect(&self.address(id), &self.authority.issue(Role::Ctl)).unwrap()
    }

    /// Hands a shard's lead to the node after the one that leads, and says who leads now.
    pub async fn transfer_on(&self, shard: ShardId) -> u64 {
        let began = Instant::now();
        loop {
            let leader = self.leader(shard).await;
            let next = leader % 3 + 1;
            match self.admin(leader).transfer(shard, NodeId(next)).await {
                Ok(()) => return next,
                // It may lack entries still, or the lead may just have changed.
                Err(error) => assert!(began.elapsed() < GENEROUS, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the shard's map entry, and the membership of every replica, name exactly these nodes, at the addresses of the map.
    pub async fn settled_on(&self, shard: ShardId, nodes: &[u64]) {
        let (operator, began) = (self.operator().await, Instant::now());
        let mut changes = operator.map_changes();
        let is_so = |map: &std::sync::Arc<pb::ShardMap>| {
            let placed = map.shards.iter().find(|placed| placed.id == shard.0).unwrap();
            let mut replicas = placed.replicas.clone();
            replicas.sort_unstable();
            replicas == nodes && placed.operation == 0
        };
        drop(tokio::time::timeout(GENEROUS, changes.wait_for(is_so)).await.expect("the map says so").unwrap());
        loop {
            let mut differing = Vec::new();
            for &id in nodes {
                let Some(replica) = self.replica(id, shard).await else {
                    differing.push(format!("node {id} has none"));
                    continue;
                };
                if replica.voters != nodes || !replica.learners.is_empty() || !replica.members_elsewhere.is_empty() {
                    differing.push(format!("node {id}: {replica:?}"));
                }
            }
            for &id in self.running.keys().filter(|id| !nodes.contains(id)) {
                if self.replica(id, shard).await.is_some() {
                    differing.push(format!("node {id} has one still"));
                }
            }
            if differing.is_empty() {
                return;
            }
            assert!(began.elapsed() < GENEROUS, "{shard}: {differing:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn replica(&self, id: u64, shard: ShardId) -> Option<pb::ReplicaStatus> {
        let status = self.admin(id).status().await.ok()?;
        status.replicas.into_iter().find(|replica| replica.shard == shard.0)
    }

    /// Waits until a running node leads the shard, and says which.
    pub async fn leader(&self, shard: ShardId) -> u64 {
        let began = Instant::now();
        loop {
            let mut leaders = Vec::new();
            for &id in self.running.keys() {
                if let Some(replica) = self.replica(id, shard).await
                    && replica.role() == ReplicaRole::Leader
                {
                    leaders.push((replica.term, id));
                }
            }
            if let Some((_, id)) = leaders.iter().max() {
                return *id;
            }
            assert!(began.elapsed() < GENEROUS, "nobody leads {shard}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all replicas have the same digest at the same index.
    pub async fn agree(&self, shard: ShardId, on: &[u64]) {
        let began = Instant::now();
        loop {
            let mut digests = Vec::new();
            for &id in on {
                digests.push(self.admin(id).digest(shard).await.unwrap());
            }
            let applied: Vec<_> = digests.iter().map(|digest| digest.applied).collect();
            if applied.iter().all(|index| *index == applied[0]) {
                for digest in &digests {
                    assert_eq!(digest.digest.len(), 32);
                    assert_eq!(digest.digest, digests[0].digest, "P-12: replicas of {shard} differ at {applied:?}");
                }
                return;
            }
            assert!(began.elapsed() < GENEROUS, "replicas of {shard} stay apart: {applied:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Nothing is wrong with any replica's rows (P-10).
    pub async fn verify(&self, shard: ShardId, on: &[u64]) {
        for &id in on {
            let verified = self.admin(id).verify(shard).await.unwrap();
            assert!(verified.differences.is_empty(), "{:?}", verified.differences);
            assert!(verified.checked > 0);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.kill(id);
        }
    }
}

/// Waits until `condition` holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < GENEROUS, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
