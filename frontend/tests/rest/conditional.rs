//! Whoever has an answer already is told so, and that costs no rows.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::client::{Answer, Client};
use crate::world::{Person, World};

async fn unless(client: &Client, path: &str, tag: &str) -> Answer {
    client.send(Method::GET, path, &[("if-none-match", tag)], None).await
}

fn tag(answer: &Answer) -> String {
    answer.ok();
    answer.header("etag").expect("a tag").to_owned()
}

/// Everything that depends on a mailbox's state.
async fn paths(person: &Person) -> Vec<String> {
    let inbox = person.folder("inbox").await;
    let labels = person.client.get("/v1/labels").await.ok();
    let messages = person.messages("inbox").await;
    vec![
        "/v1/folders".to_owned(),
        "/v1/labels".to_owned(),
        format!("/v1/folders/{inbox}/messages"),
        format!("/v1/folders/{inbox}/messages?is_read=false&limit=1"),
        format!("/v1/folders/{inbox}/messages?is_flagged=true"),
        format!("/v1/folders/{inbox}/threads"),
        format!("/v1/labels/{}/messages", labels[0]["id"].as_str().unwrap()),
        format!("/v1/threads/{}", messages[0]["thread_id"].as_str().unwrap()),
        "/v1/search?q=report".to_owned(),
        "/v1/search/threads?q=report".to_owned(),
    ]
}

async fn somebody(world: &World) -> Person {
    let person = world.person().await;
    person.client.post("/v1/labels", &json!({"name": "Work", "color": "#2e7d32"})).await.ok();
    world.deliver_text(&person, "report").await;
    person
}

#[tokio::test]
async fn what_has_not_changed_is_not_read_again() {
    let world = World::new().await;
    let ada = somebody(&world).await;
    for path in paths(&ada).await {
        let first = ada.client.get(&path).await;
        let tag = tag(&first);
        assert!(tag.starts_with("W/\""), "{path}: {tag}");
        let before = world.cluster.rows_read();
        for field in [tag.clone(), format!("\"x\", {tag}"), tag.trim_start_matches("W/").to_owned()] {
            let again = unless(&ada.client, &path, &field).await;
            assert_eq!((again.status, again.bytes.len()), (StatusCode::NOT_MODIFIED, 0), "{path} {field}");
            assert_eq!(again.header("etag"), Some(tag.as_str()), "{path}");
            assert_eq!(again.header("cache-control"), Some("no-store"), "{path}");
        }
        assert_eq!(world.cluster.rows_read(), before, "{path}: rows were read");
        // Not the tag of this answer.
        for field in
            ["*", "\"\"", "W/\"1\"", "W/\"1.AAAAAAAAAAAAAAAAAAAAAA\"", &tag[..tag.len() - 2], &tag.replace('.', "0.")]
        {
            assert_eq!(unless(&ada.client, &path, field).await.bytes, first.bytes, "{path} {field}");
        }
    }
}

#[tokio::test]
async fn what_has_changed_is() {
    let world = World::new().await;
    let ada = somebody(&world).await;
    let message = ada.messages("inbox").await[0]["id"].as_str().unwrap().to_owned();
    let message = format!("/v1/messages/{message}");
    let changes = [
        json!({"is_read": true}),
        json!({"labels": {"add": [ada.client.get("/v1/labels").await.ok()[0]["id"]]}}),
        json!({"is_flagged": true}),
        json!({"folder_id": ada.folder("archive").await}),
        json!({"folder_id": ada.folder("inbox").await}),
    ];
    for change in changes {
        let paths = paths_of(&ada, &message).await;
        let mut tags = Vec::new();
        for path in &paths {
            tags.push(tag(&ada.client.get(path).await));
        }
        ada.client.patch(&message, &change).await.ok();
        for (path, old) in paths.iter().zip(&tags) {
            let now = unless(&ada.client, path, old).await;
            assert_eq!(now.status, StatusCode::OK, "{path} {change}");
            assert_ne!(now.header("etag"), Some(old.as_str()), "{path} {change}");
            assert_eq!(now.bytes, ada.client.get(path).await.bytes, "{path} {change}");
        }
    }
    // Mail that arrives changes lists, and not the message that was there.
    let lists = "/v1/folders";
    let (list, read) = (tag(&ada.client.get(lists).await), tag(&ada.client.get(&message).await));
    world.deliver_text(&ada, "another").await;
    assert_eq!(unless(&ada.client, lists, &list).await.status, StatusCode::OK);
    assert_eq!(unless(&ada.client, &message, &read).await.status, StatusCode::NOT_MODIFIED);
}

