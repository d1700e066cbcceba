//! The demo's name servers: every region answers for the domain, signed, with what ctl says should be there; a region whose
//! frontend is gone leaves all of their answers, and comes back.

mod harness;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::{Cluster, Options, Region};
use tokio::process::Command;

/// How long a region that is gone may be named (docs/adr/135-dns-of-our-own.md).
const GONE_MAX: Duration = Duration::from_secs(5);
/// How long a region that serves again may be left out.
const BACK_MAX: Duration = Duration::from_secs(30);
/// Questions that must not name it.
const QUESTIONS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn every_region_answers_for_the_domain_and_leaves_out_who_is_gone() {
    let mut cluster = Cluster::start(Options::default()).await;
    let regions = cluster.ready().regions.clone();
    for region in &regions {
        let name = |relative: &str| format!("{relative}.postrider.example");
        for host in ["mail", "mx", "api"] {
            let answer = dig(region, &["+short", &name(host), "A"]).await;
            assert!(regions.iter().any(|region| region.address == answer.trim()), "{host}: {answer}");
        }
        let mx = dig(region, &["+short", "postrider.example", "MX"]).await;
        assert_eq!(mx.lines().count(), regions.len(), "{mx}");
        let signed = dig(region, &["+dnssec", "+tcp", "postrider.example", "SOA"]).await;
        assert!(signed.contains("RRSIG"), "{signed}");
        let (checked, good) = cluster.ctl(&["domain", "check", "postrider.example", "--resolver", &region.dns]).await;
        assert!(good, "{checked}");
    }
    let records = cluster.ctl_raw(&["domain", "records", "postrider.example"]).await;
    let records = String::from_utf8_lossy(&records.stdout).into_owned();
    assert!(records.contains("IN MX 10 mx-seoul.postrider.example.") && records.contains("IN DS "), "{records}");

    // All of a region, which is at home to the directory shard: every frontend waits for another primary meanwhile.
    let gone = regions[1].clone();
    let of_region = gone.nodes.iter().map(|node| node.pid).chain([gone.frontend_pid, gone.store_pid, gone.dns_pid]);
    cluster.kill(&of_region.collect::<Vec<_>>()).await;
    let killed = Instant::now();
    let others: Vec<&Region> = regions.iter().filter(|region| region.name != gone.name).collect();
    for region in &others {
        until_named(region, &gone, false, killed, GONE_MAX).await;
    }
    let mx = dig(&regions[0], &["+short", "postrider.example", "MX"]).await;
    assert!(!mx.contains(&gone.name) && mx.lines().count() == regions.len() - 1, "{mx}");
    for node in &gone.nodes {
        cluster.revive("node", &node.id.to_string()).await;
    }
    for what in ["store", "dns", "frontend"] {
        cluster.revive(what, &gone.name).await;
    }
    let revived = Instant::now();
    for region in &regions {
        until_named(region, &gone, true, revived, BACK_MAX).await;
    }

    // Some have other process ids by now.
    let regions = cluster.ready().regions.clone();
    // A name server that starts while no storage node answers knows what it knew.
    let nodes: Vec<u32> = regions.iter().flat_map(|region| &region.nodes).map(|node| node.pid).collect();
    cluster.kill(&nodes).await;
    cluster.kill(&[regions[2].dns_pid]).await;
    cluster.revive("dns", &regions[2].name).await;
    let begun = Instant::now();
    while dig(&regions[2], &["+short", "postrider.example", "MX"]).await.lines().count() < regions.len() - 1 {
        assert!(begun.elapsed() < BACK_MAX, "it answers as before");
    }
}

/// Waits until the MX set of a name server has a region, or has it no more.
async fn until_named(server: &Region, region: &Region, named: bool, since: Instant, limit: Duration) {
    let host = format!("mx-{}.", region.name);
    loop {
        let mx = dig(server, &["+short", "postrider.example", "MX"]).await;
        if mx.contains(&host) == named {
            break;
        }
        assert!(since.elapsed() < limit, "{} at {}: named should be {named}: {mx}", region.name, server.name);
    }
    if !named {
        let mut seen = BTreeSet::new();
        for _ in 0..QUESTIONS {
            seen.insert(dig(server, &["+short", "mail.postrider.example", "A"]).await.trim().to_owned());
        }
        assert!(!seen.contains(&region.address), "{seen:?}");
    }
}

async fn dig(region: &Region, words: &[&str]) -> String {
    let (address, port) = region.dns.rsplit_once(':').expect("ADDRESS:PORT");
    let server = format!("@{address}");
    let output = Command::new("dig")
        .args([&server, "-p", port, "+norecurse", "+tries=1", "+time=2"])
        .args(words)
        .output()
        .await
        .unwrap_or_else(|error| panic!("dig does not start ({error}); Debian: apt-get install bind9-dnsutils"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
