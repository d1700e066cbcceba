//! A real cluster for a test: the demo with its processes, on loopback addresses of its own.
//!
//! Each whole-system test is one file of `tests/`; nextest runs them one at a time (`.config/nextest.toml`).

#![allow(dead_code, unreachable_pub)] // each test binary uses its part of this

pub mod events;
pub mod far;
pub mod load;
pub mod outside;
pub mod rest;
pub mod smtp;
pub mod terraform;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;

/// How long something may take that will certainly happen: the machine is slow at times.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How long a cluster may take to start.
const START_DEADLINE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(50);

/// The ready file, as its format is promised: an unknown or missing field fails the test.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    pub domain: String,
    pub domains: Vec<Domain>,
    pub admin_token: String,
    pub accounts: Vec<Account>,
    pub regions: Vec<Region>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    pub name: String,
    pub zone: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub address: String,
    pub password: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Region {
    pub name: String,
    pub zone: String,
    pub address: String,
    pub rest: String,
    pub smtp: String,
    /// With STARTTLS.
    pub submission: String,
    /// With TLS from the first byte.
    pub submissions: String,
    /// Not of builds before there was one.
    #[serde(default)]
    pub dns: String,
    pub nodes: Vec<Node>,
    pub frontend_pid: u32,
    pub store_pid: u32,
    #[serde(default)]
    pub dns_pid: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub id: u64,
    pub grpc: String,
    pub pid: u32,
}

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct Options {
    pub zones: u32,
    /// Of each zone.
    pub shards: u32,
    pub nodes_per_region: u32,
    /// Regions of the first zone beyond its three, with nothing in them.
    pub spare_regions: u32,
    pub sample: bool,
    /// XDG_STATE_HOME of the demo; without it a directory of the cluster's own.
    pub state_home: Option<PathBuf>,
    /// The DNS server that is asked for everything outside.
    pub resolver: Option<std::net::SocketAddr>,
    /// The collector that all processes send traces to, and the share that is kept whatever becomes of it.
    pub traces: Option<(String, f64)>,
    /// Nodes that are gone are replaced by themselves, and what is uneven moves. Other tests count replicas where they were put.
    pub balances: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            zones: 1,
            shards: 3,
            nodes_per_region: 1,
            spare_regions: 0,
            sample: false,
            state_home: None,
            resolver: None,
            traces: None,
            balances: false,
        }
    }
}

/// A running cluster; everything of it is gone when it is dropped.
pub struct Cluster {
    dir: TempDir,
    options: Options,
    block: u8,
    _claim: TcpListener,
    demo: Child,
    ready: Ready,
    /// Users do not move between shards.
    shards: Mutex<BTreeMap<String, u64>>,
}

