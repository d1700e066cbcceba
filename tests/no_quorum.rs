//! Two of three regions' nodes are gone: writes are refused soon and clearly, reading goes on and is marked stale (P-3, P-4).

mod harness;

use std::time::{Duration, Instant};

use harness::rest::Api;
use harness::smtp::{self, Client, Sent};
use harness::{Cluster, Options, parameter};
use reqwest::{Method, StatusCode};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_are_refused_and_reading_goes_on() {
    // The promise is 5 s; a test build on a machine that does something else may take longer.
    let refused_within = Duration::from_millis(parameter("POSTRIDER_REFUSED_WITHIN_MS", 8_000));
    let mut cluster = Cluster::start(Options::default()).await;
    let user = Api::sign_up(cluster.region("seoul"), "alone@postrider.example").await;
    smtp::deliver(&cluster.region("seoul").smtp, &[&user.address], &smtp::text("Before", "x")).await;
    let before = user.until_subject("Before").await;
    let folder = user.folder("inbox").await;
    let killed: Vec<u64> = ["frankfurt", "virginia"].iter().map(|name| cluster.region(name).nodes[0].id).collect();
    let pids: Vec<u32> = killed.iter().map(|node| cluster.node_pid(*node)).collect();
    cluster.kill(&pids).await;

    refuses_mail(&cluster, &user, refused_within).await;
    refuses_changes(&user, before["id"].as_str().expect("an id"), refused_within).await;
    let path = format!("/v1/folders/{}/messages", folder["id"].as_str().expect("an id"));
    reads_stale(&user, &path, refused_within).await;

    for node in &killed {
        cluster.revive("node", &node.to_string()).await;
    }
    cluster.until_whole().await;
    until_accepted(&cluster, &user).await;
    user.until_subject("After").await;
    // 451 says that it is not known to be durable: it may have been carried out, but never twice.
    let during = user.inbox().await.iter().filter(|row| row["subject"] == "During").count();
    assert!(during <= 1, "a refused message is there {during} times");
    cluster.assert_consistent().await;
}

async fn refuses_mail(cluster: &Cluster, user: &Api, within: Duration) {
    let begin = Instant::now();
    let mut client = Client::connect(&cluster.region("seoul").smtp).await.expect("the frontend greets");
    let sent = client.send(&[&user.address], &smtp::text("During", "x")).await;
    assert!(matches!(sent, Sent::Refused { code: 451, .. }), "{sent:?}");
    assert!(begin.elapsed() < within, "refused after {:?}", begin.elapsed());
}

async fn refuses_changes(user: &Api, id: &str, within: Duration) {
    let begin = Instant::now();
    let change = Some(json!({ "is_read": true }));
    let answer = user.ask(Method::PATCH, &format!("/v1/messages/{id}"), change).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("Retry-After"), "{:?}", answer.headers());
    assert_eq!(answer.headers()["Content-Type"], "application/problem+json");
    assert!(begin.elapsed() < within, "refused after {:?}", begin.elapsed());
}

/// The one replica that is left still shows the mailbox, and says that it may be old.
async fn reads_stale(user: &Api, path: &str, within: Duration) {
    let begin = Instant::now();
    let answer = user.ask(Method::GET, path, None).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let age = answer.headers().get("Postrider-Stale-Ms").and_then(|age| age.to_str().ok()?.parse::<u64>().ok());
    assert!(age.is_some(), "the answer says how old it may be: {:?}", answer.headers());
    let page: serde_json::Value = answer.json().await.expect("JSON");
    assert_eq!(page["messages"][0]["subject"], "Before", "{page}");
    assert!(begin.elapsed() < within, "answered after {:?}", begin.elapsed());
}

async fn until_accepted(cluster: &Cluster, user: &Api) {
    let begin = Instant::now();
    loop {
        if let Ok(mut client) = Client::connect(&cluster.region("seoul").smtp).await {
            let sent = client.send(&[&user.address], &smtp::text("After", "x")).await;
            if matches!(sent, Sent::Accepted(_)) {
                return;
            }
            assert!(matches!(sent, Sent::Refused { code: 451, .. }), "{sent:?}");
        }
        assert!(begin.elapsed() < harness::DEADLINE, "mail is accepted again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
