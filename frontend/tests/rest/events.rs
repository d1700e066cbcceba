//! WebSocket and long-poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use postrider_api::id::ModSeq;
use postrider_frontend::account::SignUpPolicy;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::client::Client;
use crate::schema::mismatch;
use crate::world::{PATIENCE, Person, World, client_of, frontend};

struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    document: Value,
}

async fn try_connect(client: &Client, query: &str, headers: &[(&'static str, String)]) -> Result<Socket, Error> {
    let url = format!("{}/v1/events{query}", client.base().replace("http", "ws"));
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (stream, _) = connect_async(request).await?;
    Ok(Socket { stream, document: client.document().clone() })
}

async fn connect(client: &Client, query: &str) -> Socket {
    let authorization = ("authorization", format!("Bearer {}", client.token()));
    try_connect(client, query, &[authorization]).await.unwrap()
}

impl Socket {
    /// The next frame, checked against the document.
    async fn frame(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                let name = if frame["type"] == "resync" { "Resync" } else { "Frame" };
                let schema = json!({"$ref": format!("#/components/schemas/{name}")});
                assert_eq!(mismatch(&self.document, &schema, &frame, "frame"), None);
                frame
            }
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Message {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.unwrap().unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn close_code(&mut self) -> u16 {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn changes_as_they_happen() {
    let world = World::new().await;
    let ada = world.person().await;
    let mut socket = connect(&ada.client, "").await;
    let standing = socket.frame().await;
    assert_eq!(standing["changes"], json!([]));

    let id = world.deliver_text(&ada, "hello").await.to_string();
    let frame = socket.frame().await;
    let change = frame["changes"].as_array().unwrap().iter().find(|change| change["message_id"] == id).unwrap();
    assert_eq!(change["type"], "message_created");
    assert_eq!(change["folder_id"], ada.folder("inbox").await);
    assert_eq!((change["is_read"].as_bool(), change["is_flagged"].as_bool()), (Some(false), Some(false)));
    assert!(frame["modseq"].as_u64() > standing["modseq"].as_u64());

    ada.client.patch(&format!("/v1/messages/{id}"), &json!({"is_read": true})).await.ok();
    let frame = socket.frame().await;
    let change = frame["changes"].as_array().unwrap().iter().find(|change| change["message_id"] == id).unwrap();
    assert_eq!((change["type"].as_str(), change["is_read"].as_bool()), (Some("message_updated"), Some(true)));

    let folder = ada.client.post("/v1/folders", &json!({"name": "Travel"})).await.ok();
    let frame = socket.frame().await;
    let change =
        frame["changes"].as_array().unwrap().iter().find(|change| change["folder_id"] == folder["id"]).unwrap();
    assert_eq!(change["type"], "folder_created");

    for _ in 0..2 {
        ada.client.delete(&format!("/v1/messages/{id}")).await;
    }
    let mut last = Value::Null;
    while last["type"] != "message_deleted" {
        let frame = socket.frame().await;
        let found = frame["changes"].as_array().unwrap().iter().find(|change| change["message_id"] == id).cloned();
        last = found.unwrap_or(last);
    }
}

/// Reads frames until `count` different messages were created, checks order and repeats, and says where it stands.
async fn follow(socket: &mut Socket, position: &mut u64, seen: &mut Vec<String>, stop: impl Fn(&[String]) -> bool) {
    while !stop(seen) {
        let frame = socket.frame().await;
        for change in frame["changes"].as_array().unwrap() {
            let modseq = change["modseq"].as_u64().unwrap();
            assert!(modseq > *position, "{modseq} comes behind {position}");
            *position = modseq;
            if change["type"] == "message_created" {
                seen.push(change["message_id"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(frame["modseq"].as_u64().unwrap(), *position, "a frame's modseq is that of its last change");
    }
}

#[tokio::test]
async fn resumes_without_gap_or_repeat_while_mail_arrives() {
    let world = Arc::new(World::new().await);
    let ada = world.person().await;
    let elsewhere = frontend(&world.cluster, &world.blobs, "frankfurt", SignUpPolicy::Open).await;
    let clients = [ada.client.clone(), client_of(&elsewhere).await.with_token(ada.client.token())];
    let mut first = connect(&ada.client, "").await;
    let mut position = first.frame().await["modseq"].as_u64().unwrap();
    drop(first);

    let written = Arc::new(AtomicBool::new(false));
    let writer = {
        let (world, written) = (Arc::clone(&world), Arc::clone(&written));
        let person =
            Person { client: ada.client.clone(), user: ada.user, address: ada.address.clone(), shard: ada.shard };
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for number in 0..300 {
                ids.push(world.deliver_text(&person, &format!("m{number}")).await.to_string());
                tokio::task::yield_now().await;
            }
            written.store(true, Ordering::SeqCst);
            ids
        })
    };
    // Each round is another connection to the other frontend, cut off without a word.
    let mut seen: Vec<String> = Vec::new();
    for round in 0..20 {
        let mut socket = connect(&clients[round % 2], &format!("?since={position}")).await;
        assert_eq!(socket.frame().await["modseq"], position);
        let enough = seen.len() + 7;
        follow(&mut socket, &mut position, &mut seen, |seen| seen.len() >= enough.min(300)).await;
    }
    let mut socket = connect(&clients[0], &format!("?since={position}")).await;
    socket.frame().await;
    follow(&mut socket, &mut position, &mut seen, |seen| seen.len() >= 300).await;
    assert_eq!(seen, writer.await.unwrap());
    assert!(written.load(Ordering::SeqCst));
}

#[tokio::test]
async fn what_came_and_changed_behind_a_client_is_new_to_him() {
    let world = World::new().await;
    let ada = world.person().await;
    let old = world.deliver_text(&ada, "old").await.to_string();
    let since = ada.client.get("/v1/events/poll").await.ok()["modseq"].clone();
    let new = world.deliver_text(&ada, "new").await.to_string();
    for id in [&old, &new] {
        ada.client.patch(&format!("/v1/messages/{id}"), &json!({"is_flagged": true})).await.ok();
    }
    let (mut kinds, mut position) = (Vec::new(), since);
    while kinds.len() < 2 {
        let frame = ada.client.get(&format!("/v1/events/poll?since={position}")).await.ok();
        position = frame["modseq"].clone();
        let changes = frame["changes"].as_array().unwrap().iter();
        kinds.extend(changes.filter(|change| change["is_flagged"] == true).map(|change| {
            (change["message_id"].as_str().unwrap().to_owned(), change["type"].as_str().unwrap().to_owned())
        }));
    }
    assert_eq!(kinds, [(old, "message_updated".to_owned()), (new, "message_created".to_owned())]);
}

#[tokio::test]
async fn the_very_next_change_is_told() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await.to_string();
    let since = ada.client.get("/v1/events/poll").await.ok()["modseq"].as_u64().unwrap();
    // A flag counts in no folder: it is one change.
    let flagged = ada.client.patch(&format!("/v1/messages/{id}"), &json!({"is_flagged": true})).await.ok();
    assert_eq!(flagged["modseq"], since + 1);
    let mut socket = connect(&ada.client, &format!("?since={since}")).await;
    socket.frame().await;
    assert_eq!(socket.frame().await["changes"][0]["modseq"], since + 1);
    let polled = ada.client.get(&format!("/v1/events/poll?since={since}")).await.ok();
    assert_eq!(polled["changes"][0]["modseq"], since + 1);
}

#[tokio::test]
async fn a_browser_offers_its_token_as_a_subprotocol() {
    let world = World::new().await;
    let ada = world.person().await;
    let protocol = ("sec-websocket-protocol", format!("postrider.v1, bearer.{}", ada.client.token()));
    let mut socket = try_connect(&ada.client, "?since=0", &[protocol]).await.unwrap();
    assert_eq!(socket.frame().await["modseq"], 0);
}

#[tokio::test]
async fn who_may_not_listen() {
    let world = World::new().await;
    let ada = world.person().await;
    let status = async |query: &str, headers: &[(&'static str, String)]| match try_connect(&ada.client, query, headers)
        .await
        .err()
        .unwrap()
    {
        Error::Http(response) => response.status().as_u16(),
        other => panic!("{other}"),
    };
    let token = ("authorization", format!("Bearer {}", ada.client.token()));
    assert_eq!(status("", &[]).await, 401);
    assert_eq!(status("", &[("authorization", "Bearer x".to_owned())]).await, 401);
    assert_eq!(status("", &[("sec-websocket-protocol", "postrider.v1, bearer.x".to_owned())]).await, 401);
    assert_eq!(status("?since=x", std::slice::from_ref(&token)).await, 400);
    assert_eq!(status("?since=1000000", std::slice::from_ref(&token)).await, 400);
    assert_eq!(status("?token=x", std::slice::from_ref(&token)).await, 400);
    let answer = ada.client.get("/v1/events").await;
    assert_eq!(answer.problem(), "upgrade_required");
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    ada.client.delete("/v1/sessions/current").await;
    assert_eq!(status("", &[token]).await, 401);
}

#[tokio::test]
async fn too_far_back_is_a_resync() {
    let world = World::new().await;
    let ada = world.person().await;
    for number in 0..5 {
        world.deliver_text(&ada, &format!("m{number}")).await;
    }
    let now = ada.client.get("/v1/events/poll").await.ok()["modseq"].as_u64().unwrap();
    world.cluster.raise_floor(ModSeq(now));
    let mut socket = connect(&ada.client, "?since=1").await;
    socket.frame().await;
    assert_eq!(socket.frame().await, json!({"type": "resync", "modseq": now}));
    assert_eq!(socket.close_code().await, 4410);
    let gone = ada.client.get("/v1/events/poll?since=1").await;
    assert_eq!((gone.status, gone.problem().as_str()), (StatusCode::GONE, "resync_required"));
    assert_eq!(gone.json()["modseq"], now);
    // Resumed from there it goes on.
    let mut socket = connect(&ada.client, &format!("?since={now}")).await;
    socket.frame().await;
    let id = world.deliver_text(&ada, "later").await.to_string();
    let frame = socket.frame().await;
    assert!(frame["changes"].as_array().unwrap().iter().any(|change| change["message_id"] == id));
}

#[tokio::test]
async fn long_poll() {
    let world = World::new().await;
    let ada = world.person().await;
    let now = ada.client.get("/v1/events/poll").await.ok();
    assert_eq!(now["changes"], json!([]));
    let since = now["modseq"].as_u64().unwrap();
    let nothing = ada.client.get(&format!("/v1/events/poll?since={since}&timeout_s=0")).await.ok();
    assert_eq!((nothing["modseq"].as_u64(), &nothing["changes"]), (Some(since), &json!([])));

    let path = format!("/v1/events/poll?since={since}&timeout_s=60");
    let waiting = ada.client.get(&path);
    let writing = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.deliver_text(&ada, "hello").await.to_string()
    };
    let (answer, id) = tokio::join!(waiting, writing);
    let frame = answer.ok();
    assert!(frame["changes"].as_array().unwrap().iter().any(|change| change["message_id"] == id));

    // Polled again and again, it tells everything once.
    let mut expected = vec![id];
    for number in 0..10 {
        expected.push(world.deliver_text(&ada, &format!("m{number}")).await.to_string());
    }
    let (mut position, mut seen) = (since, Vec::new());
    while seen.len() < expected.len() {
        let frame = ada.client.get(&format!("/v1/events/poll?since={position}&timeout_s=60")).await.ok();
        for change in frame["changes"].as_array().unwrap() {
            assert!(change["modseq"].as_u64().unwrap() > position);
            position = change["modseq"].as_u64().unwrap();
            if change["type"] == "message_created" {
                seen.push(change["message_id"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(frame["modseq"], position);
    }
    assert_eq!(seen, expected);
    for bad in ["timeout_s=61", "timeout_s=-1", "since=x", "since=1000000", "wait=1"] {
        assert_eq!(ada.client.get(&format!("/v1/events/poll?{bad}")).await.problem(), "invalid_query", "{bad}");
    }
}

#[tokio::test]
async fn labels_and_keywords_are_told() {
    let world = World::new().await;
    let ada = world.person().await;
    let id = world.deliver_text(&ada, "hello").await.to_string();
    let path = format!("/v1/messages/{id}");
    let mut socket = connect(&ada.client, "").await;
    let since = socket.frame().await["modseq"].clone();
    let mut next = async || socket.frame().await["changes"][0].take();

    let made = ada.client.post("/v1/labels", &json!({"name": "Travel", "color": "#123456"})).await.ok();
    let change = next().await;
    assert_eq!((&change["type"], &change["label_id"]), (&json!("label_created"), &made["id"]));
    assert_eq!((&change["folder_id"], &change["message_id"]), (&Value::Null, &Value::Null));

    let wish = json!({"labels": {"add": [made["id"]]}, "keywords": {"add": ["$answered", "$flagged"]}});
    ada.client.patch(&path, &wish).await.ok();
    let change = next().await;
    assert_eq!((&change["type"], &change["message_id"]), (&json!("message_updated"), &json!(id)));
    assert_eq!((&change["labels"], &change["keywords"]), (&json!([made["id"]]), &json!(["$flagged", "$answered"])));
    assert_eq!((&change["is_flagged"], &change["label_id"]), (&json!(true), &Value::Null));

    let label = format!("/v1/labels/{}", made["id"].as_str().unwrap());
    ada.client.patch(&label, &json!({"color": "#654321"})).await.ok();
    assert_eq!(next().await["type"], "label_updated");
    ada.client.delete(&label).await;
    let mut told = Vec::new();
    while told.last() != Some(&json!("label_deleted")) {
        let frame = socket.frame().await;
        told.extend(frame["changes"].as_array().unwrap().iter().map(|change| change["type"].clone()));
    }
    assert_eq!(told, [json!("message_updated"), json!("label_deleted")]);
    // Who polls is told the same: each object once, with its newest state.
    let frame = ada.client.get(&format!("/v1/events/poll?since={since}")).await.ok();
    let changes = frame["changes"].as_array().unwrap();
    assert_eq!((&changes[0]["labels"], &changes[0]["message_id"]), (&json!([]), &json!(id)));
    assert_eq!((&changes[1]["type"], &changes[1]["label_id"]), (&json!("label_deleted"), &made["id"]));
}

#[tokio::test]
async fn a_frontend_that_stops_says_so() {
    let world = World::new().await;
    let ada = world.person().await;
    let mut socket = connect(&ada.client, "").await;
    let position = socket.frame().await["modseq"].clone();
    let polled = {
        let (client, path) = (ada.client.clone(), format!("/v1/events/poll?since={position}&timeout_s=60"));
        tokio::spawn(async move { client.get(&path).await.ok() })
    };
    // The poll waits once its stream is open; nothing else tells.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopping = tokio::spawn(world.frontend.shutdown());
    assert_eq!(socket.close_code().await, 1001);
    socket.stream.flush().await.ok(); // the answer to the close frame; the frontend may be gone already
    assert_eq!(polled.await.unwrap()["modseq"], position);
    timeout(PATIENCE, stopping).await.unwrap().unwrap();
    assert!(TcpStream::connect(ada.client.base().trim_start_matches("http://")).await.is_err());
}

#[tokio::test]
async fn whoever_logs_out_hears_no_more() {
    let world = World::new().await;
    let ada = world.person().await;
    let other = world.log_in(&ada.address).await;
    let (mut ended, mut goes_on) = (connect(&ada.client, "").await, connect(&other, "").await);
    ended.frame().await;
    goes_on.frame().await;
    ada.client.delete("/v1/sessions/current").await;
    // Asked for every half minute.
    assert_eq!(ended.close_code().await, 4401);
    let id = world.deliver_text(&ada, "later").await.to_string();
    let frame = goes_on.frame().await;
    assert!(frame["changes"].as_array().unwrap().iter().any(|change| change["message_id"] == id));
}