impl Cluster {
    /// Starts a new cluster and waits until it serves.
    pub async fn start(options: Options) -> Self {
        let dir = tempfile::tempdir().expect("make a directory");
        let (block, claim) = free_block();
        let (demo, ready) = launch(dir.path(), &options, block).await;
        Self { dir, options, block, _claim: claim, demo, ready, shards: Mutex::default() }
    }

    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    pub fn region(&self, name: &str) -> &Region {
        self.ready.regions.iter().find(|region| region.name == name).unwrap_or_else(|| panic!("no region {name}"))
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    /// Where its word for `postrider ctl` is.
    pub fn state_home(&self) -> PathBuf {
        state_home(self.dir.path())
    }

    pub fn ready_file(&self) -> PathBuf {
        ready_file(self.dir.path())
    }

    /// What the demo has said so far, over all its starts.
    pub fn demo_log(&self) -> String {
        std::fs::read_to_string(demo_log(self.dir.path())).expect("read the demo's log")
    }

    /// The regions of a zone.
    pub fn regions_of(&self, zone: &str) -> Vec<&Region> {
        self.ready.regions.iter().filter(|region| region.zone == zone).collect()
    }

    /// The region of a storage node.
    pub fn region_of(&self, node: u64) -> &Region {
        let has = |region: &&Region| region.nodes.iter().any(|known| known.id == node);
        self.ready.regions.iter().find(has).unwrap_or_else(|| panic!("no node {node}"))
    }

    pub fn node_pid(&self, node: u64) -> u32 {
        self.region_of(node).nodes.iter().find(|known| known.id == node).expect("the region has it").pid
    }

    /// All processes but the demo itself.
    pub fn pids(&self) -> Vec<u32> {
        let of = |region: &Region| {
            let nodes = region.nodes.iter().map(|node| node.pid);
            nodes.chain([region.frontend_pid, region.store_pid, region.dns_pid]).collect::<Vec<_>>()
        };
        self.ready.regions.iter().flat_map(of).collect()
    }

    /// `kill -9` of some processes at once; returns when they are gone.
    pub async fn kill(&self, pids: &[u32]) {
        signal("-KILL", pids);
        until("killed processes are gone", || pids.iter().all(|pid| !is_running(*pid))).await;
    }

    /// SIGSTOP: it holds its connections and answers nobody, until it is thawed or killed.
    pub fn freeze(&self, pid: u32) {
        signal("-STOP", &[pid]);
    }

    pub fn thaw(&self, pid: u32) {
        signal("-CONT", &[pid]);
    }

    /// `kill -9` of every process at once, the demo included.
    pub async fn kill_everything(&mut self) {
        let mut pids = self.pids();
        pids.push(self.demo.id());
        signal("-KILL", &pids);
        self.demo.wait().expect("reap the demo");
        until("killed processes are gone", || pids.iter().all(|pid| !is_running(*pid))).await;
    }

    /// `kill -9` of the demo alone; its processes still run when this returns.
    pub fn kill_parent(&mut self) {
        signal("-KILL", &[self.demo.id()]);
        self.demo.wait().expect("reap the demo");
    }

    /// `kill -9` of the demo alone: its processes notice and end by themselves.
    pub async fn kill_demo(&mut self) {
        let pids = self.pids();
        self.kill_parent();
        until("no process outlives the demo", || pids.iter().all(|pid| !is_running(*pid))).await;
    }

    /// Ctrl-C, as the terminal sends it; returns how long the demo took to be gone with all its processes.
    pub async fn interrupt(&mut self) -> Duration {
        let begin = Instant::now();
        let pids = self.pids();
        signal("-INT", &[self.demo.id()]);
        let status = self.demo.wait().expect("wait for the demo");
        assert!(status.success(), "the demo stops cleanly: {status}");
        assert!(pids.iter().all(|pid| !is_running(*pid)), "no process outlives the demo");
        begin.elapsed()
    }

    /// Starts the demo again on the same directory, with that state home.
    pub async fn start_again_with_state_home(&mut self, state_home: &Path) {
        self.options.state_home = Some(state_home.to_owned());
        self.start_again().await;
    }

    /// Starts the demo again on the same directory.
    pub async fn start_again(&mut self) {
        let (demo, ready) = launch(self.dir.path(), &self.options, self.block).await;
        self.demo = demo;
        self.ready = ready;
    }

    /// `postrider demo restart`: a process that was killed runs again, and a frontend serves.
    pub async fn revive(&mut self, what: &str, which: &str) {
        let data_dir = self.data_dir();
        let output = run(&["demo", "restart", "--data-dir", &data_dir.to_string_lossy(), what, which]).await;
        assert!(output.status.success(), "restart {what} {which}: {output:?}");
        self.ready = read_ready(&ready_file(self.dir.path())).expect("the ready file is there");
        if what == "frontend" {
            rest::until_serving(self.region(which)).await;
        }
    }

    /// `postrider demo add-node`: one storage node more in a region; answers its number.
    pub async fn add_node(&mut self, region: &str) -> u64 {
        let data_dir = self.data_dir();
        let output = run(&["demo", "add-node", "--data-dir", &data_dir.to_string_lossy(), region]).await;
        assert!(output.status.success(), "add a node in {region}: {output:?}");
        self.ready = read_ready(&ready_file(self.dir.path())).expect("the ready file is there");
        self.region(region).nodes.iter().map(|node| node.id).max().expect("the region has a node")
    }

    /// `postrider ctl --json …`: what it says, and whether its exit code says that all is well.
    pub async fn ctl(&self, words: &[&str]) -> (serde_json::Value, bool) {
        let output = self.ctl_raw(&[&["--json"], words].concat()).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("ctl {words:?}: {error}: {text} {}", String::from_utf8_lossy(&output.stderr))
        });
        (value, output.status.success())
    }

    /// `postrider ctl …` as people see it.
    pub async fn ctl_raw(&self, words: &[&str]) -> Output {
        self.ctl_command(words).output().await.expect("run postrider ctl")
    }

    /// The same, to be run by the test.
    pub fn ctl_command(&self, words: &[&str]) -> tokio::process::Command {
        let nodes: Vec<&str> =
            self.ready.regions.iter().flat_map(|r| &r.nodes).map(|node| node.grpc.as_str()).collect();
        let identity = self.data_dir().join("ctl");
        let (nodes, identity) = (nodes.join(","), identity.to_string_lossy().into_owned());
        command(&[&["ctl", "--cluster", &nodes, "--identity", &identity], words].concat())
    }

    /// `postrider ctl` as people type it: one address, no certificate, and this home directory's state alone.
    pub async fn ctl_at_home(&self, variable: &str, home: &Path, words: &[&str]) -> Output {
        let node = &self.ready.regions[0].nodes[0].grpc;
        command(&[&["ctl", "--cluster", node], words].concat())
            .env_remove("XDG_STATE_HOME")
            .env_remove("HOME")
            .env(variable, home)
            .output()
            .await
            .expect("run postrider ctl")
    }

    /// Every shard has a primary and all its replicas.
    pub async fn until_whole(&self) {
        let begin = Instant::now();
        loop {
            let (status, whole) = self.ctl(&["status"]).await;
            if whole {
                return;
            }
            assert!(begin.elapsed() < START_DEADLINE, "the cluster becomes whole: {status}");
            tokio::time::sleep(PAUSE * 4).await;
        }
    }

    /// `ctl verify` finds no difference, and all replicas of every shard hold the same (P-10, P-12).
    pub async fn assert_consistent(&self) {
        let (verified, clean) = self.ctl(&["verify"]).await;
        assert!(clean, "verify: {verified}");
        assert!(verified["checked"].as_u64().is_some_and(|rows| rows > 0), "verify looked at something: {verified}");
        let (shards, _) = self.ctl(&["shards"]).await;
        for shard in shards.as_array().expect("a list of shards") {
            let id = shard["shard"].to_string();
            let (digest, equal) = self.ctl(&["digest", &id]).await;
            assert!(equal, "digests of shard {id}: {digest}");
            assert_eq!(digest["digests"].as_object().map(serde_json::Map::len), Some(3), "{digest}");
        }
    }

    /// The user's shard. Asked once: `ctl user` needs a quorum of placement, for it stands in the audit log.
    pub async fn shard_of(&self, address: &str) -> u64 {
        let known = self.shards.lock().expect("no test panics with it").get(address).copied();
        if let Some(shard) = known {
            return shard;
        }
        let (user, _) = self.ctl(&["user", address]).await;
        let shard = user["shard"].as_u64().unwrap_or_else(|| panic!("{address} has a shard: {user}"));
        self.shards.lock().expect("no test panics with it").insert(address.to_owned(), shard);
        shard
    }

    /// The user's shard and the node that leads it.
    pub async fn primary_of(&self, address: &str) -> (u64, u64) {
        let shard = self.shard_of(address).await;
        (shard, self.primary(shard).await)
    }

    /// The node that leads a shard.
    pub async fn primary(&self, shard: u64) -> u64 {
        let begin = Instant::now();
        loop {
            let line = self.shard(shard).await;
            if let Some(primary) = line["primary"].as_u64() {
                return primary;
            }
            assert!(begin.elapsed() < DEADLINE, "shard {shard} has a primary: {line}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What `ctl shards` says of a shard.
    pub async fn shard(&self, shard: u64) -> serde_json::Value {
        let (shards, _) = self.ctl(&["shards"]).await;
        let found = shards.as_array().expect("a list").iter().find(|line| line["shard"].as_u64() == Some(shard));
        found.unwrap_or_else(|| panic!("shard {shard} is listed: {shards}")).clone()
    }

    /// The nodes that have a replica of a shard, in the order of their numbers.
    pub async fn replicas(&self, shard: u64) -> Vec<u64> {
        let line = self.shard(shard).await;
        let mut nodes: Vec<u64> =
            line["replicas"].as_array().expect("nodes").iter().filter_map(|id| id.as_u64()).collect();
        nodes.sort_unstable();
        nodes
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that fails shows the ends of the logs; nothing else of the cluster is kept, so SIGKILL is enough. Errors mean
        // that a process is gone.
        if std::thread::panicking() {
            print_logs(&self.data_dir());
        }
        let mut pids = self.pids();
        pids.push(self.demo.id());
        signal("-KILL", &pids);
        let _ = self.demo.wait();
    }
}

fn data_dir(root: &Path) -> PathBuf {
    root.join("data")
}

fn ready_file(root: &Path) -> PathBuf {
    root.join("ready.json")
}

fn state_home(root: &Path) -> PathBuf {
    root.join("state")
}

fn demo_log(root: &Path) -> PathBuf {
    root.join("demo.log")
}

async fn launch(root: &Path, options: &Options, block: u8) -> (Child, Ready) {
    // One that a demo left which was killed names processes that are gone.
    if let Err(error) = std::fs::remove_file(ready_file(root)) {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "remove the ready file");
    }
    let log_path = demo_log(root);
    let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path).expect("open the demo's log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command
        .args(["demo", "--loopback-block", &block.to_string(), "--shards", &options.shards.to_string()])
        .args(["--nodes-per-region", &options.nodes_per_region.to_string()])
        .args(["--zones", &options.zones.to_string()])
        .args(["--spare-regions", &options.spare_regions.to_string()])
        .arg("--data-dir")
        .arg(data_dir(root))
        .arg("--ready-file")
        .arg(ready_file(root))
        // The certificates of test clusters are nobody's default.
        .env("XDG_STATE_HOME", options.state_home.clone().unwrap_or_else(|| state_home(root)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("share the demo's log"))
        .stderr(log);
    if !options.balances {
        command.arg("--no-balance");
    }
    if let Some(resolver) = options.resolver {
        command.arg("--resolver").arg(resolver.to_string());
    }
    if let Some((collector, rate)) = &options.traces {
        command.args(["--traces", collector, "--traces-rate", &rate.to_string()]);
    }
    if !options.sample {
        command.arg("--no-sample");
    }
    let mut demo = command.spawn().expect("start the demo");
    let begin = Instant::now();
    loop {
        if let Some(ready) = read_ready(&ready_file(root)) {
            return (demo, ready);
        }
        let ended = demo.try_wait().expect("look after the demo");
        if ended.is_some() || begin.elapsed() > START_DEADLINE {
            let _ = demo.kill();
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            print_logs(&data_dir(root));
            panic!("the demo did not start ({ended:?}):\n{log}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn read_ready(path: &Path) -> Option<Ready> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("the ready file is not as promised: {error}: {text}")),
    )
}

/// The binary under test, run to its end.
pub async fn run(words: &[&str]) -> Output {
    command(words).output().await.expect("run postrider")
}

fn command(words: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(words).stdin(Stdio::null()).env_remove("POSTRIDER_IDENTITY");
    command
}

/// Second number of loopback addresses that nobody listens on. It is taken while the listener lives: other tests run beside.
fn free_block() -> (u8, TcpListener) {
    let start = u8::try_from(std::process::id() % 100).expect("below 100") + 100;
    let claim = |block: u8| TcpListener::bind((std::net::Ipv4Addr::new(127, block, 0, 1), CLAIM_PORT)).ok();
    (start..=250).find_map(|block| Some((block, claim(block)?))).expect("some loopback addresses are free")
}

/// No process of a cluster listens on it.
const CLAIM_PORT: u16 = 7099;

fn signal(which: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().filter(|pid| **pid != 0).map(ToString::to_string).collect();
    // Those that are gone already make kill complain; that they are gone is what is wanted.
    let _ = Command::new("kill").arg(which).args(pids).stderr(Stdio::null()).status();
}

/// A zombie does not run.
pub fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "{what}: not within {} s", DEADLINE.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
}

/// A number from the environment, for campaigns that want more than CI does.
pub fn parameter(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
        Err(_) => default,
    }
}

fn print_logs(data_dir: &Path) {
    let Ok(entries) = std::fs::read_dir(data_dir) else { return };
    for path in entries.flatten().map(|entry| entry.path().join("log")) {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        if !lines.is_empty() {
            println!("---- {}\n{}", path.display(), lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
}

/// Files under `directories` that hold `text`, whatever they are. What is gone between two looks holds nothing.
pub fn files_with(text: &str, directories: &[PathBuf]) -> Vec<PathBuf> {
    let output = Command::new("grep").args(["-rslaF", "-e", text]).args(directories).output().expect("run grep");
    String::from_utf8_lossy(&output.stdout).lines().map(PathBuf::from).collect()
}

/// Files with this extension below a directory; none where it is not there.
pub fn count_files(directory: &Path, extension: &str) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => count_files(&entry.path(), extension),
            false => u64::from(entry.path().extension().is_some_and(|found| found == extension)),
        })
        .sum()
}
