//! Processes that die at each point where the order of steps matters, and what is left behind.
//!
//! A test runs this binary again as a child, which aborts at the point; then the parent opens what the child left.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use postrider_raft::wire::{Ballot, LogId, Vote, answer, message};
use postrider_raft::{FaultPoint, Faults, GroupIdentity, Host, HostOptions, Injected, Member, NodeId, ProposeError};
use support::{Cluster, GROUP, Ledgers, MADE, Rows, check_exactly_once, command, eventually, rows};
use tokio::net::TcpListener;

const BYTES: usize = 1_000;
/// Proposals of a child that does not crash before.
const PROPOSALS: u64 = 3_000;
const TASKS: u64 = 8;

/// Aborts the process when `point` is reached for the `countdown`th time.
struct AbortAt {
    point: FaultPoint,
    countdown: AtomicU64,
}

impl Faults for AbortAt {
    fn reach(&self, point: FaultPoint) -> Result<(), Injected> {
        if point == self.point && self.countdown.fetch_sub(1, Ordering::SeqCst) == 1 {
            std::process::abort();
        }
        Ok(())
    }
}

const POINTS: [(&str, FaultPoint); 13] = [
    ("log-before-write", FaultPoint::LogBeforeWrite),
    ("log-after-sync", FaultPoint::LogAfterSync),
    ("state-before-apply", FaultPoint::StateBeforeApply),
    ("state-after-apply", FaultPoint::StateAfterApply),
    ("flush-before", FaultPoint::FlushBefore),
    ("flush-after", FaultPoint::FlushAfter),
    ("purge-before", FaultPoint::PurgeBefore),
    ("purge-after", FaultPoint::PurgeAfter),
    ("install-file-sealed", FaultPoint::InstallFileSealed),
    ("install-spooled", FaultPoint::InstallSpooled),
    ("install-recorded", FaultPoint::InstallRecorded),
    ("install-ingested", FaultPoint::InstallIngested),
    ("remove-log-gone", FaultPoint::RemoveLogGone),
];

const ENV_TASK: &str = "POSTRIDER_CRASH_TASK";
const ENV_POINT: &str = "POSTRIDER_CRASH_POINT";
const ENV_COUNT: &str = "POSTRIDER_CRASH_COUNT";
const ENV_DIR: &str = "POSTRIDER_CRASH_DIR";
const ENV_NODE: &str = "POSTRIDER_CRASH_NODE";
const ENV_ADDRESS: &str = "POSTRIDER_CRASH_ADDRESS";

fn env(name: &str) -> String {
    std::env::var(name).expect("set by the parent")
}

fn limits(options: &mut HostOptions) {
    options.limits.keep_entries = 4;
    options.limits.lag_bytes_max = 10_000;
    options.limits.snapshot_block_bytes = 8_000;
    options.limits.snapshot_file_bytes = 100_000;
}

/// The child: does its task until it is aborted. Without a parent there is no task.
#[tokio::test(flavor = "multi_thread")]
async fn crash_child() {
    let Ok(task) = std::env::var(ENV_TASK) else { return };
    let wanted = env(ENV_POINT);
    let point = POINTS.iter().find(|(name, _)| *name == wanted).expect("a point").1;
    let countdown = AtomicU64::new(env(ENV_COUNT).parse().expect("a count"));
    let dir = PathBuf::from(env(ENV_DIR));
    let mut options = HostOptions::new(NodeId(env(ENV_NODE).parse().expect("an id")), dir.join("node"));
    limits(&mut options);
    options.faults = Arc::new(AbortAt { point, countdown });
    let host = support::open(options).await;
    match task.as_str() {
        "write" => write(&host, &dir).await,
        "remove" => {
            host.create_group(GROUP, MADE, alone()).await.expect("a group");
            eventually("a reply", || async { host.propose(GROUP, command(1, BYTES)).await.ok() }).await;
            host.flush().await.expect("a flush");
            host.remove_replica(GROUP).await.expect("it aborts before");
        }
        "follow" => {
            let address: SocketAddr = env(ENV_ADDRESS).parse().expect("an address");
            let listener = eventually("bind", || async { TcpListener::bind(address).await.ok() }).await;
            tokio::time::timeout(support::DEADLINE, host.listen(listener))
                .await
                .expect_err("it aborts before")
                .to_string();
        }
        other => panic!("no such task: {other}"),
    }
    // Reached only when nothing struck; the parent sees the status.
    std::process::exit(0);
}

fn alone() -> BTreeMap<NodeId, Member> {
    BTreeMap::from([(NodeId(1), Member { address: "127.0.0.1:1".to_owned(), region: "r".to_owned() })])
}

