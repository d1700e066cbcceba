//! Indexes of nodes that are killed while they index, commit, merge and rebuild, and of which a file or everything is gone when they
//! come back: searches are right all the same, and every index is what the rows say.
//!
//! `POSTRIDER_SEARCH_KILLS`: how often.

mod harness;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};
use serde_json::{Value, json};

const MESSAGES: u64 = 100;
/// A rebuild goes on for so much longer before each kill, and begins anew after [`DELAYS`].
const DELAY: Duration = Duration::from_millis(90);
const DELAYS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
const LOAD_PAUSE: Duration = Duration::from_millis(20);
/// An index is built from its rows at a pace that disturbs nobody.
const INDEX_DEADLINE: Duration = Duration::from_secs(180);

/// What is done to an index while its node is down.
#[derive(Debug, Clone, Copy)]
enum Harm {
    None,
    /// One of its files ends in the middle.
    Truncated,
    Gone,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_outlives_its_node() {
    let kills = u32::try_from(parameter("POSTRIDER_SEARCH_KILLS", 3)).expect("a count");
    let mut cluster = Cluster::start(Options { shards: 1, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "indexed@postrider.example").await;
    let shard = cluster.shard_of(&user.address).await;
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "indexed");
    let load = Load::start(Plan { attachment_every: 0, pause: LOAD_PAUSE, ..plan });
    load.until_accepted(MESSAGES).await;
    for kill in 0..kills {
        let harm = [Harm::None, Harm::Truncated, Harm::Gone][kill as usize % 3];
        // The leader and the others in turn.
        let replicas = cluster.replicas(shard).await;
        let node = replicas[kill as usize % replicas.len()];
        until_indexed(&cluster).await;
        if let Harm::Truncated = harm {
            harness::until("the index is on the disk", || !files(&index_dir(&cluster, node)).is_empty()).await;
        } else {
            let words = ["search", "rebuild", &shard.to_string(), "--node", &node.to_string()];
            assert!(cluster.ctl(&words).await.1, "the index of node {node} is built anew");
            tokio::time::sleep(DELAY * (kill % DELAYS)).await;
        }
        cluster.kill(&[cluster.node_pid(node)]).await;
        println!("node {node} is killed, and its index: {harm:?}");
        harm_index(&cluster, node, harm, kill);
        load.until_accepted(MESSAGES / 2).await;
        cluster.revive("node", &node.to_string()).await;
        cluster.until_whole().await;
        load.until_accepted(MESSAGES / 2).await;
    }
    let books = load.finish().await;
    books.check(std::slice::from_ref(&user)).await;
    let count = user.inbox().await.len();
    for region in &cluster.ready().regions {
        let page = user.at(region).get("/v1/search?q=subject:indexed&limit=1").await;
        assert_eq!(page["total"], json!({ "count": count, "exact": true }), "at {}", region.name);
    }
    until_indexed(&cluster).await;
    let (checked, same) = cluster.ctl(&["search", "check", &shard.to_string()]).await;
    assert!(same, "every index is what the rows say: {checked}");
    // Each replica has every message.
    assert!(checked["checked"].as_u64() >= Some(3 * count as u64), "{checked}");
    cluster.assert_consistent().await;
}

/// Every replica's index has been built, and follows.
async fn until_indexed(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let (status, is_well) = cluster.ctl(&["search", "status"]).await;
        let lines = status["indexes"].as_array().map_or(&[][..], Vec::as_slice);
        let has_some = |line: &Value| line["documents"].as_u64() > Some(0);
        if is_well && lines.iter().filter(|line| has_some(line)).count() == 3 {
            return;
        }
        assert!(begin.elapsed() < INDEX_DEADLINE, "indexes are built: {status}");
        tokio::time::sleep(PAUSE).await;
    }
}

fn index_dir(cluster: &Cluster, node: u64) -> PathBuf {
    cluster.data_dir().join(format!("node-{node}")).join("data").join("search")
}

fn harm_index(cluster: &Cluster, node: u64, harm: Harm, kill: u32) {
    let dir = index_dir(cluster, node);
    match harm {
        Harm::None => {}
        Harm::Gone => std::fs::remove_dir_all(&dir).expect("the index is deleted"),
        Harm::Truncated => {
            let files = files(&dir);
            let path = &files[kill as usize % files.len()];
            let file = std::fs::OpenOptions::new().write(true).open(path).expect("open a file of the index");
            let length = file.metadata().expect("its length").len();
            file.set_len(length / 2).expect("cut it");
            println!("{} has {} bytes of {length}", path.display(), length / 2);
        }
    }
}

/// Files that hold something, in the order of their names.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.metadata().is_ok_and(|meta| meta.len() > 1) => found.push(path),
            false => {}
        }
    }
    found.sort_unstable();
    found
}
