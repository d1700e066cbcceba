//! `/v1/outbox`: what is on its way, why, and taking it back; and mail to the outside.

use serde_json::{Value, json};

use crate::world::{Person, World};

async fn outbox(person: &Person) -> Vec<Value> {
    person.client.get("/v1/outbox").await.ok()["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn mail_to_the_outside_waits_with_a_reason() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let body = json!({"to": [bob.address, "Carol@Far.Example", "x@bücher.example"], "bcc": ["dan@far.example"], "subject": "all"});
    let sent = ada.client.post_once("/v1/messages", &body, "k").await.ok();
    assert_eq!(ada.client.post_once("/v1/messages", &body, "k").await.ok(), sent);
    assert_eq!(bob.messages("inbox").await.len(), 1, "who lives here has it");
    let waiting = outbox(&ada).await;
    assert_eq!(waiting.len(), 1);
    let entry = &waiting[0];
    assert_eq!((&entry["id"], &entry["message_id"]), (&sent["outbox_id"], &sent["id"]));
    assert_eq!(
        (&entry["subject"], &entry["send_at"], &entry["cancel_until"]),
        (&json!("all"), &Value::Null, &Value::Null)
    );
    let mut addresses: Vec<&str> =
        entry["recipients"].as_array().unwrap().iter().map(|one| one["address"].as_str().unwrap()).collect();
    addresses.sort_unstable();
    assert_eq!(addresses, ["Carol@far.example", "dan@far.example", "x@xn--bcher-kva.example"]);
    for recipient in entry["recipients"].as_array().unwrap() {
        assert_eq!(recipient["state"], "waiting");
        assert_eq!(recipient["why"], "It is about to be sent.");
    }
    let one = ada.client.get(&format!("/v1/outbox/{}", sent["outbox_id"].as_str().unwrap())).await.ok();
    assert_eq!(one["recipients"].as_array().unwrap().len(), 3);
    assert!(outbox(&bob).await.is_empty());
    let cancel = format!("/v1/outbox/{}/cancel", sent["outbox_id"].as_str().unwrap());
    assert_eq!(ada.client.post(&cancel, &json!({})).await.problem(), "too_late");
    // Nobody waits for what everybody has.
    let local = ada.client.post("/v1/messages", &json!({"to": [bob.address]})).await.ok();
    assert_eq!(local["outbox_id"], Value::Null);
    world.cluster.verify();
}

#[tokio::test]
async fn what_is_sent_later_can_be_taken_back_and_sent_again() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    for body in [
        json!({"to": [bob.address], "bcc": ["carol@far.example"], "subject": "undo", "undo_s": 60}),
        json!({"to": [bob.address], "subject": "scheduled", "send_at": "2027-06-01T08:00:00+02:00"}),
    ] {
        let sent = ada.client.post("/v1/messages", &body).await.ok();
        let waiting = outbox(&ada).await;
        assert_eq!(waiting.len(), 1, "{body}");
        assert!(waiting[0]["send_at"].is_string() && waiting[0]["cancel_until"].is_string(), "{waiting:?}");
        assert!(waiting[0]["recipients"].as_array().unwrap().iter().all(|one| one["state"] == "scheduled"));
        assert!(bob.messages("inbox").await.is_empty(), "who lives here waits, too");
        let path = format!("/v1/outbox/{}/cancel", sent["outbox_id"].as_str().unwrap());
        assert_eq!(bob.client.post(&path, &json!({})).await.problem(), "not_found");
        let key = sent["id"].as_str().unwrap();
        let draft = ada.client.post_once(&path, &json!({}), key).await.ok();
        assert_eq!(ada.client.post_once(&path, &json!({}), key).await.ok(), draft);
        assert_eq!(draft["draft_id"], sent["id"], "the copy in Sent became a draft");
        assert!(outbox(&ada).await.is_empty() && ada.messages("sent").await.is_empty());
        let drafts = ada.messages("drafts").await;
        assert_eq!((drafts.len(), &drafts[0]["id"]), (1, &sent["id"]));
        let path = format!("/v1/drafts/{}", sent["id"].as_str().unwrap());
        ada.client.delete(&path).await;
    }
    let scheduled = json!({"to": [bob.address], "send_at": "2027-06-01T08:00:00+02:00"});
    let scheduled = ada.client.post("/v1/messages", &scheduled).await.ok();
    let copy = ada.client.get(&format!("/v1/messages/{}", scheduled["id"].as_str().unwrap())).await.ok();
    assert_eq!(copy["date"], "2027-06-01T06:00:00Z", "its Date is when it is sent");
    world.cluster.verify();
}

#[tokio::test]
async fn pages_of_the_outbox() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    for number in 0..5 {
        let body = json!({"to": ["x@far.example"], "subject": number.to_string()});
        ada.client.post("/v1/messages", &body).await.ok();
    }
    let (mut subjects, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ada.client.get(&format!("/v1/outbox?limit=2{cursor}")).await.ok();
        subjects
            .extend(page["messages"].as_array().unwrap().iter().map(|one| one["subject"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
        assert_eq!(bob.client.get(&format!("/v1/outbox?limit=2{cursor}")).await.problem(), "invalid_cursor");
    }
    assert_eq!(subjects, ["0", "1", "2", "3", "4"]);
    assert_eq!(ada.client.get("/v1/outbox?limit=0").await.problem(), "invalid_query");
}
