//! Lists, messages, and what changes of them.

use postrider_api::id::EmailId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::DOMAIN;
use crate::world::{Person, World, text};

fn ids(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["id"].as_str().unwrap()).collect()
}

async fn deliver_many(world: &World, person: &Person, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        ids.push(world.deliver_text(person, &format!("m{number}")).await.to_string());
    }
    ids.reverse();
    ids
}

#[tokio::test]
async fn a_list_goes_on_where_it_stopped() {
    let world = World::new().await;
    let ada = world.person().await;
    let all = deliver_many(&world, &ada, 23).await;
    let inbox = ada.folder("inbox").await;
    let path = format!("/v1/folders/{inbox}/messages?limit=10");
    let (mut found, mut pages, mut next) = (Vec::new(), 0, path.clone());
    loop {
        let page = ada.client.get(&next).await.ok();
        let messages = page["messages"].as_array().unwrap();
        assert!(messages.len() <= 10);
        found.extend(ids(messages).into_iter().map(str::to_owned));
        pages += 1;
        // What arrives while somebody reads changes no page behind.
        world.deliver_text(&ada, &format!("late{pages}")).await;
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(found, all);
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn a_line_of_a_list() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await;
    let line = &ada.messages("inbox").await[0];
    assert_eq!(line["id"], id.to_string());
    assert_eq!(line["from"], json!({"name": "Ada", "email": "ada@elsewhere.example"}));
    assert_eq!(line["to"], json!([{"name": "Bob", "email": format!("bob@{DOMAIN}")}]));
    assert_eq!(line["subject"], "hello");
    assert_eq!(line["preview"], "Hello, hello.");
    assert_eq!(line["date"], "2026-11-20T12:00:00Z");
    assert_eq!((line["is_read"].as_bool(), line["is_flagged"].as_bool()), (Some(false), Some(false)));
    assert_eq!(line["folder_id"], ada.folder("inbox").await);
    assert_eq!((&line["keywords"], &line["labels"]), (&json!([]), &json!([])));
    assert_eq!(line["has_attachments"], false);
    assert_eq!(line["size"], text("hello").len());
}

#[tokio::test]
async fn only_read_or_unread() {
    let world = World::new().await;
    let ada = world.person().await;
    let all = deliver_many(&world, &ada, 6).await;
    for id in all.iter().step_by(2) {
        ada.client.patch(&format!("/v1/messages/{id}"), &json!({"is_read": true})).await.ok();
    }
    let path = format!("/v1/folders/{}/messages", ada.folder("inbox").await);
    let list = async |filter: &str| {
        let page = ada.client.get(&format!("{path}?is_read={filter}")).await.ok();
        ids(page["messages"].as_array().unwrap()).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list("true").await, all.iter().step_by(2).cloned().collect::<Vec<_>>());
    assert_eq!(list("false").await, all.iter().skip(1).step_by(2).cloned().collect::<Vec<_>>());
    let folders = ada.client.get("/v1/folders").await.ok();
    let inbox = folders.as_array().unwrap().iter().find(|folder| folder["role"] == "inbox").unwrap();
    assert_eq!((inbox["total"].as_u64(), inbox["unread"].as_u64()), (Some(6), Some(3)));
}

#[tokio::test]
async fn what_a_list_does_not_take() {
    let world = World::new().await;
    let ada = world.person().await;
    deliver_many(&world, &ada, 3).await;
    let inbox = ada.folder("inbox").await;
    let path = format!("/v1/folders/{inbox}/messages");
    for bad in [
        "limit=0",
        "limit=201",
        "limit=-1",
        "limit=x",
        "is_read=maybe",
        "is_flagged=false",
        "is_flagged=true&is_read=true",
        "offset=1",
        "limit=1&limit=2",
    ] {
        assert_eq!(ada.client.get(&format!("{path}?{bad}")).await.problem(), "invalid_query", "{bad}");
    }
    let page = ada.client.get(&format!("{path}?limit=1")).await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let sent = ada.folder("sent").await;
    let mut forged = cursor.to_owned();
    forged.replace_range(20..21, if &cursor[20..21] == "A" { "B" } else { "A" });
    for (place, cursor) in [
        (format!("{path}?is_read=false"), cursor),
        (format!("{path}?is_flagged=true"), cursor),
        (format!("/v1/folders/{inbox}/threads?limit=1"), cursor),
        (format!("/v1/folders/{sent}/messages?limit=1"), cursor),
        (format!("{path}?limit=1"), &cursor[..30]),
        (format!("{path}?limit=1"), &forged),
        (format!("{path}?limit=1"), ""),
        (format!("{path}?limit=1"), "%00"),
    ] {
        assert_eq!(ada.client.get(&format!("{place}&cursor={cursor}")).await.problem(), "invalid_cursor", "{place}");
    }
    assert_eq!(ada.client.get("/v1/folders/4000/messages").await.problem(), "not_found");
    // The limit may change from page to page.
    ada.client.get(&format!("{path}?limit=2&cursor={cursor}")).await.ok();
}

#[tokio::test]
async fn a_message_in_full() {
    let world = World::new().await;
    let ada = world.person().await;
    let raw = format!(
        "Received: from x\r\nFrom: =?utf-8?q?J=C3=BCrgen?= <j@elsewhere.example>\r\nTo: a@{DOMAIN}, B <b@{DOMAIN}>\r\n\
         Cc: c@{DOMAIN}\r\nReply-To: r@elsewhere.example\r\nSubject: =?utf-8?b?7ZWc6riA?=\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\ncaf=E9\r\n--b\r\nContent-Type: text/html\r\n\r\n\
         <p>caf&eacute;</p>\r\n--b--\r\n"
    );
    let id = world.deliver(&ada, raw.clone()).await;
    let message = ada.client.get(&format!("/v1/messages/{id}")).await.ok();
    assert_eq!(message["user_id"], ada.user.to_string());
    assert_eq!(message["folder_id"], ada.folder("inbox").await);
    assert_eq!(message["from"], json!({"name": "Jürgen", "email": "j@elsewhere.example"}));
    assert_eq!(message["to"].as_array().unwrap().len(), 2);
    assert_eq!(message["cc"][0]["email"], format!("c@{DOMAIN}"));
    assert_eq!(message["reply_to"][0]["email"], "r@elsewhere.example");
    assert_eq!(message["subject"], "한글");
    assert_eq!(message["body"].as_str().unwrap().trim_end(), "café");
    assert_eq!(message["body_html"].as_str().unwrap().trim_end(), "<p>caf&eacute;</p>");
    assert_eq!(message["headers"][0], json!({"name": "Received", "value": "from x"}));
    assert_eq!(message["authentication"], json!({"spf": "none", "dkim": "none", "dmarc": "none", "arc": "none"}));
    // Without a Date header the moment of arrival stands for it.
    assert_eq!(message["date"], message["received_at"]);
    let bytes = ada.client.get(&format!("/v1/messages/{id}/raw")).await;
    assert_eq!(bytes.bytes, raw.as_bytes());
    assert_eq!(bytes.header("content-type"), Some("message/rfc822"));
    assert!(bytes.header("content-security-policy").unwrap().contains("sandbox"));
}

#[tokio::test]
async fn marks_and_moves() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await;
    let path = format!("/v1/messages/{id}");
    let answer = ada.client.patch(&path, &json!({"is_read": true, "is_flagged": true})).await;
    let modseq = answer.ok()["modseq"].as_u64().unwrap();
    assert_eq!(answer.header("postrider-modseq").unwrap(), modseq.to_string());
    let message = ada.client.get(&format!("{path}?min_modseq={modseq}")).await.ok();
    assert_eq!((message["is_read"].as_bool(), message["is_flagged"].as_bool()), (Some(true), Some(true)));
    assert_eq!(message["modseq"], modseq);
    assert_eq!(ada.client.get(&format!("{path}?min_modseq={}", modseq + 1)).await.problem(), "behind");

    let archive = ada.folder("archive").await;
    ada.client.patch(&path, &json!({"folder_id": archive})).await.ok();
    assert_eq!(ada.client.get(&path).await.ok()["folder_id"], archive);
    assert!(ada.messages("inbox").await.is_empty());

    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ids(&ada.messages("trash").await), [id.to_string()]);
    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.get(&path).await.problem(), "not_found");
    assert_eq!(ada.client.delete(&path).await.problem(), "not_found");
    world.cluster.verify();
}

