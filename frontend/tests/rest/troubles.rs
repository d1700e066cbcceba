//! What a client sees while the cluster is in trouble: P-3 and P-4.

use postrider_api::env::SystemEntropy;
use postrider_api::id::{Slot, UserId, ZoneId};
use postrider_frontend::account::token::Token;
use reqwest::StatusCode;
use serde_json::json;

use crate::cluster::DIRECTORY;
use crate::world::World;

#[tokio::test]
async fn without_a_quorum_reads_are_stale_and_writes_refused() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await;
    let inbox = ada.folder("inbox").await;
    world.cluster.lose_quorum(ada.shard);
    for path in [
        "/v1/profile".to_owned(),
        "/v1/folders".to_owned(),
        format!("/v1/folders/{inbox}/messages"),
        format!("/v1/folders/{inbox}/threads"),
        format!("/v1/messages/{id}"),
        format!("/v1/messages/{id}/raw"),
    ] {
        let answer = ada.client.get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("postrider-stale-ms"), Some("1700"), "{path}");
        assert!(answer.header("warning").unwrap().starts_with("110 "), "{path}");
    }
    let path = format!("/v1/messages/{id}");
    let patch = json!({"is_read": true});
    for answer in [
        ada.client.patch(&path, &patch).await,
        ada.client.delete(&path).await,
        ada.client.post("/v1/folders", &json!({"name": "x"})).await,
        ada.client.patch("/v1/profile", &json!({"name": "x"})).await,
        ada.client.post("/v1/messages/batch", &json!({"ids": [id.to_string()], "is_read": true})).await,
        ada.client.post("/v1/messages", &json!({"to": [ada.address]})).await,
        ada.client.delete("/v1/sessions/current").await,
    ] {
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_quorum"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    world.cluster.regain_quorum(ada.shard);
    let answer = ada.client.get("/v1/profile").await;
    assert_eq!((answer.header("postrider-stale-ms"), answer.header("warning")), (None, None));
    ada.client.patch(&path, &patch).await.ok();
    world.cluster.verify();
}

#[tokio::test]
async fn without_the_directory_who_has_a_mailbox_goes_on() {
    let world = World::new().await;
    let ada = world.person().await;
    world.cluster.lose_quorum(DIRECTORY);
    ada.client.get("/v1/profile").await.ok();
    ada.client.post("/v1/folders", &json!({"name": "x"})).await.ok();
    // Whether there is such a user cannot be told now: that is no 401.
    let stranger = Token::random(UserId::new(ZoneId(1), Slot(1), [1; 12]), &SystemEntropy).text();
    let answer = world.client.with_token(&stranger).get("/v1/profile").await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_quorum"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn an_unknown_outcome_is_said_and_can_be_asked_again() {
    let world = World::new().await;
    let ada = world.person().await;
    let travel = json!({"name": "Travel"});
    world.cluster.lose_answer(0);
    let unknown = ada.client.post_once("/v1/folders", &travel, "k").await;
    assert_eq!(unknown.problem(), "outcome_unknown");
    let made = ada.client.post_once("/v1/folders", &travel, "k").await.ok();
    let folders = ada.client.get("/v1/folders").await.ok();
    assert_eq!(folders.as_array().unwrap().iter().filter(|folder| folder["id"] == made["id"]).count(), 1);
}

#[tokio::test]
async fn a_read_never_goes_back_behind_min_modseq() {
    let world = World::new().await;
    let ada = world.person().await;
    let modseq = ada.client.get("/v1/profile").await.ok()["modseq"].as_u64().unwrap();
    for path in ["/v1/profile", "/v1/folders"] {
        ada.client.get(&format!("{path}?min_modseq={modseq}")).await.ok();
        let behind = ada.client.get(&format!("{path}?min_modseq={}", modseq + 1)).await;
        assert_eq!((behind.status, behind.problem().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "behind"));
        assert_eq!(behind.header("retry-after"), Some("1"));
        assert_eq!(ada.client.get(&format!("{path}?min_modseq=x")).await.problem(), "invalid_query");
    }
}