/// Proposes from several tasks, notes what is acknowledged, and flushes now and then.
async fn write(host: &Host, dir: &Path) {
    host.create_group(GROUP, MADE, alone()).await.expect("a group");
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let host = host.clone();
            let path = dir.join(format!("acks-{task}"));
            tokio::spawn(async move {
                let mut acks = std::fs::File::create(path).expect("a file");
                for at in 0..PROPOSALS / TASKS {
                    let id = task * PROPOSALS + at;
                    let proposed = eventually("a reply", || async {
                        match host.propose(GROUP, command(id, BYTES)).await {
                            Ok(proposed) => Some(Ok(proposed)),
                            Err(ProposeError::NotLeader { .. } | ProposeError::NoQuorum) => None,
                            Err(error) => Some(Err(error)),
                        }
                    })
                    .await;
                    proposed.expect("one node alone acknowledges");
                    writeln!(acks, "{id}").expect("a note");
                    if task == 0 && at % 20 == 19 {
                        host.flush().await.expect("a flush");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a task");
    }
}

fn acknowledged(dir: &Path) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for task in 0..TASKS {
        let Ok(text) = std::fs::read_to_string(dir.join(format!("acks-{task}"))) else { continue };
        // The last line may be cut off.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        ids.extend(complete.lines().map(|line| line.parse::<u64>().expect("an id")));
    }
    ids
}

fn child(task: &str, point: &str, count: u64, node: u64, dir: &Path, address: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command
        .args(["--exact", "crash_child", "--nocapture"])
        .env(ENV_TASK, task)
        .env(ENV_POINT, point)
        .env(ENV_COUNT, count.to_string())
        .env(ENV_DIR, dir)
        .env(ENV_NODE, node.to_string())
        .env(ENV_ADDRESS, address);
    command
}

async fn run(mut command: Command) -> ExitStatus {
    tokio::task::spawn_blocking(move || command.status().expect("a child")).await.expect("no panic")
}

async fn reopen(dir: &Path) -> Host {
    let mut options = HostOptions::new(NodeId(1), dir.join("node"));
    limits(&mut options);
    let host = support::open(options).await;
    eventually("it leads again", || async { host.read_barrier(GROUP).await.ok() }).await;
    host
}

/// Every place was given once, and to one command.
fn check_places(rows: &Rows) {
    let places: BTreeSet<u64> = rows.values().map(|(place, _, _)| *place).collect();
    assert_eq!(places, (1..=rows.len() as u64).collect(), "places were given twice, or not at all");
}

async fn crash_while_writing(point: &str, count: u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let status = run(child("write", point, count, 1, dir.path(), "")).await;
    assert!(!status.success(), "it was to crash at {point}");
    let ids = acknowledged(dir.path());
    let host = reopen(dir.path()).await;
    let left = rows(&host.state(), GROUP);
    check_exactly_once(&left, &ids, BYTES);
    check_places(&left);
    let status = host.status(GROUP).expect("a status");
    assert!(status.purged <= status.flushed && status.flushed <= status.applied, "{status:?}");
    // It goes on, and a second restart finds the same.
    host.propose(GROUP, command(u64::MAX, BYTES)).await.expect("a reply");
    let before = rows(&host.state(), GROUP);
    host.shutdown().await;
    drop(host);
    let host = reopen(dir.path()).await;
    assert_eq!(rows(&host.state(), GROUP), before);
    host.shutdown().await;
}

macro_rules! crashes {
    ($($name:ident: $point:literal, $count:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            crash_while_writing($point, $count).await;
        }
    )*};
}

crashes! {
    dying_before_the_log_is_written_loses_nothing: "log-before-write", 60;
    dying_after_the_log_is_synced_loses_nothing: "log-after-sync", 60;
    dying_before_entries_are_applied_loses_nothing: "state-before-apply", 60;
    dying_after_entries_were_applied_loses_nothing: "state-after-apply", 60;
    dying_before_the_state_is_flushed_loses_nothing: "flush-before", 3;
    dying_after_the_state_was_flushed_loses_nothing: "flush-after", 3;
    dying_before_the_log_is_purged_loses_nothing: "purge-before", 2;
    dying_after_the_log_was_purged_loses_nothing: "purge-after", 3;
}

async fn crash_while_installing(point: &str) {
    crash_while_installing_at(point, 1).await;
}

/// Of a snapshot in several files.
async fn crash_while_installing_at(point: &str, count: u64) {
    let mut cluster = Cluster::start_with(3, limits).await;
    for id in 0..20 {
        cluster.put(id, BYTES).await;
    }
    let leader = cluster.leader().await;
    let lagging = (leader + 1) % 3;
    let had = cluster.nodes[lagging].host().status(GROUP).expect("a status").last_log;
    cluster.nodes[lagging].stop().await;
    for id in 20..400 {
        cluster.put(id, BYTES).await;
    }
    eventually("purges", || async {
        for node in &cluster.nodes {
            let Some(host) = &node.host else { continue };
            host.flush().await.expect("a flush");
            if host.status(GROUP)?.purged <= had {
                return None;
            }
        }
        Some(())
    })
    .await;
    // The child takes the lagging node's place: its directory and its address.
    let place = tempfile::tempdir().expect("a directory");
    let (id, address) = (cluster.nodes[lagging].id, cluster.nodes[lagging].address.to_string());
    eventually("the directory is free", || async {
        std::fs::rename(&cluster.nodes[lagging].dir, place.path().join("node")).ok()
    })
    .await;
    let status = run(child("follow", point, count, id.0, place.path(), &address)).await;
    assert!(!status.success(), "it was to crash at {point}");
    std::fs::rename(place.path().join("node"), &cluster.nodes[lagging].dir).expect("the directory back");
    cluster.nodes[lagging].start().await;
    let rows = cluster.settled(GROUP).await;
    check_exactly_once(&rows, &(0..400).collect(), BYTES);
    check_places(&rows);
    let spool = cluster.nodes[lagging].dir.join("spool");
    // The leader may have begun to send another one before the files that were found had been taken over.
    eventually("no files are left behind", || async {
        (std::fs::read_dir(&spool).expect("the spool").count() == 0).then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_in_the_middle_of_a_snapshot_leaves_the_old_state() {
    for files in [1, 3] {
        crash_while_installing_at("install-file-sealed", files).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_with_a_received_snapshot_unrecorded_leaves_the_old_state() {
    crash_while_installing("install-spooled").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_with_a_recorded_snapshot_installs_it_at_the_next_start() {
    crash_while_installing("install-recorded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_with_an_installed_snapshot_keeps_it() {
    crash_while_installing("install-ingested").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_while_a_replica_is_removed_leaves_nothing_that_could_be_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let status = run(child("remove", "remove-log-gone", 1, 1, dir.path(), "")).await;
    assert!(!status.success(), "it was to crash");
    let host = support::open(HostOptions::new(NodeId(1), dir.path().join("node"))).await;
    assert_eq!(host.groups(), []);
    assert_eq!(rows(&host.state(), GROUP).len(), 1, "the state outlived the log: that is what this is about");
    host.open_replica(GROUP, MADE).await.expect("a replica");
    assert_eq!(rows(&host.state(), GROUP).len(), 0);
    host.shutdown().await;
}

/// Fails one operation when told to.
#[derive(Default)]
struct FailOnce {
    armed: AtomicBool,
}

impl Faults for FailOnce {
    fn reach(&self, point: FaultPoint) -> Result<(), Injected> {
        if point == FaultPoint::LogBeforeWrite && self.armed.swap(false, Ordering::SeqCst) {
            return Err(Injected(point));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_refuses_once_stops_the_replica_until_it_is_opened_anew() {
    let faults = Arc::new(FailOnce::default());
    let injected = faults.clone();
    let mut cluster = Cluster::start_with(1, move |options| options.faults = injected.clone()).await;
    let ids: BTreeSet<u64> = (0..20).collect();
    for id in &ids {
        cluster.put(*id, BYTES).await;
    }
    faults.armed.store(true, Ordering::SeqCst);
    let host = cluster.nodes[0].host();
    let failed = host.propose(GROUP, command(100, BYTES)).await;
    assert_eq!(failed, Err(ProposeError::Unknown));
    eventually("it leads again", || async { host.read_barrier(GROUP).await.ok() }).await;
    host.propose(GROUP, command(101, BYTES)).await.expect("a reply");
    let left = rows(&host.state(), GROUP);
    check_exactly_once(&left, &ids, BYTES);
    check_places(&left);
    assert!(!left.contains_key(&100), "what was never written was applied");
    cluster.shutdown().await;
}

fn ballot(transfer: bool) -> Ballot {
    Ballot {
        vote: Some(Vote { term: 1_000, node: 2, committed: false }),
        last_log: Some(LogId { term: 999, index: 1_000_000 }),
        transfer,
    }
}

async fn granted(host: &Host, body: message::Body) -> bool {
    match host.inbox().deliver(NodeId(1), GroupIdentity { id: GROUP, incarnation: MADE }, body).await {
        answer::Body::Ballot(answer) => answer.granted,
        other => panic!("not a vote: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_replica_votes_only_after_a_lease_unless_its_leader_asks() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.timings.election_min_ms = 3_000;
        options.timings.election_max_ms = 5_000;
        options.timings.park_ms = 15_000;
    })
    .await;
    cluster.put(1, BYTES).await;
    cluster.settled(GROUP).await;
    cluster.shutdown().await;
    cluster.nodes[0].start().await;
    let since = tokio::time::Instant::now();
    let host = cluster.nodes[0].host();
    assert!(!granted(host, message::Body::PreVote(ballot(false))).await);
    assert!(!granted(host, message::Body::Vote(ballot(false))).await);
    eventually("the lease is over", || async {
        granted(host, message::Body::PreVote(ballot(false))).await.then_some(())
    })
    .await;
    assert!(since.elapsed() > std::time::Duration::from_secs(4), "granted after {:?}", since.elapsed());
    cluster.nodes[0].stop().await;
    cluster.nodes[0].start().await;
    assert!(granted(cluster.nodes[0].host(), message::Body::Vote(ballot(true))).await);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_nodes_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = support::open(HostOptions::new(NodeId(1), dir.path())).await;
    host.shutdown().await;
    drop(host);
    let error = eventually("an answer", || async {
        match Host::open(HostOptions::new(NodeId(2), dir.path()), Arc::new(Ledgers)).await {
            Err(postrider_raft::OpenError::Database { .. }) => None,
            Err(error) => Some(error),
            Ok(_) => panic!("it opened"),
        }
    })
    .await;
    assert!(error.to_string().contains("belongs to n1"), "{error}");
}
