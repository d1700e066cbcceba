//! `kill -9` of the node that sweeps, again and again, while mail comes in and garbage is made (P-11): no attachment of a message
//! that is there is ever gone, and two sweeps later nothing is left of those that were deleted.
//!
//! Which step a kill hits is chance here; `node/src/sweep/tests.rs` stops sweeps at each of their steps in turn.

mod harness;

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, parameter};
use reqwest::Method;
use serde_json::Value;

/// Garbage before each kill, messages with an attachment each.
const GARBAGE: u64 = 3;
/// Each kill lets the sweep go on for so much longer than the one before, and begins anew after [`DELAYS`].
const DELAY: Duration = Duration::from_millis(60);
const DELAYS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(20);
/// Of four connections: what comes in while sweeps wait for each other has a bound.
const LOAD_PAUSE: Duration = Duration::from_millis(500);
/// A sweep that begins by itself, or is carried on by the next leader, waits for the stores and for the takeover.
const SWEEP_DEADLINE: Duration = Duration::from_secs(300);
/// Its leader tells where everything should be, and sweeps.
const PLACEMENT: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_outlives_whoever_sweeps() {
    let kills = u32::try_from(parameter("POSTRIDER_SWEEP_KILLS", 4)).expect("a count");
    let mut cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let keeps = Api::sign_up(cluster.region("seoul"), "keeps@postrider.example").await;
    let deletes = Api::sign_up(cluster.region("virginia"), "deletes@postrider.example").await;
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&keeps), "kept");
    let load = Load::start(Plan { pause: LOAD_PAUSE, ..plan });
    let mut hit = Vec::new();
    for kill in 0..kills {
        make_garbage(&cluster, &deletes, kill).await;
        hit.push(kill_in_the_middle(&mut cluster, kill % DELAYS).await);
        load.until_accepted(4).await;
    }
    println!("killed while the sweep was {hit:?}");
    assert!(hit.iter().any(|phase| phase != "ended"), "no kill came in the middle of a sweep: {hit:?}");
    let books = load.finish().await;
    books.check(std::slice::from_ref(&keeps)).await;

    for _ in 0..2 {
        let (swept, good) = cluster.ctl(&["blobs", "sweep"]).await;
        assert!(good, "{swept}");
    }
    let (checked, good) = cluster.ctl(&["blobs", "check"]).await;
    assert!(good, "{checked}");
    let last = &status(&cluster).await["last"];
    // Each message has bytes that no other has, so there is a blob for each, and for nothing else.
    assert_eq!(last["blobs"].as_u64(), Some(keeps.inbox().await.len() as u64), "{last}");
    for never in ["deleted", "lost", "damaged"] {
        assert_eq!(last[never], 0, "{never}: {last}");
    }
    books.check(std::slice::from_ref(&keeps)).await;
    cluster.assert_consistent().await;
}

/// Messages with attachments that come, and are deleted for good.
async fn make_garbage(cluster: &Cluster, user: &Api, round: u32) {
    let plan = Plan::everywhere(cluster, std::slice::from_ref(user), &format!("gone-{round}"));
    let load = Load::start(Plan { connections: 1, ..plan });
    load.until_accepted(GARBAGE).await;
    let books = load.finish().await;
    books.check(std::slice::from_ref(user)).await;
    for row in user.inbox().await {
        let path = format!("/v1/messages/{}", row["id"].as_str().expect("an id"));
        // To Trash, and from there for good.
        for _ in 0..2 {
            user.change(Method::DELETE, &path, Value::Null).await;
        }
    }
}

/// Begins a sweep, lets it go on for a while, and kills the node that leads it. Says what the next leader found it doing.
async fn kill_in_the_middle(cluster: &mut Cluster, steps: u32) -> String {
    let before = status(cluster).await["sweep"].as_u64().unwrap_or(0);
    let mut command = cluster
        .ctl_command(&["blobs", "sweep"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("run postrider ctl blobs sweep");
    let sweeper = cluster.primary(PLACEMENT).await;
    let begin = Instant::now();
    loop {
        let line = status(cluster).await;
        // The one that ran before may be the one that is asked for.
        if !line["running"].is_null() || line["sweep"].as_u64() > Some(before) {
            break;
        }
        assert!(begin.elapsed() < SWEEP_DEADLINE, "a sweep begins: {line}");
        tokio::time::sleep(PAUSE).await;
    }
    tokio::time::sleep(DELAY * steps).await;
    cluster.kill(&[cluster.node_pid(sweeper)]).await;
    let phase = status(cluster).await["phase"].as_str().expect("a phase").to_owned();
    cluster.revive("node", &sweeper.to_string()).await;
    cluster.until_whole().await;
    command.kill().await.expect("end the command");
    phase
}

/// What `ctl blobs status` says of the one zone, as soon as placement has a leader that answers.
async fn status(cluster: &Cluster) -> Value {
    let begin = Instant::now();
    loop {
        let (status, _) = cluster.ctl(&["blobs", "status"]).await;
        if let Some(line) = status.get(0) {
            return line.clone();
        }
        assert!(begin.elapsed() < DEADLINE, "placement answers: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}
