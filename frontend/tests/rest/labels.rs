//! Keywords, and labels of one's own.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::world::{Person, World};

/// A new label's id.
async fn made(person: &Person, name: &str) -> String {
    let label = person.client.post("/v1/labels", &json!({"name": name, "color": "#2e7d32"})).await.ok();
    label["id"].as_str().unwrap().to_owned()
}

/// The ids of a label's messages, newest first.
async fn listed(person: &Person, label: &str, filter: &str) -> Vec<String> {
    let page = person.client.get(&format!("/v1/labels/{label}/messages{filter}")).await.ok();
    let messages = page["messages"].as_array().unwrap().iter();
    messages.map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}

async fn counts(person: &Person, label: &str) -> (u64, u64) {
    let labels = person.client.get("/v1/labels").await.ok();
    let label = labels.as_array().unwrap().iter().find(|other| other["id"] == label).unwrap();
    (label["total"].as_u64().unwrap(), label["unread"].as_u64().unwrap())
}

#[tokio::test]
async fn labels_of_ones_own() {
    let world = World::new().await;
    let ada = world.person().await;
    assert_eq!(ada.client.get("/v1/labels").await.ok(), json!([]));
    let made = ada.client.post("/v1/labels", &json!({"name": "Travel", "color": "#2E7d32"})).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let label = made.json();
    assert_eq!(label, json!({"id": label["id"], "name": "Travel", "color": "#2e7d32", "total": 0, "unread": 0}));
    let path = format!("/v1/labels/{}", label["id"].as_str().unwrap());
    assert_eq!(made.header("location"), Some(path.as_str()));
    let modseq: u64 = made.header("postrider-modseq").unwrap().parse().unwrap();
    assert_eq!(ada.client.get(&format!("/v1/labels?min_modseq={modseq}")).await.ok(), json!([label]));

    let renamed = ada.client.patch(&path, &json!({"name": "Journeys"})).await;
    assert_eq!((&renamed.ok()["name"], &renamed.ok()["color"]), (&json!("Journeys"), &json!("#2e7d32")));
    assert!(renamed.header("postrider-modseq").unwrap().parse::<u64>().unwrap() > modseq);
    let coloured = ada.client.patch(&path, &json!({"color": "#000000"})).await.ok();
    assert_eq!((&coloured["name"], &coloured["color"]), (&json!("Journeys"), &json!("#000000")));
    assert_eq!(ada.client.get("/v1/labels").await.ok(), json!([coloured]));

    let message = world.deliver_text(&ada, "hello").await.to_string();
    let message_path = format!("/v1/messages/{message}");
    ada.client.patch(&message_path, &json!({"labels": {"add": [label["id"]]}})).await.ok();
    assert_eq!(ada.client.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.delete(&path).await.problem(), "not_found");
    assert_eq!(ada.client.get(&format!("{path}/messages")).await.problem(), "not_found");
    let left = ada.client.get(&message_path).await.ok();
    assert_eq!((&left["labels"], &left["folder_id"]), (&json!([]), &json!(ada.folder("inbox").await)));
    world.cluster.verify();
}

