//! `ctl queue return` is killed between its two commands, the report to the sender and the end of the entry: asked again, it ends the
//! entry, and there is one report (P-6).
//!
//! The sender's shard lies on nodes of its own, so that the one command can be held while the other is made impossible.

mod harness;

use std::process::Stdio;
use std::time::Instant;

use harness::rest::Api;
use harness::smtp::{self, Client, Sent};
use harness::{Cluster, DEADLINE, Options};
use reqwest::Method;
use serde_json::Value;

/// Accounts that are made to find one in a certain shard: of four shards, two are at home in the region.
const TRIES_MAX: u32 = 40;
const SUBJECT: &str = "Nobody will read this";

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_was_killed_is_carried_on_with_one_report() {
    let cluster = Cluster::start(Options { shards: 4, nodes_per_region: 2, ..Options::default() }).await;
    let regions = cluster.ready().regions.clone();
    let sender = somebody_apart(&cluster).await;
    let recipient = Api::sign_up(&regions[1], "recipient@postrider.example").await;
    let entry = given_up(&cluster, &sender, &recipient).await;

    // Two of three nodes of the sender's shard, and two of the others, where the entry, the directory and placement are.
    let [apart, others] = [1, 0].map(|n| regions[1..].iter().map(|region| region.nodes[n].pid).collect::<Vec<u32>>());
    apart.iter().for_each(|pid| cluster.freeze(*pid));
    let mut returning = cluster
        .ctl_command(&["queue", "return", &entry, "--why", "a test"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("run postrider ctl queue return");
    // It has read the entry, and waits for the sender's shard, behind the directory: a look there that begins later has an answer.
    until_begun(&cluster).await;
    let (found, done) = cluster.ctl(&["user", &recipient.address]).await;
    assert!(done, "{found}");
    others.iter().for_each(|pid| cluster.freeze(*pid));
    apart.iter().for_each(|pid| cluster.thaw(*pid));
    let report = until_reported(&sender).await;
    returning.kill().await.expect("kill the command");
    others.iter().for_each(|pid| cluster.thaw(*pid));
    cluster.until_whole().await;
    let failed = failed(&cluster).await;
    assert!(failed.to_string().contains(&entry), "it was killed before the entry went: {failed}");

    let again = cluster.ctl_raw(&["queue", "return", &entry, "--why", "once more"]).await;
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(self::failed(&cluster).await, Value::Array(Vec::new()));
    let reports = sender.inbox().await;
    assert_eq!(reports.len(), 1, "one report: {reports:?}");
    assert_eq!(reports[0]["id"], report["id"]);
    cluster.assert_consistent().await;
}

/// Somebody in the shard that lies on the second node of each region.
async fn somebody_apart(cluster: &Cluster) -> Api {
    let mut apart: Vec<u64> = cluster.ready().regions.iter().map(|region| region.nodes[1].id).collect();
    apart.sort_unstable();
    for n in 0..TRIES_MAX {
        let user = Api::sign_up(&cluster.ready().regions[0], &format!("sender{n}@postrider.example")).await;
        if cluster.replicas(cluster.shard_of(&user.address).await).await == apart {
            return user;
        }
    }
    panic!("nobody is in a shard on the second nodes");
}

/// A message from the one to the other that was given up; its queue id. It waits in the recipient's shard because he was suspended
/// between RCPT and the message.
async fn given_up(cluster: &Cluster, sender: &Api, recipient: &Api) -> String {
    let mut client = Client::connect(&cluster.ready().regions[0].smtp).await.expect("the frontend greets");
    let refused = client.address(&sender.address, &[&recipient.address]).await.expect("answered");
    assert_eq!(refused, None);
    let suspend = ["account", "suspend", &recipient.address, "--receive", "false", "--why", "a test"];
    let (said, done) = cluster.ctl(&suspend).await;
    assert!(done, "{said}");
    let sent = client.content(&smtp::text(SUBJECT, "x")).await.expect("answered");
    let Sent::Accepted(text) = sent else { panic!("{sent:?}") };
    let entry = text.rsplit_once("queued as ").map(|(_, entry)| entry.to_owned());
    let entry = entry.unwrap_or_else(|| panic!("a queue id: {text}"));
    let given_up = cluster.ctl_raw(&["queue", "give-up", &entry, "--why", "a test"]).await;
    assert!(given_up.status.success(), "{}", String::from_utf8_lossy(&given_up.stderr));
    entry
}

/// The audit log has the beginning of the return: what it does is done after that.
async fn until_begun(cluster: &Cluster) {
    let begin = Instant::now();
    loop {
        let (audit, _) = cluster.ctl(&["audit", "--since", "1h"]).await;
        if audit.to_string().contains("queue.return") {
            return;
        }
        assert!(begin.elapsed() < DEADLINE, "the return begins: {audit}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn until_reported(sender: &Api) -> Value {
    let begin = Instant::now();
    loop {
        // Of the frontend in the region whose nodes all run.
        if let Ok(answer) = sender.ask(Method::GET, "/v1/folders", None).await
            && answer.status().is_success()
            && let Some(report) = sender.inbox().await.into_iter().next()
        {
            return report;
        }
        assert!(begin.elapsed() < DEADLINE, "the sender is told");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

async fn failed(cluster: &Cluster) -> Value {
    let (failed, done) = cluster.ctl(&["queue", "list", "--failed", "--why", "a test"]).await;
    assert!(done, "{failed}");
    failed
}
