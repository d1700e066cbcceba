//! `/v1/drafts`: kept, kept again, thrown away, sent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::SECOND_DOMAIN;
use crate::world::{Person, World};

async fn put(person: &Person, id: &Value, body: &Value) -> crate::client::Answer {
    person.client.send(Method::PUT, &format!("/v1/drafts/{}", id.as_str().unwrap()), &[], Some(body)).await
}

async fn message(person: &Person, id: &Value) -> Value {
    person.client.get(&format!("/v1/messages/{}", id.as_str().unwrap())).await.ok()
}

#[tokio::test]
async fn a_draft_is_kept_replaced_and_sent() {
    let world = World::new().await;
    let (ada, bob, cyd) = (world.person().await, world.person().await, world.person().await);
    let made = ada.client.post("/v1/drafts", &json!({"subject": "later"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let first = made.json()["id"].clone();
    let drafts = ada.messages("drafts").await;
    assert_eq!((drafts.len(), &drafts[0]["id"]), (1, &first));
    assert_eq!(drafts[0]["keywords"], json!(["$seen", "$draft"]));

    let file = vec![b'f'; 200_000];
    let whole = json!({
        "to": [{"name": "Bob", "email": bob.address}], "bcc": [cyd.address], "subject": "now", "body": "text",
        "attachments": [{"filename": "f", "data": STANDARD.encode(&file)}],
    });
    let path = format!("/v1/drafts/{}", first.as_str().unwrap());
    let keyed = async || ada.client.send(Method::PUT, &path, &[("idempotency-key", "put")], Some(&whole)).await.ok();
    let second = keyed().await["id"].clone();
    assert_eq!(keyed().await["id"], second, "asked again it is the same");
    assert_ne!(second, first);
    assert_eq!(ada.messages("drafts").await.len(), 1);
    assert_eq!(put(&ada, &first, &whole).await.problem(), "not_found");
    // Its author sees whom it goes to unseen.
    assert_eq!(message(&ada, &second).await["bcc"][0]["email"], cyd.address);

    let path = format!("/v1/drafts/{}/send", second.as_str().unwrap());
    let sent = ada.client.send(Method::POST, &path, &[("idempotency-key", "k")], None).await;
    assert_eq!(sent.status, StatusCode::ACCEPTED);
    let again = ada.client.send(Method::POST, &path, &[("idempotency-key", "k")], None).await;
    assert_eq!(sent.json(), again.json());
    assert!(ada.messages("drafts").await.is_empty());
    for person in [&bob, &cyd] {
        let inbox = person.messages("inbox").await;
        assert_eq!(inbox.len(), 1);
        let received = message(person, &inbox[0]["id"]).await;
        assert_eq!((&received["subject"], &received["bcc"]), (&json!("now"), &json!([])));
        assert!(!received.to_string().contains(&cyd.address));
        let attachment = received["attachments"][0]["id"].as_str().unwrap();
        let path = format!("/v1/messages/{}/attachments/{attachment}", received["id"].as_str().unwrap());
        assert_eq!(person.client.get(&path).await.bytes, file);
    }
    assert_eq!(message(&ada, &sent.json()["id"]).await["bcc"], json!([]));
    assert_eq!(ada.client.post(&path, &json!({})).await.problem(), "not_found", "it is a draft no longer");
    world.cluster.verify();
}

#[tokio::test]
async fn a_draft_goes_to_another_zone_too() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let zoe = world.person_called(&format!("zoe@{SECOND_DOMAIN}")).await;
    let draft = json!({"to": [bob.address, zoe.address], "subject": "both"});
    let draft = ada.client.post("/v1/drafts", &draft).await.ok();
    let path = format!("/v1/drafts/{}/send", draft["id"].as_str().unwrap());
    ada.client.post(&path, &json!({})).await.ok();
    assert_eq!((bob.messages("inbox").await.len(), zoe.messages("inbox").await.len()), (1, 1));
    assert!(ada.messages("drafts").await.is_empty());
    // Later, it waits for both where the sender is, and can be taken back.
    let later = json!({"to": [bob.address, zoe.address], "subject": "later", "send_at": "2027-06-01T08:00:00Z"});
    let sent = ada.client.post("/v1/messages", &later).await.ok();
    let waiting = ada.client.get("/v1/outbox").await.ok()["messages"][0]["recipients"].clone();
    let mut named: Vec<&str> = waiting.as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    named.sort_unstable();
    let mut both = [bob.address.as_str(), zoe.address.as_str()];
    both.sort_unstable();
    assert_eq!(named, both);
    let cancel = format!("/v1/outbox/{}/cancel", sent["outbox_id"].as_str().unwrap());
    ada.client.post(&cancel, &json!({})).await.ok();
    assert_eq!((bob.messages("inbox").await.len(), zoe.messages("inbox").await.len()), (1, 1));
    world.cluster.verify();
}

#[tokio::test]
async fn what_is_no_draft_and_what_cannot_be_sent() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let received = world.deliver_text(&ada, "received").await.to_string();
    for (method, path) in [
        (Method::PUT, format!("/v1/drafts/{received}")),
        (Method::DELETE, format!("/v1/drafts/{received}")),
        (Method::POST, format!("/v1/drafts/{received}/send")),
    ] {
        let body = json!({});
        let body = (method != Method::DELETE).then_some(&body);
        assert_eq!(ada.client.send(method.clone(), &path, &[], body).await.problem(), "not_found", "{method} {path}");
    }
    assert_eq!(ada.messages("inbox").await.len(), 1);
    for (body, problem) in [
        (json!({"send_at": "2027-01-01T00:00:00Z"}), "invalid_body"),
        (json!({"to": ["no address"]}), "invalid_body"),
        (json!({"subject": "a\r\nBcc: b"}), "invalid_body"),
        (json!({"from": bob.address}), "invalid_body"),
    ] {
        assert_eq!(ada.client.post("/v1/drafts", &body).await.problem(), problem, "{body}");
    }
    let to_nobody = ada.client.post("/v1/drafts", &json!({"subject": "x"})).await.ok();
    let path = format!("/v1/drafts/{}", to_nobody["id"].as_str().unwrap());
    assert_eq!(ada.client.post(&format!("{path}/send"), &json!({})).await.problem(), "invalid_body");
    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.delete(&path).await.problem(), "not_found");
    assert!(ada.messages("drafts").await.is_empty() && ada.messages("trash").await.is_empty());
    world.cluster.verify();
}