/// Those, whatever folder the message is in, and the message.
async fn paths_of(person: &Person, message: &str) -> Vec<String> {
    let inbox = person.folder("inbox").await;
    let thread = person.client.get(message).await.ok()["thread_id"].as_str().unwrap().to_owned();
    vec![
        "/v1/folders".to_owned(),
        "/v1/labels".to_owned(),
        format!("/v1/folders/{inbox}/messages"),
        format!("/v1/threads/{thread}"),
        "/v1/search?q=report".to_owned(),
        message.to_owned(),
    ]
}

#[tokio::test]
async fn a_tag_is_worth_nothing_to_others() {
    let world = World::new().await;
    let (ada, bob) = (somebody(&world).await, somebody(&world).await);
    let paths = paths(&ada).await;
    for path in &paths {
        let hers = tag(&ada.client.get(path).await);
        // The same things have happened in both mailboxes: only the account differs.
        if !path.contains("threads/") {
            assert_eq!(unless(&bob.client, path, &hers).await.status, StatusCode::OK, "{path}");
        }
        assert_eq!(unless(&world.client, path, &hers).await.problem(), "unauthenticated", "{path}");
        for other in paths.iter().filter(|other| *other != path) {
            assert_eq!(unless(&ada.client, other, &hers).await.status, StatusCode::OK, "{path} {other}");
        }
    }
    let message = format!("/v1/messages/{}", ada.messages("inbox").await[0]["id"].as_str().unwrap());
    let hers = tag(&ada.client.get(&message).await);
    assert_eq!(unless(&bob.client, &message, &hers).await.problem(), "not_found");
    let his = format!("/v1/messages/{}", bob.messages("inbox").await[0]["id"].as_str().unwrap());
    assert_eq!(unless(&bob.client, &his, &hers).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_that_is_over_gets_no_304() {
    let world = World::new().await;
    let ada = somebody(&world).await;
    let message = format!("/v1/messages/{}", ada.messages("inbox").await[0]["id"].as_str().unwrap());
    let mut paths = paths(&ada).await;
    paths.push(message.clone());
    let mut tags = Vec::new();
    for path in &paths {
        tags.push(tag(&ada.client.get(path).await));
    }
    let second = world.log_in(&ada.address).await;
    for (path, tag) in paths.iter().zip(&tags).filter(|(path, _)| **path == message) {
        assert_eq!(
            unless(&second, path, tag).await.status,
            StatusCode::NOT_MODIFIED,
            "{path}: another session of hers"
        );
    }
    ada.client.delete("/v1/sessions/current").await;
    for (path, tag) in paths.iter().zip(&tags) {
        assert_eq!(unless(&ada.client, path, tag).await.problem(), "unauthenticated", "{path}");
    }
    // What is gone is gone.
    let tag = tag(&second.get(&message).await);
    second.delete(&message).await;
    second.delete(&message).await;
    assert_eq!(unless(&second, &message, &tag).await.problem(), "not_found");
}

#[tokio::test]
async fn min_modseq_stale_marks_and_ages() {
    let world = World::new().await;
    let ada = somebody(&world).await;
    let path = "/v1/folders?min_modseq=1";
    let fresh = tag(&ada.client.get(path).await);
    assert_eq!(unless(&ada.client, path, &fresh).await.status, StatusCode::NOT_MODIFIED);
    let far = "/v1/folders?min_modseq=99999";
    assert_eq!(unless(&ada.client, far, &fresh).await.problem(), "behind");
    // What an age counts from is another moment each time.
    let aged = ada.client.get("/v1/search?q=report+newer_than:1d").await;
    aged.ok();
    assert_eq!(aged.header("etag"), None);
    world.cluster.lose_quorum(ada.shard);
    let stale = unless(&ada.client, path, &fresh).await;
    assert_eq!((stale.status, stale.header("postrider-stale-ms")), (StatusCode::NOT_MODIFIED, Some("1700")));
}
