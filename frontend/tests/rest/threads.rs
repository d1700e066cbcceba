//! Conversations.

use serde_json::Value;

use crate::cluster::DOMAIN;
use crate::world::World;

fn mail(id: &str, references: &[&str]) -> String {
    let references: Vec<String> = references.iter().map(|id| format!("<{id}@x>")).collect();
    let references =
        if references.is_empty() { String::new() } else { format!("References: {}\r\n", references.join(" ")) };
    format!(
        "From: a@elsewhere.example\r\nTo: b@{DOMAIN}\r\nSubject: s\r\nMessage-ID: <{id}@x>\r\n{references}\r\ntext\r\n"
    )
}

#[tokio::test]
async fn conversations_of_a_folder() {
    let world = World::new().await;
    let ada = world.person().await;
    let root = world.deliver(&ada, mail("root", &[])).await.to_string();
    let alone = world.deliver(&ada, mail("alone", &[])).await.to_string();
    let answer = world.deliver(&ada, mail("answer", &["root"])).await.to_string();
    let second = world.deliver(&ada, mail("second", &["root", "answer"])).await.to_string();
    let inbox = ada.folder("inbox").await;
    let path = format!("/v1/folders/{inbox}/threads?limit=1");
    let first_page = ada.client.get(&path).await.ok();
    let thread = &first_page["threads"][0];
    assert_eq!(thread["newest"]["id"], second);
    assert_eq!((thread["total"].as_u64(), thread["unread"].as_u64()), (Some(3), Some(3)));
    let cursor = first_page["next_cursor"].as_str().unwrap();
    let second_page = ada.client.get(&format!("{path}&cursor={cursor}")).await.ok();
    assert_eq!(second_page["threads"][0]["newest"]["id"], alone);
    assert_eq!(second_page["next_cursor"], Value::Null);

    let path = format!("/v1/threads/{}", thread["id"].as_str().unwrap());
    let conversation = ada.client.get(&path).await.ok();
    let messages = conversation["messages"].as_array().unwrap();
    let parents: Vec<_> = messages
        .iter()
        .map(|message| (message["id"].as_str().unwrap().to_owned(), message["parent_id"].as_str().map(str::to_owned)))
        .collect();
    assert_eq!(parents, [(root.clone(), None), (answer.clone(), Some(root)), (second, Some(answer.clone()))]);
    assert!(messages.iter().all(|message| message["folder_id"] == inbox && message["thread_id"] == conversation["id"]));

    // A conversation goes across folders.
    let archive = ada.folder("archive").await;
    ada.client.patch(&format!("/v1/messages/{answer}"), &serde_json::json!({"folder_id": archive})).await.ok();
    let conversation = ada.client.get(&path).await.ok();
    assert_eq!(conversation["messages"].as_array().unwrap().len(), 3);
    let archived = ada.client.get(&format!("/v1/folders/{archive}/threads")).await.ok();
    assert_eq!(archived["threads"][0]["id"], conversation["id"]);
}

#[tokio::test]
async fn what_is_no_conversation() {
    let world = World::new().await;
    let ada = world.person().await;
    for bad in ["x".to_owned(), "0".repeat(32), "A".repeat(32)] {
        assert_eq!(ada.client.get(&format!("/v1/threads/{bad}")).await.problem(), "not_found", "{bad}");
    }
    assert_eq!(ada.client.get("/v1/folders/4000/threads").await.problem(), "not_found");
    let inbox = ada.folder("inbox").await;
    for bad in ["limit=0", "limit=1000", "is_read=true"] {
        let answer = ada.client.get(&format!("/v1/folders/{inbox}/threads?{bad}")).await;
        assert_eq!(answer.problem(), "invalid_query", "{bad}");
    }
}
