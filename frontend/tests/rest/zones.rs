//! Two residency zones: who is where, and mail from one to the other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_api::id::BlobHash;
use postrider_blob::{BlobStore as _, Zone};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cluster::{SECOND_DIRECTORY, SECOND_DOMAIN, SECOND_SHARDS};
use crate::world::{Person, World};

fn file() -> Vec<u8> {
    (0..200_000_u32).map(|n| (n % 251) as u8).collect()
}

fn letter(to: &[&Person], subject: &str) -> Value {
    let to: Vec<&str> = to.iter().map(|person| person.address.as_str()).collect();
    json!({"to": to, "subject": subject, "body": "text", "attachments": [{"filename": "x", "data": STANDARD.encode(file())}]})
}

/// The only message of a folder, with its file.
async fn only_message(person: &Person, role: &str) -> (Value, Vec<u8>) {
    let mut messages = person.messages(role).await;
    assert_eq!(messages.len(), 1, "{role} of {}", person.address);
    let path = format!("/v1/messages/{}", messages.remove(0)["id"].as_str().unwrap());
    let message = person.client.get(&path).await.ok();
    let attachment = message["attachments"][0]["id"].as_str().unwrap().to_owned();
    let file = person.client.get(&format!("{path}/attachments/{attachment}")).await.bytes;
    (message, file.to_vec())
}

fn header(message: &Value, name: &str) -> Value {
    let headers = message["headers"].as_array().unwrap();
    headers.iter().find(|header| header["name"] == name).map(|header| header["value"].clone()).unwrap()
}

async fn people(world: &World) -> (Person, Person, Person) {
    let (ada, bob) = (world.person().await, world.person().await);
    let zoe = world.person_called(&format!("zoe@{SECOND_DOMAIN}")).await;
    (ada, bob, zoe)
}

#[tokio::test]
async fn an_account_is_in_the_zone_of_its_domain() {
    let world = World::new().await;
    let (ada, _, zoe) = people(&world).await;
    assert_eq!((ada.user.zone().0, zoe.user.zone().0), (1, 2));
    // The token alone tells the zone: nobody asks the first zone's directory for her.
    zoe.client.get("/v1/profile").await.ok();
    world.log_in(&zoe.address.to_uppercase()).await.get("/v1/profile").await.ok();
    let again = json!({"address": zoe.address, "password": "correct horse battery", "name": "x"});
    assert_eq!(world.client.post("/v1/accounts", &again).await.problem(), "address_taken");
    // Without her zone's directory nothing is said of anybody there, and everything of the others.
    world.cluster.lose_quorum(SECOND_DIRECTORY);
    let stranger = json!({"address": format!("nobody@{SECOND_DOMAIN}"), "password": "correct horse battery"});
    assert_eq!(world.client.post("/v1/sessions", &stranger).await.status, StatusCode::SERVICE_UNAVAILABLE);
    ada.client.get("/v1/profile").await.ok();
    world.cluster.verify();
}

#[tokio::test]
async fn a_message_to_both_zones_is_one_command_in_each() {
    let world = World::new().await;
    let (ada, bob, zoe) = people(&world).await;
    ada.client.post("/v1/messages", &letter(&[&bob, &zoe], "both")).await.ok();
    let (sent, sent_file) = only_message(&ada, "sent").await;
    for person in [&bob, &zoe] {
        let (message, received) = only_message(person, "inbox").await;
        assert_eq!(received, file());
        for name in ["Message-ID", "Date"] {
            assert_eq!(header(&message, name), header(&sent, name), "one message, not two alike");
        }
        assert_eq!(message["to"], sent["to"]);
    }
    assert_eq!(sent_file, file());
    // Each zone has copies of its own, and none of the other's.
    let hash = BlobHash::of(&file());
    for (place, store) in world.stores.iter().enumerate() {
        let (own, other) = if place < 3 { ("world", "mars") } else { ("mars", "world") };
        assert!(store.head(&Zone::new(own).unwrap(), &hash).await.unwrap().is_some(), "{}", store.region());
        assert!(store.head(&Zone::new(other).unwrap(), &hash).await.unwrap().is_none(), "{}", store.region());
    }
    world.cluster.verify();
}

