//! `kill -9` of frontends, each with a worker in it, while all mail passes through the queues (P-6).
//!
//! Every message is for users in three shards, so that with each of them a worker has two deliveries to make, the entry to settle
//! and the transfers to forget. A worker that is killed leaves all of these in every state: the next one, once the lease has
//! lapsed, must neither lose a copy nor make a second one.
//!
//! POSTRIDER_WORKER_CONNECTIONS, _MESSAGES (before and after each kill) and _ROUNDS ask for more than CI does.

mod harness;

use std::collections::BTreeSet;
use std::time::Duration;

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, Region, parameter};

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_deliver_every_message_once() {
    let connections = usize::try_from(parameter("POSTRIDER_WORKER_CONNECTIONS", 8)).expect("a count");
    let messages = parameter("POSTRIDER_WORKER_MESSAGES", 25);
    let mut cluster = Cluster::start(Options::default()).await;
    let users = users_of_different_shards(&cluster).await;
    let load = Load::start(Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: users.iter().map(|user| user.address.clone()).collect(),
        everyone_every: 1,
        connections,
        attachment_every: 10,
        name: "worker".into(),
        pause: Duration::ZERO,
    });
    for round in 0..parameter("POSTRIDER_WORKER_ROUNDS", 3) {
        load.until_accepted(messages).await;
        let victims = victims(&cluster, usize::try_from(round).expect("a count"));
        cluster.kill(&victims.iter().map(|region| region.frontend_pid).collect::<Vec<_>>()).await;
        if victims.len() < cluster.ready().regions.len() {
            // The workers that are left go on.
            load.until_accepted(messages).await;
        }
        for region in victims {
            cluster.revive("frontend", &region.name).await;
        }
    }
    load.until_accepted(messages).await;
    let books = load.finish().await;
    println!("{} acknowledged of {}", books.accepted(), books.attempts.len());
    books.check(&users).await;
    books.check_all_or_nothing(&users).await;
    cluster.assert_consistent().await;
}

/// One after the other, and every third time all of them at once.
fn victims(cluster: &Cluster, round: usize) -> Vec<Region> {
    let regions = &cluster.ready().regions;
    if round % 3 == 2 { regions.clone() } else { vec![regions[(round / 3 + round) % regions.len()].clone()] }
}

/// One at home in each region, each in another shard.
async fn users_of_different_shards(cluster: &Cluster) -> Vec<Api> {
    let mut users = Vec::new();
    let mut shards = BTreeSet::new();
    for (n, region) in cluster.ready().regions.iter().enumerate() {
        let user = Api::sign_up(region, &format!("queue{n}@postrider.example")).await;
        shards.insert(cluster.primary_of(&user.address).await.0);
        users.push(user);
    }
    assert_eq!(shards.len(), users.len(), "each of them is in a shard of its own: {shards:?}");
    users
}
