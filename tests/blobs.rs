//! Attachments are whole and garbage goes, whatever happens to stores (P-11).

mod harness;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, parameter};
use serde_json::Value;

/// Sweeps begin by themselves a minute after the last has ended, and take a while on a machine that does something else.
const SWEEP_DEADLINE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(200);
/// Of four connections: at most eight messages a second.
const LOAD_PAUSE: Duration = Duration::from_millis(500);

/// The disk of one region's store is lost while mail comes in; a new store begins with nothing, and is whole again by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_store_is_whole_again() {
    let messages = parameter("POSTRIDER_BLOB_MESSAGES", 20);
    let mut cluster = Cluster::start(Options { shards: 2, ..Options::default() }).await;
    let users = [Api::sign_up(cluster.region("seoul"), "wiped@postrider.example").await];
    // A sweep is waited for that begins by itself: without a pause thousands of messages come until then, and are read at the end.
    let load = Load::start(Plan { pause: LOAD_PAUSE, ..Plan::everywhere(&cluster, &users, "wiped") });
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
