//! `postrider drill`: something breaks under load, is healed, and every promise is kept; a drill that is killed is healed by another process.
//!
//! Its checker has tests of its own that lose, double and hide messages (`src/drill/books.rs`).

mod harness;

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use harness::rest::Api;
use harness::{Cluster, Options, is_running, parameter};
use serde_json::Value;

/// What a drill that is killed has broken by then is seen within this time.
const BROKEN_DEADLINE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_a_region_and_a_frozen_primary_are_borne() {
    let cluster = Cluster::start(Options::default()).await;
    let report = cluster.data_dir().join("report.html");
    let lost = drill(&cluster, &["lose-node", "--report", &report.to_string_lossy()]).await;
    kept("lose-node", &lost, &["P-1", "P-10", "P-12", "P-2", "P-6", "P-7"]);
    let page = std::fs::read_to_string(&report).expect("the page is there");
    for wanted in ["<svg", "kill -9 of node", "led by", "P-7"] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let region = drill(&cluster, &["lose-region", "--region", "frankfurt"]).await;
    kept("lose-region", &region, &["P-1", "P-10", "P-12", "P-2", "P-6", "P-7"]);
    let frozen = drill(&cluster, &["freeze-primary"]).await;
    kept("freeze-primary", &frozen, &["P-1", "P-10", "P-12", "P-2", "P-6"]);
    cluster.until_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moves_loses_nothing() {
    let cluster = Cluster::start(Options { shards: 2, nodes_per_region: 2, ..Options::default() }).await;
    for name in ["drain", "move-under-load", "roll"] {
        let done = drill(&cluster, &[name]).await;
        kept(name, &done, &["P-1", "P-10", "P-12", "P-2", "P-6", "P-8"]);
    }
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    assert!(nodes.as_array().expect("a list").iter().all(|node| node["state"] == "active"), "{nodes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_cut_off_one_way_or_both_keeps_every_promise() {
    let cluster = Cluster::start(Options::default()).await;
    for ways in ["both", "out"] {
        let cut = drill(&cluster, &["cut-region", "--region", "seoul", "--ways", ways]).await;
        let said = String::from_utf8_lossy(&cut.stderr);
        if said.contains("CAP_SYS_PTRACE") && std::env::var("CI").is_err() {
            eprintln!("PASSED OVER: {said}");
            return;
        }
        kept("cut-region", &cut, &["P-1", "P-10", "P-12", "P-2", "P-6"]);
        // The region really was alone: those who asked it were refused for as long as it was held.
        assert!(said.contains("refusals in all") && !said.contains("(0 refusals"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_that_is_killed_is_healed_by_another_process() {
    let cluster = Cluster::start(Options::default()).await;
    let user = Api::sign_up(cluster.region("virginia"), "drilled@postrider.example").await;
    let mut killed = drill_command(&cluster, &["lose-region", "--region", "seoul", "--hold", "3600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start a drill");
    let journal = cluster.data_dir().join("drill/journal.json");
    let seoul = cluster.region("seoul").clone();
    let pids = [seoul.nodes[0].pid, seoul.frontend_pid, seoul.store_pid, seoul.dns_pid];
    let begin = Instant::now();
    while pids.iter().any(|pid| is_running(*pid)) {
        assert!(begin.elapsed() < BROKEN_DEADLINE, "the region is lost");
        assert!(killed.try_wait().expect("look after the drill").is_none(), "the drill goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A second drill does not begin beside it, nor on top of what it leaves.
    let second = drill(&cluster, &["lose-node"]).await;
    assert!(
        !second.status.success() && text(&second.stderr).contains("a drill is running"),
        "{}",
        text(&second.stderr)
    );
    killed.kill().await.expect("kill the drill");
    assert!(journal.exists(), "what is broken outlives the drill");
    let second = drill(&cluster, &["lose-node"]).await;
    assert!(!second.status.success() && text(&second.stderr).contains("drill heal"), "{}", text(&second.stderr));

    let healed = harness::run(&["drill", "heal", "--demo", &cluster.data_dir().to_string_lossy()]).await;
    assert!(healed.status.success(), "{}", text(&healed.stderr));
    assert!(text(&healed.stdout).contains("the cluster is whole"), "{}", text(&healed.stdout));
    assert!(!journal.exists());
    let again = harness::run(&["drill", "heal", "--demo", &cluster.data_dir().to_string_lossy()]).await;
    assert!(again.status.success() && text(&again.stdout).contains("Nothing is broken"), "{}", text(&again.stdout));
    cluster.until_whole().await;
    assert!(user.at(&seoul).inbox().await.is_empty(), "the region serves again");
    cluster.assert_consistent().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_heals_before_the_drill_ends_and_nonsense_begins_nothing() {
    let cluster = Cluster::start(Options::default()).await;
    for (words, why) in [
        (&["drain"][..], "the only one of"),
        (&["lose-node", "--node", "77"][..], "there is no node 77"),
        (&["lose-region", "--region", "atlantis"][..], "there is no region"),
        (&["lose-node", "--binary", "/bin/true"][..], "--binary is for"),
    ] {
        let refused = drill(&cluster, words).await;
        assert!(
            !refused.status.success() && text(&refused.stderr).contains(why),
            "{words:?}: {}",
            text(&refused.stderr)
        );
    }
    let mut interrupted = drill_command(&cluster, &["freeze-primary", "--node", "1", "--hold", "3600"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start a drill");
    let pid = cluster.node_pid(1);
    let begin = Instant::now();
    while !is_stopped(pid) {
        assert!(begin.elapsed() < BROKEN_DEADLINE, "the node is frozen");
        assert!(interrupted.try_wait().expect("look after the drill").is_none(), "the drill goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let id = interrupted.id().expect("it runs").to_string();
    std::process::Command::new("kill").args(["-INT", &id]).status().expect("interrupt the drill");
    let ended = interrupted.wait_with_output().await.expect("wait for the drill");
    assert!(!ended.status.success() && text(&ended.stderr).contains("everything is healed"), "{}", text(&ended.stderr));
    assert!(is_running(pid) && !is_stopped(pid), "the node goes on");
    cluster.until_whole().await;
}

/// The verdict's form is promised to programs, and every promise is kept.
fn kept(name: &str, output: &Output, promises: &[&str]) {
    let said = text(&output.stderr);
    let value: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{name}: {error}: {} {said}", text(&output.stdout)));
    let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    let wanted = [
        "acknowledged",
        "drill",
        "hidden",
        "last_refused_s",
        "longest_pause_ms",
        "missing",
        "promises",
        "recovered_s",
        "twice",
        "verdict",
    ];
    assert!(keys.len() == wanted.len() && wanted.iter().all(|key| keys.contains(key)), "{keys:?}");
    println!("{name}: {value}\n{said}");
    assert_eq!((&value["drill"], &value["verdict"]), (&name.into(), &"kept".into()), "{value}\n{said}");
    assert!(value["acknowledged"].as_u64().is_some_and(|count| count > 0), "{value}");
    assert!(value["recovered_s"].is_f64() && value["last_refused_s"].is_f64(), "{value}");
    let mut found: Vec<&str> = value["promises"].as_object().expect("promises").keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, promises);
    assert!(output.status.success());
}

async fn drill(cluster: &Cluster, words: &[&str]) -> Output {
    drill_command(cluster, words).output().await.expect("run a drill")
}

/// A light load, and bounds for a test build on a machine that does something else.
fn drill_command(cluster: &Cluster, words: &[&str]) -> tokio::process::Command {
    let pause_max = parameter("POSTRIDER_DRILL_PAUSE_MS", 20_000).to_string();
    let data_dir: PathBuf = cluster.data_dir();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args([
        "drill",
        "--yes",
        "--json",
        "--rate",
        "10",
        "--mailboxes",
        "4",
        "--calm",
        "2",
        "--pause-max",
        &pause_max,
    ]);
    if !words.contains(&"--hold") {
        command.args(["--hold", "6"]);
    }
    command.arg("--demo").arg(data_dir).args(words).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
