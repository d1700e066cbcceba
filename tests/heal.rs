//! A node that is gone for good is replaced by itself, under load: the cluster is whole again without a human, and nothing is lost (P-1, P-6).
//! A node that comes back after that is told, gives up what was made elsewhere, and takes part again.

mod harness;

use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options};
use serde_json::Value;

/// The demo gives a node up after thirty seconds; then its replicas are made, a few at a time.
const HEAL_DEADLINE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_for_good_is_replaced_under_load() {
    let options = Options { shards: 3, nodes_per_region: 2, balances: true, ..Options::default() };
    let mut cluster = Cluster::start(options).await;
    let mut users = Vec::new();
    for (n, region) in cluster.ready().regions.iter().enumerate() {
        users.push(Api::sign_up(region, &format!("heal{n}@postrider.example")).await);
    }
    let plan = Plan::everywhere(&cluster, &users, "heal");
    let load = Load::start(Plan { connections: 4, attachment_every: 10, pause: Duration::from_millis(50), ..plan });
    load.until_accepted(30).await;
    let (_, dies) = cluster.primary_of(&users[0].address).await;
    let killed = Instant::now();
    cluster.kill(&[cluster.node_pid(dies)]).await;
    until(&cluster, dies, "given up", 0).await;
    cluster.until_whole().await;
    println!("node {dies} was replaced {:.1} s after it died", killed.elapsed().as_secs_f64());
    load.until_accepted(30).await;

    // It comes back with what it had; it is empty for a moment, and then gets its share like everybody.
    cluster.revive("node", &dies.to_string()).await;
    until_active(&cluster, dies).await;
    load.until_accepted(30).await;
    let books = load.finish().await;
    println!("{} acknowledged of {}", books.accepted(), books.attempts.len());
    until_quiet(&cluster).await;
    cluster.until_whole().await;
    books.check(&users).await;
    cluster.assert_consistent().await;
}

async fn line(cluster: &Cluster, node: u64) -> Value {
    let (nodes, _) = cluster.ctl(&["node", "list"]).await;
    let found = nodes.as_array().expect("a list").iter().find(|line| line["id"] == node);
    found.unwrap_or_else(|| panic!("node {node} is listed: {nodes}")).clone()
}

async fn until(cluster: &Cluster, node: u64, state: &str, replicas: u64) {
    let begin = Instant::now();
    loop {
        let line = line(cluster, node).await;
        if line["state"] == state && line["replicas"] == replicas {
            return;
        }
        assert!(begin.elapsed() < HEAL_DEADLINE, "node {node} is {state} with {replicas} replicas: {line}");
        tokio::time::sleep(PAUSE).await;
    }
}

async fn until_active(cluster: &Cluster, node: u64) {
    let begin = Instant::now();
    while line(cluster, node).await["state"] != "active" {
        assert!(begin.elapsed() < HEAL_DEADLINE, "node {node} takes part again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Nothing is changing, and nothing should: what the plan has left cannot be done.
async fn until_quiet(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let (status, _) = cluster.ctl(&["status"]).await;
        let (plan, good) = cluster.ctl(&["plan"]).await;
        if status["operations"] == 0 && good {
            return;
        }
        assert!(begin.elapsed() < HEAL_DEADLINE, "the cluster comes to rest: {status} {plan}");
        tokio::time::sleep(PAUSE).await;
    }
}
