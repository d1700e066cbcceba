//! `kill -9` of object stores in the middle of the puts of incoming mail (P-1, P-6).
//!
//! Every message has an attachment that goes to the stores of two regions before its `250`. With one store gone mail comes in as
//! before; with two gone no attachment can be made durable, and none is accepted.

mod harness;

use std::time::Instant;

use harness::load::{Load, Plan};
use harness::rest::Api;
use harness::smtp::{self, Client, Sent};
use harness::{Cluster, Options, Region, parameter};

#[tokio::test(flavor = "multi_thread")]
async fn killed_stores_cost_no_attachment_that_was_acknowledged() {
    let messages = parameter("POSTRIDER_STORE_MESSAGES", 20);
    let mut cluster = Cluster::start(Options::default()).await;
    let regions = cluster.ready().regions.clone();
    let mut users = Vec::new();
    for (n, region) in regions.iter().enumerate() {
        users.push(Api::sign_up(region, &format!("store{n}@postrider.example")).await);
    }
    let load = Load::start(Plan { connections: 8, ..Plan::everywhere(&cluster, &users, "store") });
    for region in &regions {
        load.until_accepted(messages).await;
        kill_stores(&cluster, std::slice::from_ref(region)).await;
        load.until_accepted(messages).await;
        cluster.revive("store", &region.name).await;
    }
    load.until_accepted(messages).await;

    let [first, second, third] = &regions[..] else { panic!("three regions") };
    kill_stores(&cluster, &[first.clone(), second.clone()]).await;
    let killed = Instant::now();
    text_comes_in_and_attachments_do_not(&regions, &users[0]).await;
    load.until_refused().await;
    let revived = Instant::now();
    for region in [first, second] {
        cluster.revive("store", &region.name).await;
    }
    load.until_accepted(messages).await;
    let books = load.finish().await;
    let between = books.attempts.iter().filter(|attempt| attempt.began > killed && attempt.ended < revived);
    let (accepted, refused): (Vec<_>, Vec<_>) = between.partition(|attempt| matches!(attempt.sent, Sent::Accepted(_)));
    assert!(accepted.is_empty(), "accepted with one store of three: {:?}", accepted.first());
    assert!(!refused.is_empty(), "the load went on meanwhile");
    let wrong = refused.iter().find(|attempt| !matches!(attempt.sent, Sent::Refused { code: 451, .. }));
    assert!(wrong.is_none(), "each is told to try again: {wrong:?}");

    // Every attachment is in two stores, so it can be read without any one of them.
    kill_stores(&cluster, std::slice::from_ref(third)).await;
    books.check(&users).await;
    cluster.revive("store", &third.name).await;
    cluster.assert_consistent().await;
}

async fn kill_stores(cluster: &Cluster, regions: &[Region]) {
    let pids: Vec<u32> = regions.iter().map(|region| cluster.region(&region.name).store_pid).collect();
    cluster.kill(&pids).await;
}

/// At every region.
async fn text_comes_in_and_attachments_do_not(regions: &[Region], user: &Api) {
    for region in regions {
        let subject = format!("Text at {}", region.name);
        smtp::deliver(&region.smtp, &[&user.address], &smtp::text(&subject, "x")).await;
        user.until_subject(&subject).await;
        let mut client = Client::connect(&region.smtp).await.expect("the frontend greets");
        let sent = client.send(&[&user.address], &smtp::attachment(&format!("Attached at {}", region.name))).await;
        assert!(matches!(sent, Sent::Refused { code: 451, .. }), "at {}: {sent:?}", region.name);
    }
}