#[tokio::test]
async fn a_repeated_delete_deletes_once() {
    let world = World::new().await;
    let ada = world.person().await;
    let path = format!("/v1/messages/{}", world.deliver_text(&ada, "hello").await);
    for _ in 0..3 {
        let answer = ada.client.send(Method::DELETE, &path, &[("idempotency-key", "k")], None).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
    }
    assert_eq!(ada.messages("trash").await.len(), 1);
}

#[tokio::test]
async fn what_a_message_does_not_take() {
    let world = World::new().await;
    let ada = world.person().await;
    let path = format!("/v1/messages/{}", world.deliver_text(&ada, "hello").await);
    for (body, problem) in [
        (json!({}), "invalid_body"),
        (json!({"is_read": "yes"}), "invalid_body"),
        (json!({"is_raed": true}), "invalid_body"),
        (json!({"folder_id": 1}), "invalid_body"),
        (json!({"folder_id": "4000"}), "folder_unknown"),
        (json!({"folder_id": "inbox"}), "folder_unknown"),
        (json!({"labels": {}}), "invalid_body"),
        (json!({"labels": {"add": ["4000"]}}), "label_unknown"),
        (json!({"labels": {"remove": ["x"]}}), "label_unknown"),
        (json!({"labels": {"set": ["1"]}}), "invalid_body"),
        (json!({"labels": {"add": [1]}}), "invalid_body"),
        (json!({"labels": ["1"]}), "invalid_body"),
        (json!({"keywords": {"add": ["$important"]}}), "invalid_body"),
        (json!({"keywords": {"add": ["$seen"], "remove": ["$seen"]}}), "invalid_body"),
        (json!({"keywords": {"add": ["$junk", "$notjunk"]}}), "invalid_body"),
        (json!({"is_read": false, "keywords": {"add": ["$seen"]}}), "invalid_body"),
        (json!({"is_flagged": true, "keywords": {"remove": ["$flagged"]}}), "invalid_body"),
    ] {
        assert_eq!(ada.client.patch(&path, &body).await.problem(), problem, "{body}");
    }
    let nobody = EmailId::new(1, [1; 10]);
    let patch = json!({"is_read": true});
    for bad in [nobody.to_string(), nobody.to_string().to_uppercase(), "x".to_owned(), "%2e%2e".to_owned()] {
        assert_eq!(ada.client.get(&format!("/v1/messages/{bad}")).await.problem(), "not_found", "{bad}");
        assert_eq!(ada.client.patch(&format!("/v1/messages/{bad}"), &patch).await.problem(), "not_found", "{bad}");
        assert_eq!(ada.client.get(&format!("/v1/messages/{bad}/raw")).await.problem(), "not_found", "{bad}");
    }
}

