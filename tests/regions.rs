//! Everything of a zone moves to three other regions under load, and the old ones are removed and gone: every attachment is there, byte
//! for byte (P-8, P-11).

mod harness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, DEADLINE, Options, Region, parameter};

/// Placement, the directory and the one mailbox shard.
const SHARDS: [u64; 3] = [1000, 2, 1];
/// Of two connections: at most eight messages a second, however long the moves take.
const PAUSE: Duration = Duration::from_millis(250);

#[tokio::test(flavor = "multi_thread")]
async fn shards_move_to_three_other_regions_with_every_attachment() {
    let messages = parameter("POSTRIDER_BLOB_MESSAGES", 12);
    let cluster = Cluster::start(Options { shards: 1, spare_regions: 3, ..Options::default() }).await;
    let (old, new): (Vec<Region>, Vec<Region>) = {
        let (old, new) = cluster.ready().regions.split_at(3);
        (old.to_vec(), new.to_vec())
    };
    let users = [Api::sign_up(&old[0], "moved@postrider.example").await];
    let load = Load::start(Plan { connections: 2, pause: PAUSE, ..Plan::everywhere(&cluster, &users, "moved") });
    load.until_accepted(messages).await;
    let nodes: Vec<u64> = new.iter().map(|region| region.nodes[0].id).collect();
    let wanted = nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    for shard in SHARDS {
        let number = shard.to_string();
        done(&cluster, &["replicas", &number, &wanted]).await;
        done(&cluster, &["home", &number, &new[0].name]).await;
        until_placed(&cluster, shard, &nodes).await;
        load.until_accepted(messages).await;
    }
    // What came while they moved may be in the old regions alone: a region goes once a sweep that began after the moves has ended.
    let (swept, whole) = cluster.ctl(&["blobs", "check"]).await;
    assert!(whole, "{swept}");
    for region in &old {
        done(&cluster, &["node", "remove", &region.nodes[0].id.to_string()]).await;
        done(&cluster, &["region", "remove", &region.name]).await;
    }
    // The load goes on at the regions that are left.
    let gone = |region: &Region| [region.nodes[0].pid, region.frontend_pid, region.store_pid];
    cluster.kill(&old.iter().flat_map(gone).collect::<Vec<u32>>()).await;
    load.until_accepted(messages).await;
    let books = load.finish().await;
    println!("{} acknowledged of {}", books.accepted(), books.attempts.len());
    for region in &new {
        books.check(&[users[0].at(region)]).await;
    }
    // Three copies of each again: what came while a store was killed is restored by the next sweep at the latest.
    let (swept, whole) = cluster.ctl(&["blobs", "check"]).await;
    assert!(whole && swept[0]["last"]["lost"] == 0, "{swept}");
    let stored: BTreeMap<&str, u64> =
        new.iter().map(|region| (region.name.as_str(), objects(&cluster, region))).collect();
    let expected = swept[0]["last"]["blobs"].as_u64().expect("a count");
    assert!(stored.values().all(|count| *count == expected), "{expected} blobs, and the stores have {stored:?}");
    assert!(expected >= books.accepted() as u64, "each message has a file of its own");
    cluster.assert_consistent().await;
}

/// Whoever answers has heard of the end of the move; nodes that have nothing of placement any more are told as the others are.
async fn until_placed(cluster: &Cluster, shard: u64, nodes: &[u64]) {
    let begin = Instant::now();
    loop {
        let replicas = cluster.replicas(shard).await;
        if replicas == nodes {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "shard {shard} is on {replicas:?}, not on {nodes:?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asked again where nobody answered in time, as operators do: each of these does nothing when it is so already.
async fn done(cluster: &Cluster, words: &[&str]) {
    let begin = Instant::now();
    loop {
        let output = cluster.ctl_raw(words).await;
        if output.status.success() {
            return;
        }
        assert!(begin.elapsed() < DEADLINE * 2, "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn objects(cluster: &Cluster, region: &Region) -> u64 {
    harness::count_files(&cluster.data_dir().join(format!("store-{}", region.name)).join("objects"), "obj")
}