#[tokio::test]
async fn a_message_to_the_other_zone_alone() {
    let world = World::new().await;
    let (ada, bob, zoe) = people(&world).await;
    zoe.client.post("/v1/messages", &letter(&[&ada, &bob], "over there")).await.ok();
    only_message(&zoe, "sent").await;
    only_message(&ada, "inbox").await;
    only_message(&bob, "inbox").await;
    world.cluster.verify();
}

/// Whichever answer is lost: asked again under its key the message is there once in every zone, and it is the same message.
#[tokio::test]
async fn whoever_asks_again_goes_on_where_it_stopped() {
    // The plan, the other zone's command, the own one.
    for given in 0..3 {
        let world = World::new().await;
        let (ada, bob, zoe) = people(&world).await;
        let body = letter(&[&bob, &zoe], "again");
        world.cluster.lose_answer(given);
        let first = ada.client.post_once("/v1/messages", &body, "k").await;
        assert_eq!(first.problem(), "outcome_unknown", "answer {given}");
        // Another body under the key is refused, wherever the first one stopped.
        for recipients in [&[&bob][..], &[&bob, &zoe]] {
            let other = ada.client.post_once("/v1/messages", &letter(recipients, "other"), "k").await;
            assert_eq!(other.problem(), "idempotency_key_mismatch");
        }
        let second = ada.client.post_once("/v1/messages", &body, "k").await;
        assert_eq!(second.status, StatusCode::ACCEPTED, "answer {given}");
        let third = ada.client.post_once("/v1/messages", &body, "k").await;
        assert_eq!((second.status, second.json()), (third.status, third.json()));
        let (sent, _) = only_message(&ada, "sent").await;
        for person in [&bob, &zoe] {
            let (message, received) = only_message(person, "inbox").await;
            assert_eq!(received, file());
            assert_eq!(header(&message, "Message-ID"), header(&sent, "Message-ID"));
        }
        world.cluster.verify();
    }
}

/// A zone that cannot take it now is said so before anything has happened anywhere.
#[tokio::test]
async fn a_zone_without_a_quorum_costs_nothing() {
    let world = World::new().await;
    let (ada, bob, zoe) = people(&world).await;
    for (shard, _) in SECOND_SHARDS {
        world.cluster.lose_quorum(shard);
    }
    let answer = ada.client.post_once("/v1/messages", &letter(&[&bob, &zoe], "later"), "k").await;
    assert_eq!(answer.problem(), "no_quorum");
    assert!(ada.messages("sent").await.is_empty() && bob.messages("inbox").await.is_empty());
    for (shard, _) in SECOND_SHARDS {
        world.cluster.regain_quorum(shard);
    }
    ada.client.post_once("/v1/messages", &letter(&[&bob, &zoe], "later"), "k").await.ok();
    only_message(&zoe, "inbox").await;
    only_message(&bob, "inbox").await;
    world.cluster.verify();
}

/// P-5: her shard has no primary, another of her zone takes it, and it waits there.
#[tokio::test]
async fn another_shard_of_the_zone_takes_it() {
    let world = World::new().await;
    let (ada, bob, zoe) = people(&world).await;
    world.cluster.lose_quorum(SECOND_SHARDS[0].0);
    let body = letter(&[&bob, &zoe], "waits");
    ada.client.post_once("/v1/messages", &body, "k").await.ok();
    assert_eq!(world.cluster.waiting(SECOND_SHARDS[1].0), 1);
    for (shard, _) in crate::cluster::SHARDS {
        assert_eq!(world.cluster.waiting(shard), 0, "nothing of another zone waits in shard {shard}");
    }
    world.cluster.regain_quorum(SECOND_SHARDS[0].0);
    ada.client.post_once("/v1/messages", &body, "k").await.ok();
    assert_eq!(world.cluster.waiting(SECOND_SHARDS[1].0), 1);
    assert!(zoe.messages("inbox").await.is_empty());
    world.cluster.verify();
}
