//! `kill -9` of the node that leads, its object store with it, under load (P-1, P-6, P-7, P-10, P-12).
//!
//! POSTRIDER_KILL_CONNECTIONS, _MESSAGES (before and after each kill), _ROUNDS and POSTRIDER_KILL_RESUME_MS ask for more than
//! CI does.

mod harness;

use std::time::{Duration, Instant};

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::{Cluster, Options, parameter};

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leading_node_and_its_store_loses_nothing() {
    let connections = usize::try_from(parameter("POSTRIDER_KILL_CONNECTIONS", 16)).expect("a count");
    let messages = parameter("POSTRIDER_KILL_MESSAGES", 60);
    // The promise is 3 s; a test build on a machine that does something else may take longer.
    let resume = Duration::from_millis(parameter("POSTRIDER_KILL_RESUME_MS", 15_000));
    let mut cluster = Cluster::start(Options::default()).await;
    let users = users(&cluster).await;
    for round in 0..parameter("POSTRIDER_KILL_ROUNDS", 1) {
        let victim = &users[usize::try_from(round).expect("a count") % users.len()];
        let (_, leader) = cluster.primary_of(&victim.address).await;
        let region = cluster.region_of(leader).clone();
        let load = Load::start(plan(&cluster, &users, connections, &format!("kill-{round}")));
        load.until_accepted(messages).await;
        let killed_at = Instant::now();
        cluster.kill(&[cluster.node_pid(leader), region.store_pid]).await;
        load.until_accepted(messages).await;
        // It comes back while mail goes on coming in, and catches up.
        cluster.revive("node", &leader.to_string()).await;
        cluster.revive("store", &region.name).await;
        load.until_accepted(messages).await;
        let books = load.finish().await;
        let pause = books.longest_pause(killed_at, &victim.address);
        println!(
            "round {round}: node {leader} killed; {} acknowledged of {}; the longest pause of its users' writes was {} ms",
            books.accepted(),
            books.attempts.len(),
            pause.as_millis()
        );
        assert!(pause <= resume, "writes went on after {pause:?}");
        cluster.until_whole().await;
        books.check(&users).await;
        cluster.assert_consistent().await;
    }
}

async fn users(cluster: &Cluster) -> Vec<Api> {
    let mut users = Vec::new();
    for n in 0..6 {
        let region = &cluster.ready().regions[n % 3];
        users.push(Api::sign_up(region, &format!("kill{n}@postrider.example")).await);
    }
    users
}

fn plan(cluster: &Cluster, users: &[Api], connections: usize, name: &str) -> Plan {
    Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: users.iter().map(|user| user.address.clone()).collect(),
        connections,
        everyone_every: 0,
        attachment_every: 5,
        name: name.to_owned(),
    }
}
