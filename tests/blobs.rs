//! Attachments are whole and garbage goes, whatever happens to stores and to those who sweep them (P-11).

mod harness;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, parameter};
use reqwest::Method;
use serde_json::Value;

/// Sweeps begin by themselves a minute after the last has ended, and take a while on a machine that does something else.
const SWEEP_DEADLINE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);

fn plan(cluster: &Cluster, users: &[Api], name: &str) -> Plan {
    Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: users.iter().map(|user| user.address.clone()).collect(),
        everyone_every: 0,
        connections: 4,
        attachment_every: 1,
        name: name.into(),
    }
}

/// The disk of one region's store is lost while mail comes in; a new store begins with nothing, and is whole again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_store_is_whole_again() {
    let messages = parameter("POSTRIDER_BLOB_MESSAGES", 20);
    let mut cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let users = [Api::sign_up(cluster.region("seoul"), "wiped@postrider.example").await];
    let load = Load::start(plan(&cluster, &users, "wiped"));
    load.until_accepted(messages).await;
    cluster.kill(&[cluster.region("frankfurt").store_pid]).await;
    std::fs::remove_dir_all(objects(&cluster, "frankfurt")).expect("the disk is lost");
    load.until_accepted(messages).await;
    cluster.revive("store", "frankfurt").await;
    load.until_accepted(messages).await;
    let wiped = until_swept_by_itself(&cluster).await;
    assert!(wiped["restored"].as_u64() > Some(0), "{wiped}");
    load.until_accepted(messages).await;
    let books = load.finish().await;
    // What came while the store was down, or just now, is with the next sweep at the latest.
    let (swept, good) = cluster.ctl(&["blobs", "check"]).await;
    assert!(good, "{swept}");
    let others: Vec<u32> = ["seoul", "virginia"].map(|region| cluster.region(region).store_pid).into();
    cluster.kill(&others).await;
    // Everything is read from the store that was wiped.
    books.check(&users).await;
    for region in ["seoul", "virginia"] {
        cluster.revive("store", region).await;
    }
    cluster.assert_consistent().await;
}

/// Whoever sweeps is killed again and again, while mail comes in and goes: nothing that somebody has is lost, and two sweeps later
/// the stores have nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn killed_sweepers_lose_nothing_and_leave_nothing() {
    let messages = parameter("POSTRIDER_BLOB_MESSAGES", 20);
    let kills = parameter("POSTRIDER_SWEEP_KILLS", 2);
    let mut cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let keeper = Api::sign_up(cluster.region("seoul"), "keeper@postrider.example").await;
    let deleter = Api::sign_up(cluster.region("virginia"), "deleter@postrider.example").await;
    let users = [keeper, deleter];
    let load = Load::start(plan(&cluster, &users[..1], "kept"));
    let waste = Load::start(plan(&cluster, &users[1..], "waste"));
    for kill in 0..kills {
        waste.until_accepted(messages).await;
        delete_all(&users[1]).await;
        let (shards, _) = cluster.ctl(&["shards"]).await;
        let placement = shards.as_array().expect("a list").iter().find(|line| line["shard"] == 1).expect("placement");
        let leader = placement["primary"].as_u64().expect("placement has a primary");
        let mut sweep = cluster
            .ctl_command(&["blobs", "check"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("run postrider ctl blobs check");
        until_sweeping(&cluster).await;
        // A little later each time.
        tokio::time::sleep(Duration::from_millis(150 * kill)).await;
        cluster.kill(&[cluster.node_pid(leader)]).await;
        load.until_accepted(messages).await;
        cluster.revive("node", &leader.to_string()).await;
        cluster.until_whole().await;
        sweep.kill().await.expect("end the command");
    }
    drop(waste.finish().await);
    let books = load.finish().await;
    delete_all(&users[1]).await;
    let mut last = Value::Null;
    for _ in 0..3 {
        let (swept, good) = cluster.ctl(&["blobs", "check"]).await;
        assert!(good, "{swept}");
        last = swept[0]["last"].clone();
    }
    assert_eq!(last["deleted"], 0, "two sweeps are enough: {last}");
    let live = usize::try_from(last["blobs"].as_u64().expect("a count")).expect("a count");
    assert!(live > 0);
    for region in &cluster.ready().regions {
        assert_eq!(count_objects(&objects(&cluster, &region.name)), live, "objects of {}", region.name);
    }
    books.check(&users[..1]).await;
    cluster.assert_consistent().await;
}

/// To Trash, and from there for good.
async fn delete_all(user: &Api) {
    for _ in 0..2 {
        for role in ["inbox", "trash"] {
            let folder = user.folder(role).await;
            let id = folder["id"].as_str().map_or_else(|| folder["id"].to_string(), str::to_owned);
            let page = user.get(&format!("/v1/folders/{id}/messages?limit=200")).await;
            for message in page["messages"].as_array().expect("a list") {
                let id = message["id"].as_str().expect("an id");
                let deleted = user.ask(Method::DELETE, &format!("/v1/messages/{id}"), None).await;
                // The node that leads may just be killed; it goes with the next round.
                drop(deleted);
            }
        }
    }
}

async fn status(cluster: &Cluster) -> Value {
    let begin = Instant::now();
    loop {
        let (status, _) = cluster.ctl(&["blobs", "status"]).await;
        if status.is_array() {
            return status;
        }
        assert!(begin.elapsed() < DEADLINE, "placement answers: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_sweeping(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let status = status(cluster).await;
        if !status[0]["running"].is_null() {
            return;
        }
        // It may have been too short to be seen.
        if begin.elapsed() > Duration::from_secs(5) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the sweep after the one that may be running now, and gives what it found.
async fn until_swept_by_itself(cluster: &Cluster) -> Value {
    let begin = Instant::now();
    let before = status(cluster).await[0]["sweep"].as_u64().unwrap_or(0);
    loop {
        let status = status(cluster).await;
        let line = &status[0];
        let restored = line["last"]["restored"].as_u64().unwrap_or(0);
        if line["running"].is_null() && line["sweep"].as_u64() >= Some(before + 1) && restored > 0 {
            return line["last"].clone();
        }
        assert!(begin.elapsed() < SWEEP_DEADLINE, "the stores are swept: {status}");
        tokio::time::sleep(PAUSE * 5).await;
    }
}

fn objects(cluster: &Cluster, region: &str) -> PathBuf {
    cluster.data_dir().join(format!("store-{region}")).join("objects")
}

fn count_objects(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("read the store's directory").map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| match entry.file_type().expect("a type").is_dir() {
            true => count_objects(&entry.path()),
            false => usize::from(entry.path().extension().is_some_and(|extension| extension == "obj")),
        })
        .sum()
}
