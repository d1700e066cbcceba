//! `/v1/uploads`: stored before the message, and used by it.

use postrider_api::id::BlobHash;
use postrider_blob::{BlobStore as _, Zone};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::cluster::DOMAIN;
use crate::world::World;

#[tokio::test]
async fn an_upload_goes_with_a_message_and_with_a_draft() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    for size in [1, 200_000, 4 * 1024 * 1024, 9_000_000] {
        let file: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let upload = world.upload(&ada, &file).await;
        // Before anything refers to it, two regions have it.
        let zone = Zone::new("world").unwrap();
        for piece in file.chunks(4 * 1024 * 1024) {
            let hash = BlobHash::of(piece);
            let mut copies = 0;
            for store in &world.stores {
                copies += u32::from(store.head(&zone, &hash).await.unwrap().is_some());
            }
            assert!(copies >= 2, "{copies}");
        }
        let attachments = json!([{"filename": "f.bin", "upload_id": upload}, {"filename": "two", "data": "aGk="}]);
        let body = json!({"to": [bob.address], "subject": size.to_string(), "attachments": attachments});
        ada.client.post("/v1/messages", &body).await.ok();
        let newest = bob.messages("inbox").await.remove(0);
        let path = format!("/v1/messages/{}", newest["id"].as_str().unwrap());
        let attachment = bob.client.get(&path).await.ok()["attachments"][0].clone();
        assert_eq!((&attachment["filename"], &attachment["size"]), (&json!("f.bin"), &json!(size)));
        let path = format!("{path}/attachments/{}", attachment["id"].as_str().unwrap());
        assert_eq!(bob.client.get(&path).await.bytes, file);
        // As often as one likes, within its time.
        ada.client.post("/v1/drafts", &json!({"attachments": attachments})).await.ok();
    }
    world.cluster.verify();
}

#[tokio::test]
async fn an_upload_is_its_accounts_and_whole() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let upload = world.upload(&ada, b"hello").await;
    let with = |upload: &str| json!({"to": [format!("x@{DOMAIN}")], "attachments": [{"upload_id": upload}]});
    for (client, upload) in [(&bob.client, upload.as_str()), (&ada.client, &upload[1..]), (&ada.client, "")] {
        let body = with(upload);
        // Nobody x is there: what is said of that comes first, whatever the upload is.
        assert_eq!(client.post("/v1/messages", &body).await.problem(), "recipient_unknown");
        assert_eq!(client.post("/v1/drafts", &body).await.problem(), "upload_unknown");
    }
    let both = json!({"attachments": [{"upload_id": upload, "data": "aGk="}]});
    assert_eq!(ada.client.post("/v1/drafts", &both).await.problem(), "invalid_body");
    let send = async |bytes: Vec<u8>, key: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("idempotency-key", key.parse().unwrap());
        }
        ada.client.send_raw(Method::POST, "/v1/uploads", headers, Some(bytes)).await
    };
    assert_eq!(send(Vec::new(), None).await.problem(), "invalid_body");
    assert_eq!(send(vec![0; 25 * 1024 * 1024 + 1], None).await.problem(), "body_too_large");
    assert_eq!(send(b"one".to_vec(), Some("k")).await.status, StatusCode::CREATED);
    assert_eq!(send(b"one".to_vec(), Some("k")).await.status, StatusCode::CREATED);
    assert_eq!(send(b"two".to_vec(), Some("k")).await.problem(), "idempotency_key_mismatch");
    let nobody = world.client.send_raw(Method::POST, "/v1/uploads", HeaderMap::new(), Some(b"x".to_vec())).await;
    assert_eq!(nobody.problem(), "unauthenticated");
}
