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
    kill(1).await;
}

/// The other zone's mail comes in meanwhile as if nothing had happened.
#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leading_node_of_one_of_two_zones_loses_nothing_in_either() {
    kill(2).await;
}

async fn kill(zones: u32) {
    let connections = usize::try_from(parameter("POSTRIDER_KILL_CONNECTIONS", 16)).expect("a count");
    let messages = parameter("POSTRIDER_KILL_MESSAGES", 60);
    // The promise is 3 s; a test build on a machine that does something else may take longer.
    let resume = Duration::from_millis(parameter("POSTRIDER_KILL_RESUME_MS", 15_000));
    let mut cluster = Cluster::start(Options { zones, ..Options::default() }).await;
    let users = users(&cluster).await;
    for round in 0..parameter("POSTRIDER_KILL_ROUNDS", 1) {
        let victim = &users[usize::try_from(round).expect("a count") % users.len()];
        let (_, leader) = cluster.primary_of(&victim.address).await;
        let region = cluster.region_of(leader).clone();
        let loads = loads(&cluster, &users, connections, round);
        until_accepted(&loads, messages).await;
        let killed_at = Instant::now();
        cluster.kill(&[cluster.node_pid(leader), region.store_pid]).await;
        until_accepted(&loads, messages).await;
        // It comes back while mail goes on coming in, and catches up.
        cluster.revive("node", &leader.to_string()).await;
        cluster.revive("store", &region.name).await;
        until_accepted(&loads, messages).await;
        let mut all = Vec::new();
        for load in loads {
            let books = load.finish().await;
            let pause = books.longest_pause(killed_at, &victim.address);
            println!(
                "round {round}: node {leader} killed; {} acknowledged of {}; the longest pause was {} ms",
                books.accepted(),
                books.attempts.len(),
                pause.as_millis()
            );
            // Of a load that writes to other users it says nothing.
            assert!(pause <= resume || !books.writes_to(&victim.address), "writes went on after {pause:?}");
            all.push(books);
        }
        cluster.until_whole().await;
        for books in all {
            books.check(&users).await;
        }
        cluster.assert_consistent().await;
    }
}

async fn users(cluster: &Cluster) -> Vec<Api> {
    let mut users = Vec::new();
    for n in 0..6 {
        let domain = &cluster.ready().domains[n % cluster.ready().domains.len()];
        let regions = cluster.regions_of(&domain.zone);
        users.push(Api::sign_up(regions[n % regions.len()], &format!("kill{n}@{}", domain.name)).await);
    }
    users
}

/// One load for each zone: no transaction spans two. Each goes in at every region, those of the other zone too.
fn loads(cluster: &Cluster, users: &[Api], connections: usize, round: u64) -> Vec<Load> {
    let domains = &cluster.ready().domains;
    let plan = |domain: &harness::Domain| Plan {
        servers: cluster.ready().regions.iter().map(|region| region.smtp.clone()).collect(),
        recipients: users
            .iter()
            .map(|user| user.address.clone())
            .filter(|address| address.ends_with(&format!("@{}", domain.name)))
            .collect(),
        connections: connections / domains.len(),
        everyone_every: 0,
        attachment_every: 5,
        name: format!("kill-{}-{round}", domain.zone),
        pause: Duration::ZERO,
    };
    domains.iter().map(|domain| Load::start(plan(domain))).collect()
}

async fn until_accepted(loads: &[Load], more: u64) {
    for load in loads {
        load.until_accepted(more / loads.len() as u64).await;
    }
}
