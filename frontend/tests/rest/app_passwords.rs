//! `/v1/app-passwords`: made, listed, revoked.

use postrider_api::limit::APP_PASSWORDS_MAX;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn one_is_made_shown_once_listed_and_revoked() {
    let world = World::new().await;
    let ada = world.person().await;
    let made = ada.client.post("/v1/app-passwords", &json!({"name": "cron", "scopes": ["smtp"]})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let location = made.header("location").unwrap().to_owned();
    let made = made.json();
    assert_eq!(location, format!("/v1/app-passwords/{}", made["id"].as_str().unwrap()));
    let password = made["password"].as_str().unwrap();
    assert_eq!(password.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit()).count(), 26);

    let other = ada.client.post("/v1/app-passwords", &json!({"name": "cron", "scopes": ["smtp", "imap"]})).await.ok();
    assert_ne!(other["password"], made["password"]);
    let listed = ada.client.get("/v1/app-passwords").await;
    assert!(!String::from_utf8_lossy(&listed.bytes).contains(password));
    let listed = listed.ok();
    let ids = listed.as_array().unwrap().iter().map(|line| line["id"].as_str().unwrap()).collect::<Vec<_>>();
    assert!(ids.len() == 2 && ids.contains(&made["id"].as_str().unwrap()));
    assert!(listed[0]["last_used_at"].is_null());

    assert_eq!(ada.client.delete(&location).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.delete(&location).await.problem(), "not_found");
    assert_eq!(ada.client.get("/v1/app-passwords").await.ok().as_array().unwrap().len(), 1);
    world.cluster.verify();
}

#[tokio::test]
async fn asked_again_it_is_the_same_one() {
    let world = World::new().await;
    let ada = world.person().await;
    let body = json!({"name": "cron", "scopes": ["smtp"]});
    let key = [("idempotency-key", "once")];
    let make = async |body| ada.client.send(Method::POST, "/v1/app-passwords", &key, Some(body)).await;
    let first = make(&body).await.ok();
    assert_eq!(make(&body).await.ok(), first);
    assert_eq!(make(&json!({"name": "other", "scopes": ["smtp"]})).await.problem(), "idempotency_key_mismatch");
    assert_eq!(ada.client.get("/v1/app-passwords").await.ok().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_none() {
    let world = World::new().await;
    let ada = world.person().await;
    for (body, field) in [
        (json!({"name": "", "scopes": ["smtp"]}), "name"),
        (json!({"name": "a\nb", "scopes": ["smtp"]}), "name"),
        (json!({"name": "x".repeat(101), "scopes": ["smtp"]}), "name"),
        (json!({"name": "cron", "scopes": []}), "scopes"),
    ] {
        let refused = ada.client.post("/v1/app-passwords", &body).await;
        assert_eq!(refused.problem(), "invalid_body", "{body}");
        assert_eq!(refused.json()["field"], field, "{body}");
    }
    let unknown = json!({"name": "cron", "scopes": ["everything"]});
    assert_eq!(ada.client.post("/v1/app-passwords", &unknown).await.problem(), "invalid_body");
    for number in 0..APP_PASSWORDS_MAX {
        let body = json!({"name": format!("{number}"), "scopes": ["smtp"]});
        ada.client.post("/v1/app-passwords", &body).await.ok();
    }
    let one_more = ada.client.post("/v1/app-passwords", &json!({"name": "more", "scopes": ["smtp"]})).await;
    assert_eq!(one_more.problem(), "app_passwords_too_many");
    world.cluster.verify();
}