#[tokio::test]
async fn a_batch_is_all_or_nothing() {
    let world = World::new().await;
    let ada = world.person().await;
    let all = deliver_many(&world, &ada, 5).await;
    let batch = async |body: Value| ada.client.post("/v1/messages/batch", &body).await;
    batch(json!({"ids": all, "is_read": true})).await.ok();
    assert!(ada.messages("inbox").await.iter().all(|message| message["is_read"] == true));

    let mut with_stranger = all.clone();
    with_stranger.push(EmailId::new(1, [1; 10]).to_string());
    assert_eq!(batch(json!({"ids": with_stranger, "is_read": false})).await.problem(), "not_found");
    assert_eq!(batch(json!({"ids": all, "folder_id": "4000"})).await.problem(), "folder_unknown");
    assert!(ada.messages("inbox").await.iter().all(|message| message["is_read"] == true));

    // A message that is named twice goes to Trash, not from Trash for good.
    let twice = [&all[0], &all[1], &all[0]];
    batch(json!({"ids": twice, "delete": true})).await.ok();
    assert_eq!(ada.messages("trash").await.len(), 2);
    for bad in [
        json!({"ids": [], "is_read": true}),
        json!({"ids": vec![&all[0]; 1001], "is_read": true}),
        json!({"ids": all}),
        json!({"ids": all, "delete": true, "is_read": true}),
        json!({"ids": all, "delete": true, "keywords": {"add": ["$seen"]}}),
        json!({"ids": all[0], "is_read": true}),
        json!({"is_read": true}),
    ] {
        assert_eq!(batch(bad.clone()).await.problem(), "invalid_body", "{bad}");
    }
    world.cluster.verify();
}

#[tokio::test]
async fn a_repeated_batch_is_one_batch() {
    let world = World::new().await;
    let ada = world.person().await;
    let all = deliver_many(&world, &ada, 3).await;
    let body = json!({"ids": all, "delete": true});
    let first = ada.client.post_once("/v1/messages/batch", &body, "k").await.ok();
    let second = ada.client.post_once("/v1/messages/batch", &body, "k").await.ok();
    assert_eq!(first, second);
    assert_eq!(ada.messages("trash").await.len(), 3);
}

#[tokio::test]
async fn a_simple_read_is_one_question_to_the_shard() {
    let world = World::new().await;
    let ada = world.person().await;
    deliver_many(&world, &ada, 3).await;
    let path = format!("/v1/folders/{}/messages", ada.folder("inbox").await);
    let before = world.cluster.queries();
    ada.client.get(&path).await.ok();
    // One of the directory, which the router caches, and one of the shard.
    assert_eq!(world.cluster.queries() - before, 2);
}
