//! A node is emptied and removed while mail comes in: nobody notices (P-8).

mod harness;

use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_and_removed_under_load() {
    // The promise is 500 ms; a test build on a machine that does something else may take longer.
    let pause_max = Duration::from_millis(parameter("POSTRIDER_MOVE_PAUSE_MS", 10_000));
    let cluster = Cluster::start(Options { shards: 2, nodes_per_region: 2, ..Options::default() }).await;
    let user = Api::sign_up(cluster.region("seoul"), "mover@postrider.example").await;
    let plan = Plan::everywhere(&cluster, std::slice::from_ref(&user), "drain");
    let load = Load::start(Plan { connections: 6, attachment_every: 5, ..plan });
    load.until_accepted(30).await;
    let begin = Instant::now();
    let (_, primary) = cluster.primary_of(&user.address).await;
    let number = primary.to_string();
    let refused = cluster.ctl_raw(&["node", "remove", &number]).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("drain it first"), "it has replicas: {said}");
    let (drained, done) = cluster.ctl(&["node", "drain", &number]).await;
    assert!(done, "{drained}");
    load.until_accepted(30).await;
    let (removed, done) = cluster.ctl(&["node", "remove", &number]).await;
    assert!(done, "{removed}");
    load.until_accepted(30).await;
    let books = load.finish().await;
    let pause = books.longest_pause(begin, &user.address);
    let refused = books.attempts.len() - books.accepted();
    println!("{} acknowledged, {refused} not; the longest pause was {} ms", books.accepted(), pause.as_millis());
    assert_eq!(refused, 0, "no client sees a node go");
    assert!(pause <= pause_max, "{pause:?}");
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    let nodes = nodes.as_array().expect("a list");
    assert!(nodes.iter().all(|node| node["id"].as_u64() != Some(primary)), "{nodes:?}");
    let (shards, _) = cluster.ctl(&["shards"]).await;
    for shard in shards.as_array().expect("a list") {
        let replicas: Vec<u64> =
            shard["replicas"].as_array().expect("nodes").iter().filter_map(|id| id.as_u64()).collect();
        assert!(replicas.len() == 3 && !replicas.contains(&primary), "{shard}");
    }
    let (operations, _) = cluster.ctl(&["operations"]).await;
    assert!(
        operations.as_array().expect("a list").iter().all(|operation| operation["state"] == "done"),
        "{operations}"
    );
    cluster.until_whole().await;
    books.check(std::slice::from_ref(&user)).await;
    cluster.assert_consistent().await;
}
