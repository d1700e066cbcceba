//! Replicas move and leads are handed over while mail comes in: nobody notices (P-8).

mod harness;

use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_moves_under_load() {
    // The promise is 500 ms; a test build on a machine that does something else may take longer.
    let pause_max = Duration::from_millis(parameter("POSTRIDER_MOVE_PAUSE_MS", 10_000));
    let cluster = Cluster::start(Options { shards: 2, nodes_per_region: 2, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "mover@postrider.example").await;
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "move");
    let load = Load::start(Plan { connections: 8, attachment_every: 5, ..plan });
    load.until_accepted(40).await;
    let begin = Instant::now();
    let (shard, primary) = cluster.primary_of(&user.address).await;
    let place = cluster.shard(shard).await;
    // Every replica goes to the other node of its region, the leading one last.
    let mut replicas = nodes(&place["replicas"]);
    replicas.sort_by_key(|node| *node == primary);
    for from in &replicas {
        let to = cluster.region_of(*from).nodes.iter().map(|node| node.id).find(|id| id != from).expect("another node");
        let (moved, done) = cluster.ctl(&["move", &shard.to_string(), &from.to_string(), &to.to_string()]).await;
        assert!(done, "{moved}");
        assert!(nodes(&moved["replicas"]).contains(&to) && !nodes(&moved["replicas"]).contains(from), "{moved}");
    }
    load.until_accepted(40).await;
    let books = load.finish().await;
    let pause = books.longest_pause(begin, &user.address);
    let refused = books.attempts.len() - books.accepted();
    println!("{} acknowledged, {refused} not; the longest pause was {} ms", books.accepted(), pause.as_millis());
    assert_eq!(refused, 0, "no client sees a move");
    assert!(pause <= pause_max, "{pause:?}");
    cluster.until_whole().await;
    let after = cluster.shard(shard).await;
    assert!(nodes(&after["replicas"]).iter().all(|node| !replicas.contains(node)), "{after}");
    assert!(after["epoch"].as_u64() > place["epoch"].as_u64(), "{after}");
    books.check(std::slice::from_ref(&user)).await;
    cluster.assert_consistent().await;
}

fn nodes(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list of nodes").iter().filter_map(Value::as_u64).collect()
}