#[tokio::test]
async fn messages_of_a_label() {
    let world = World::new().await;
    let ada = world.person().await;
    let (work, home) = (made(&ada, "Work").await, made(&ada, "Home").await);
    let mut ids = Vec::new();
    for number in 0..5 {
        ids.push(world.deliver_text(&ada, &format!("m{number}")).await.to_string());
    }
    ada.client.post("/v1/messages/batch", &json!({"ids": ids, "labels": {"add": [work, home]}})).await.ok();
    let archive = ada.folder("archive").await;
    let change = json!({"folder_id": archive, "is_read": true, "labels": {"remove": [home]}});
    ada.client.patch(&format!("/v1/messages/{}", ids[1]), &change).await.ok();
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(listed(&ada, &work, "").await, newest_first);
    assert_eq!(listed(&ada, &work, "?is_read=true").await, [ids[1].clone()]);
    assert_eq!(listed(&ada, &work, "?is_read=false").await.len(), 4);
    assert!(!listed(&ada, &home, "").await.contains(&ids[1]));
    assert_eq!((counts(&ada, &work).await, counts(&ada, &home).await), ((5, 4), (4, 4)));

    // Lines and single reads carry them.
    let page = ada.client.get(&format!("/v1/labels/{work}/messages?is_read=true")).await.ok();
    let line = &page["messages"][0];
    assert_eq!((&line["folder_id"], &line["labels"]), (&json!(archive), &json!([work])));
    assert_eq!(line["keywords"], json!(["$seen"]));
    let read = ada.client.get(&format!("/v1/messages/{}", ids[0])).await.ok();
    assert_eq!((&read["labels"], &read["keywords"]), (&json!([work, home]), &json!([])));

    // Page after page, read and unread in one order.
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = ada.client.get(&format!("/v1/labels/{work}/messages?limit=2{cursor}")).await.ok();
        found.extend(page["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(found, newest_first);
    // A cursor is of one label and one filter.
    let page = ada.client.get(&format!("/v1/labels/{work}/messages?limit=2")).await.ok();
    let cursor = page["next_cursor"].as_str().unwrap();
    let work_folder = format!("/v1/folders/{work}/messages?cursor={cursor}");
    let others = [
        format!("/v1/labels/{home}/messages?cursor={cursor}"),
        format!("/v1/labels/{work}/messages?is_read=false&cursor={cursor}"),
        work_folder,
    ];
    for other in others {
        assert_eq!(ada.client.get(&other).await.problem(), "invalid_cursor", "{other}");
    }
    for bad in ["limit=0", "is_flagged=true", "is_read=maybe"] {
        let path = format!("/v1/labels/{work}/messages?{bad}");
        assert_eq!(ada.client.get(&path).await.problem(), "invalid_query", "{bad}");
    }
    world.cluster.verify();
}

#[tokio::test]
async fn what_is_deleted_is_in_no_list_of_a_label() {
    let world = World::new().await;
    let ada = world.person().await;
    let work = made(&ada, "Work").await;
    let id = world.deliver_text(&ada, "hello").await.to_string();
    let path = format!("/v1/messages/{id}");
    let labels = json!({"labels": {"add": [work]}});
    ada.client.patch(&path, &labels).await.ok();
    for folder in ["trash", "junk"] {
        ada.client.patch(&path, &json!({"folder_id": ada.folder(folder).await})).await.ok();
        assert_eq!(counts(&ada, &work).await, (0, 0));
        assert!(listed(&ada, &work, "").await.is_empty());
        assert_eq!(ada.client.get(&path).await.ok()["labels"], json!([work]));
        ada.client.patch(&path, &json!({"folder_id": ada.folder("inbox").await})).await.ok();
        assert_eq!(listed(&ada, &work, "").await, std::slice::from_ref(&id));
    }
    ada.client.delete(&path).await;
    ada.client.delete(&path).await;
    assert_eq!(counts(&ada, &work).await, (0, 0));
    world.cluster.verify();
}

#[tokio::test]
async fn a_label_of_many_messages_is_deleted_in_one_request() {
    let world = World::new().await;
    let ada = world.person().await;
    let work = made(&ada, "Work").await;
    let mut ids = Vec::new();
    for number in 0..1_100 {
        ids.push(world.deliver_text(&ada, &format!("m{number}")).await.to_string());
    }
    for some in ids.chunks(1_000) {
        ada.client.post("/v1/messages/batch", &json!({"ids": some, "labels": {"add": [work]}})).await.ok();
    }
    assert_eq!(counts(&ada, &work).await, (1_100, 1_100));
    assert_eq!(ada.client.delete(&format!("/v1/labels/{work}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(ada.client.get("/v1/labels").await.ok(), json!([]));
    assert!(ada.messages("inbox").await.iter().all(|message| message["labels"] == json!([])));
    world.cluster.verify();
}

#[tokio::test]
async fn what_labels_do_not_do() {
    let world = World::new().await;
    let ada = world.person().await;
    let work = made(&ada, "Work").await;
    let path = format!("/v1/labels/{work}");
    let home = format!("/v1/labels/{}", made(&ada, "Home").await);
    let post = async |body: Value| ada.client.post("/v1/labels", &body).await.problem();
    assert_eq!(post(json!({"name": "wORK", "color": "#000000"})).await, "label_exists");
    assert_eq!(ada.client.patch(&home, &json!({"name": "work"})).await.problem(), "label_exists");
    for bad in ["", " x", "x ", "a\nb", "a/b", &"x".repeat(256)] {
        assert_eq!(post(json!({"name": bad, "color": "#000000"})).await, "invalid_body", "{bad:?}");
        assert_eq!(ada.client.patch(&path, &json!({"name": bad})).await.problem(), "invalid_body", "{bad:?}");
    }
    for bad in ["", "red", "000000", "#fff", "#00000g", "#0000000", "#+00000"] {
        assert_eq!(post(json!({"name": "a", "color": bad})).await, "invalid_body", "{bad:?}");
        assert_eq!(ada.client.patch(&path, &json!({"color": bad})).await.problem(), "invalid_body", "{bad:?}");
    }
    for bad in [json!({"name": "a"}), json!({"color": "#000000"}), json!({"name": "a", "color": "#000000", "id": "9"})]
    {
        assert_eq!(post(bad.clone()).await, "invalid_body", "{bad}");
    }
    assert_eq!(ada.client.patch(&path, &json!({})).await.problem(), "invalid_body");
    assert_eq!(ada.client.patch("/v1/labels/4000", &json!({"name": "a"})).await.problem(), "not_found");
    for bad in ["x", "-1", "01", "+1", "4294967296", "1%00"] {
        assert_eq!(ada.client.delete(&format!("/v1/labels/{bad}")).await.problem(), "not_found", "{bad}");
        assert_eq!(ada.client.get(&format!("/v1/labels/{bad}/messages")).await.problem(), "not_found", "{bad}");
    }
    // More labels than a message has.
    let id = world.deliver_text(&ada, "hello").await;
    let mut labels = vec![work];
    for number in 0..20 {
        labels.push(made(&ada, &format!("l{number}")).await);
    }
    let message = format!("/v1/messages/{id}");
    let add = |labels: &[String]| json!({"labels": {"add": labels}});
    ada.client.patch(&message, &add(&labels[..20])).await.ok();
    assert_eq!(ada.client.patch(&message, &add(&labels[20..])).await.problem(), "message_labels_too_many");
    assert_eq!(ada.client.patch(&message, &add(&labels)).await.problem(), "invalid_body");
    let both = json!({"labels": {"add": [labels[0]], "remove": [labels[0]]}});
    assert_eq!(ada.client.patch(&message, &both).await.problem(), "invalid_body");
    world.cluster.verify();
}

#[tokio::test]
async fn a_repeated_creation_is_one_label() {
    let world = World::new().await;
    let ada = world.person().await;
    let travel = json!({"name": "Travel", "color": "#123456"});
    let first = ada.client.post_once("/v1/labels", &travel, "k").await.ok();
    assert_eq!(ada.client.post_once("/v1/labels", &travel, "k").await.ok(), first);
    let other = json!({"name": "Travel", "color": "#654321"});
    assert_eq!(ada.client.post_once("/v1/labels", &other, "k").await.problem(), "idempotency_key_mismatch");
    assert_eq!(ada.client.get("/v1/labels").await.ok(), json!([first]));
}

#[tokio::test]
async fn keywords_and_flags_are_one() {
    let world = World::new().await;
    let ada = world.person().await;
    let path = format!("/v1/messages/{}", world.deliver_text(&ada, "hello").await);
    let patch = async |body: Value| {
        ada.client.patch(&path, &body).await.ok();
        ada.client.get(&path).await.ok()
    };
    let read = patch(json!({"is_flagged": true, "keywords": {"add": ["$Seen", "$forwarded"]}})).await;
    assert_eq!(read["keywords"], json!(["$seen", "$flagged", "$forwarded"]));
    assert_eq!((&read["is_read"], &read["is_flagged"]), (&json!(true), &json!(true)));
    let read = patch(json!({"is_read": false, "keywords": {"add": ["$junk"], "remove": ["$flagged"]}})).await;
    assert_eq!(read["keywords"], json!(["$forwarded", "$junk"]));
    assert_eq!((&read["is_read"], &read["is_flagged"]), (&json!(false), &json!(false)));
    let read = patch(json!({"keywords": {"add": ["$notjunk"]}})).await;
    assert_eq!(read["keywords"], json!(["$forwarded", "$notjunk"]));
    let all = ["$seen", "$flagged", "$answered", "$forwarded", "$draft", "$junk", "$phishing", "$mdnsent"];
    assert_eq!(patch(json!({"keywords": {"add": all}})).await["keywords"], json!(all));
    world.cluster.verify();
}

#[tokio::test]
async fn only_flagged() {
    let world = World::new().await;
    let ada = world.person().await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(world.deliver_text(&ada, &format!("m{number}")).await.to_string());
    }
    let some = [&ids[1], &ids[3], &ids[5]];
    ada.client.post("/v1/messages/batch", &json!({"ids": some, "is_flagged": true})).await.ok();
    let path = format!("/v1/folders/{}/messages?is_flagged=true&limit=2", ada.folder("inbox").await);
    let page = ada.client.get(&path).await.ok();
    let first = page["messages"].as_array().unwrap().iter().map(|message| message["id"].clone()).collect::<Vec<_>>();
    assert_eq!(first, [json!(ids[5]), json!(ids[3])]);
    let page = ada.client.get(&format!("{path}&cursor={}", page["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!((&page["messages"][0]["id"], &page["next_cursor"]), (&json!(ids[1]), &Value::Null));
}

#[tokio::test]
async fn who_answers_has_answered() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await.to_string();
    let answer = json!({"to": [ada.address], "subject": "Re: hello", "body": "Hi", "in_reply_to": id});
    let sent = ada.client.post("/v1/messages", &answer).await;
    let modseq = sent.header("postrider-modseq").unwrap();
    let read = ada.client.get(&format!("/v1/messages/{id}?min_modseq={modseq}")).await.ok();
    assert_eq!(read["keywords"], json!(["$answered"]));
    let copy = ada.client.get(&format!("/v1/messages/{}", sent.ok()["id"].as_str().unwrap())).await.ok();
    assert_eq!(copy["keywords"], json!(["$seen"]));
    world.cluster.verify();
}
