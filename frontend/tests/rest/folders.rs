//! Folders.

use reqwest::StatusCode;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_new_mailbox_has_its_folders() {
    let world = World::new().await;
    let ada = world.person().await;
    let folders = ada.client.get("/v1/folders").await.ok();
    let roles: Vec<_> = folders.as_array().unwrap().iter().filter_map(|folder| folder["role"].as_str()).collect();
    for role in ["inbox", "drafts", "sent", "archive", "junk", "trash"] {
        assert!(roles.contains(&role), "{role} is not among {roles:?}");
    }
    for folder in folders.as_array().unwrap() {
        assert_eq!(folder["user_id"], ada.user.to_string());
        assert_eq!((folder["total"].as_u64(), folder["unread"].as_u64()), (Some(0), Some(0)));
    }
}

#[tokio::test]
async fn folders_of_ones_own() {
    let world = World::new().await;
    let ada = world.person().await;
    let made = ada.client.post("/v1/folders", &json!({"name": "Travel"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let folder = made.json();
    let path = format!("/v1/folders/{}", folder["id"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(path.as_str()));
    assert_eq!(folder["role"], json!(null));
    let modseq: u64 = made.header("postrider-modseq").unwrap().parse().unwrap();
    assert!(ada.client.get(&format!("/v1/folders?min_modseq={modseq}")).await.status.is_success());

    let renamed = ada.client.patch(&path, &json!({"name": "Journeys"})).await.ok();
    assert_eq!(renamed["name"], "Journeys");
    assert!(renamed["modseq"].as_u64().unwrap() > modseq);
    let folders = ada.client.get("/v1/folders").await.ok();
    let found = folders.as_array().unwrap().iter().find(|other| other["id"] == folder["id"]).unwrap();
    assert_eq!(found["name"], "Journeys");

    let message = world.deliver_text(&ada, "hello").await;
    ada.client.patch(&format!("/v1/messages/{message}"), &json!({"folder_id": folder["id"]})).await.ok();
    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.delete(&path).await.problem(), "not_found");
    let trash = ada.messages("trash").await;
    assert_eq!(trash[0]["id"], message.to_string());
    world.cluster.verify();
}

#[tokio::test]
async fn a_large_folder_is_deleted_in_one_request() {
    let world = World::new().await;
    let ada = world.person().await;
    let folder = ada.client.post("/v1/folders", &json!({"name": "Large"})).await.ok();
    let folder = folder["id"].as_str().unwrap();
    let mut ids = Vec::new();
    for number in 0..1_100 {
        ids.push(world.deliver_text(&ada, &format!("m{number}")).await.to_string());
    }
    for some in ids.chunks(1_000) {
        ada.client.post("/v1/messages/batch", &json!({"ids": some, "folder_id": folder})).await.ok();
    }
    assert_eq!(ada.client.delete(&format!("/v1/folders/{folder}")).await.status, StatusCode::NO_CONTENT);
    let folders = ada.client.get("/v1/folders").await.ok();
    let trash = folders.as_array().unwrap().iter().find(|folder| folder["role"] == "trash").unwrap();
    assert_eq!(trash["total"], 1_100);
    assert!(!folders.as_array().unwrap().iter().any(|other| other["id"] == folder));
    world.cluster.verify();
}

#[tokio::test]
async fn what_folders_do_not_do() {
    let world = World::new().await;
    let ada = world.person().await;
    let inbox = format!("/v1/folders/{}", ada.folder("inbox").await);
    ada.client.post("/v1/folders", &json!({"name": "Travel"})).await.ok();
    assert_eq!(ada.client.post("/v1/folders", &json!({"name": "Travel"})).await.problem(), "folder_exists");
    assert_eq!(ada.client.delete(&inbox).await.problem(), "folder_protected");
    assert_eq!(ada.client.patch(&inbox, &json!({"name": "In"})).await.problem(), "folder_protected");
    assert_eq!(ada.client.patch("/v1/folders/4000", &json!({"name": "In"})).await.problem(), "not_found");
    for bad in ["", " x", "x ", "a\nb", "a/b", &"x".repeat(256)] {
        assert_eq!(ada.client.post("/v1/folders", &json!({"name": bad})).await.problem(), "invalid_body", "{bad:?}");
    }
    for bad in ["x", "-1", "01", "+1", "4294967296", "1%00"] {
        assert_eq!(ada.client.delete(&format!("/v1/folders/{bad}")).await.problem(), "not_found", "{bad}");
    }
}

#[tokio::test]
async fn a_repeated_creation_is_one_folder() {
    let world = World::new().await;
    let ada = world.person().await;
    let travel = json!({"name": "Travel"});
    let first = ada.client.post_once("/v1/folders", &travel, "k").await.ok();
    let second = ada.client.post_once("/v1/folders", &travel, "k").await.ok();
    assert_eq!(first, second);
    let other = json!({"name": "Work"});
    assert_eq!(ada.client.post_once("/v1/folders", &other, "k").await.problem(), "idempotency_key_mismatch");
    // Another path under the same key is another request.
    let batch = json!({"ids": ["0".repeat(32)], "is_read": true});
    assert_eq!(ada.client.post_once("/v1/messages/batch", &batch, "k").await.problem(), "idempotency_key_mismatch");
    // Somebody else's key of the same name is his own.
    let bob = world.person().await;
    bob.client.post_once("/v1/folders", &other, "k").await.ok();
}
