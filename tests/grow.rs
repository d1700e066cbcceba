//! A node is added to each region of a cluster that serves: it joins by itself and gets its share. Then more shards, which new accounts use.

mod harness;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options};
use serde_json::Value;

/// Half of all replicas move, a few at a time.
const DEADLINE: Duration = Duration::from_secs(400);
const PAUSE: Duration = Duration::from_millis(500);

/// Signed up once there are new shards.
const NEW_ACCOUNTS: usize = 18;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_shards_are_added_while_the_cluster_serves() {
    let mut cluster = Cluster::start(Options { shards: 8, balances: true, ..Options::default() }).await;
    let regions: Vec<String> = cluster.ready().regions.iter().map(|region| region.name.clone()).collect();
    let mut users = vec![Api::sign_up(cluster.region("seoul"), "grow@postrider.example").await];
    let plan = Plan::everywhere(&cluster, &users, "grow");
    let load = Load::start(Plan { connections: 2, attachment_every: 0, pause: Duration::from_millis(100), ..plan });
    load.until_accepted(20).await;
    for region in &regions {
        let id = cluster.add_node(region).await;
        println!("node {id} was added in {region}");
    }
    until_even(&cluster, 10 * 3 / 6).await;
    load.until_accepted(20).await;
    cluster.until_whole().await;

    let (added, good) = cluster.ctl(&["shards", "add", "--count", "6"]).await;
    assert!(good, "{added}");
    let new: Vec<u64> = added.as_array().expect("a list").iter().filter_map(|line| line["shard"].as_u64()).collect();
    assert_eq!(new, [1008, 1009, 1010, 1011, 1012, 1013], "{added}");
    let mut homes: Vec<&str> =
        added.as_array().expect("a list").iter().filter_map(|line| line["home_region"].as_str()).collect();
    homes.sort_unstable();
    homes.dedup();
    assert_eq!(homes.len(), 3, "homes go round: {added}");
    cluster.until_whole().await;
    until_even(&cluster, 16 * 3 / 6).await;
    // What is emptier is taken sooner: of each pair that is drawn the new one, if there is one in it.
    for n in 0..NEW_ACCOUNTS {
        let region = cluster.region(&regions[n % regions.len()]);
        users.push(Api::sign_up(region, &format!("grown{n}@postrider.example")).await);
    }
    let mut on_new = 0;
    for user in &users[1..] {
        on_new += usize::from(new.contains(&cluster.shard_of(&user.address).await));
    }
    // Six of fourteen shards are new; a draw of one alone would take them for less than half of the accounts.
    assert!(on_new >= NEW_ACCOUNTS / 4, "{on_new} of {NEW_ACCOUNTS} new accounts are on new shards");
    let books = load.finish().await;
    books.check(&users[..1]).await;
    cluster.assert_consistent().await;
}

/// Waits until each node has `share` replicas, give or take a tenth, and nothing is changing.
async fn until_even(cluster: &Cluster, share: usize) {
    let begin = Instant::now();
    loop {
        let (shards, _) = cluster.ctl(&["shards"]).await;
        let mut held: BTreeMap<u64, usize> =
            cluster.ready().regions.iter().flat_map(|region| &region.nodes).map(|node| (node.id, 0)).collect();
        for shard in shards.as_array().expect("a list") {
            let nodes = shard["replicas"].as_array().expect("nodes");
            assert_eq!(nodes.len(), 3, "the policy is kept on the way: {shard}");
            nodes.iter().filter_map(Value::as_u64).for_each(|node| *held.entry(node).or_default() += 1);
        }
        let (status, _) = cluster.ctl(&["status"]).await;
        let is_even = held.values().all(|count| count.abs_diff(share) * 10 <= share);
        if is_even && status["operations"] == 0 {
            println!("even after {:.1} s: {held:?}", begin.elapsed().as_secs_f64());
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "{share} replicas a node: {held:?}");
        tokio::time::sleep(PAUSE).await;
    }
}
