//! `POST /v1/messages`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_api::env::SystemEntropy;
use postrider_frontend::account::token::Token;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{DIRECTORY, DOMAIN};
use crate::world::{PATIENCE, World};

#[tokio::test]
async fn sent_and_received() {
    let world = World::new().await;
    let (ada, bob, carol, dan) =
        (world.person().await, world.person().await, world.person().await, world.person().await);
    let file: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
    let body = json!({
        "to": [{"name": "Bob", "email": bob.address.to_uppercase()}],
        "cc": [carol.address],
        "bcc": [{"email": dan.address}],
        "subject": "한글 and more",
        "body": "Hello\nthere",
        "body_html": "<p>Hello</p>",
        "attachments": [
            {"filename": "ä.bin", "content_type": "application/x-test", "data": STANDARD.encode(&file)},
            {"data": STANDARD.encode(b"small")},
        ],
    });
    let answer = ada.client.post("/v1/messages", &body).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let sent = answer.json();
    let copy = ada.client.get(&format!("/v1/messages/{}", sent["id"].as_str().unwrap())).await.ok();
    assert_eq!(copy["folder_id"], ada.folder("sent").await);
    assert_eq!(copy["thread_id"], sent["thread_id"]);
    assert_eq!(copy["is_read"], true);
    for person in [&bob, &carol, &dan] {
        let inbox = person.messages("inbox").await;
        assert_eq!(inbox.len(), 1);
        let message = person.client.get(&format!("/v1/messages/{}", inbox[0]["id"].as_str().unwrap())).await.ok();
        assert_eq!(message["from"], json!({"name": "Somebody", "email": ada.address}));
        assert_eq!(message["subject"], "한글 and more");
        assert_eq!(message["body"].as_str().unwrap().trim_end().replace("\r\n", "\n"), "Hello\nthere");
        assert_eq!(message["body_html"].as_str().unwrap().trim_end(), "<p>Hello</p>");
        // Nobody sees who got it unseen (P-9).
        assert_eq!(message["bcc"], json!([]));
        assert!(!message.to_string().contains(&dan.address));
        let attachments = message["attachments"].as_array().unwrap();
        assert_eq!(attachments[0]["filename"], "ä.bin");
        let path = format!(
            "/v1/messages/{}/attachments/{}",
            message["id"].as_str().unwrap(),
            attachments[0]["id"].as_str().unwrap()
        );
        assert_eq!(person.client.get(&path).await.bytes, file);
    }
    world.cluster.verify();
}

#[tokio::test]
async fn answers_join_the_conversation() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let first = json!({"to": [bob.address], "subject": "plan", "body": "a"});
    let first = ada.client.post("/v1/messages", &first).await.ok();
    for (round, (from, to)) in [(&bob, &ada), (&ada, &bob), (&bob, &ada)].into_iter().enumerate() {
        let received = if round == 0 { bob.messages("inbox").await } else { from.messages("inbox").await };
        let answered = received[0]["id"].as_str().unwrap();
        let answer = json!({"to": [to.address], "subject": "Re: plan", "body": "b", "in_reply_to": answered});
        from.client.post("/v1/messages", &answer).await.ok();
    }
    let message = async |id: &str| ada.client.get(&format!("/v1/messages/{id}")).await;
    let header = |message: &Value, name: &str| {
        let headers = message["headers"].as_array().unwrap();
        headers.iter().find(|header| header["name"] == name).map(|header| header["value"].as_str().unwrap().to_owned())
    };
    let opening = message(first["id"].as_str().unwrap()).await.ok();
    let opening = header(&opening, "Message-ID").unwrap();
    let newest = ada.messages("inbox").await.remove(0);
    let newest = message(newest["id"].as_str().unwrap()).await.ok();
    // RFC 5322 section 3.6.4: all of the conversation, the answered one last.
    let references = header(&newest, "References").unwrap();
    assert!(references.starts_with(&opening), "{references}");
    assert_eq!(references.matches('<').count(), 3, "{references}");
    assert!(references.ends_with(&header(&newest, "In-Reply-To").unwrap()), "{references}");
    let thread = ada.client.get(&format!("/v1/threads/{}", first["thread_id"].as_str().unwrap())).await.ok();
    let messages = thread["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    for pair in messages.windows(2) {
        assert_eq!(pair[1]["parent_id"], pair[0]["id"]);
    }
}

#[tokio::test]
async fn who_cannot_get_it_is_named() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let send = async |body: Value| ada.client.post("/v1/messages", &body).await;
    let nobody = format!("nobody@{DOMAIN}");
    let impossible = send(json!({"to": [bob.address], "cc": ["y@-elsewhere-.example"]})).await;
    assert_eq!(impossible.problem(), "address_invalid");
    assert_eq!(impossible.json()["field"], "cc");
    let unknown = send(json!({"to": [bob.address], "bcc": [nobody]})).await;
    assert_eq!(unknown.problem(), "recipient_unknown");
    assert_eq!(unknown.json()["recipients"], json!([nobody]));
    for (body, problem) in [
        (json!({}), "invalid_body"),
        (json!({"to": []}), "invalid_body"),
        (json!({"to": ["no address"]}), "address_invalid"),
        (json!({"to": [format!("a\r\nBcc: x@{DOMAIN}")]}), "address_invalid"),
        (json!({"to": [bob.address], "subject": "a\r\nBcc: b"}), "invalid_body"),
        (json!({"to": [{"name": "a\nb", "email": bob.address}]}), "invalid_body"),
        (json!({"to": [bob.address], "from": "somebody@else.example"}), "invalid_body"),
        (json!({"to": [bob.address], "send_at": "2020-01-01T00:00:00Z"}), "invalid_body"),
        (json!({"to": [bob.address], "send_at": "tomorrow"}), "invalid_body"),
        (json!({"to": [bob.address], "undo_s": 61}), "invalid_body"),
        (json!({"to": [bob.address], "attachments": [{"upload_id": "1"}]}), "upload_unknown"),
        (json!({"to": ["bob@[192.0.2.1]"]}), "address_invalid"),
        (json!({"to": [bob.address], "attachments": [{"filename": "x"}]}), "invalid_body"),
        (json!({"to": [bob.address], "attachments": [{"data": "?"}]}), "invalid_body"),
        (json!({"to": [bob.address], "attachments": [{"data": "", "content_type": "x\r\ny"}]}), "invalid_body"),
        (json!({"to": [bob.address], "in_reply_to": "0".repeat(32)}), "reply_unknown"),
        (json!({"to": [bob.address], "in_reply_to": "<a@b>"}), "reply_unknown"),
    ] {
        assert_eq!(send(body.clone()).await.problem(), problem, "{body}");
    }
    assert!(bob.messages("inbox").await.is_empty());
    assert!(ada.messages("sent").await.is_empty());
    world.cluster.verify();
}

#[tokio::test]
async fn a_repeated_sending_is_one_message() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let body = json!({"to": [bob.address], "subject": "once", "body": "text"});
    world.cluster.lose_answer(0);
    assert_eq!(ada.client.post_once("/v1/messages", &body, "k").await.problem(), "outcome_unknown");
    let first = ada.client.post_once("/v1/messages", &body, "k").await;
    let second = ada.client.post_once("/v1/messages", &body, "k").await;
    assert_eq!((first.status, first.json()), (second.status, second.json()));
    assert_eq!(bob.messages("inbox").await.len(), 1);
    assert_eq!(ada.messages("sent").await.len(), 1);
    let other = json!({"to": [bob.address], "subject": "twice", "body": "text"});
    assert_eq!(ada.client.post_once("/v1/messages", &other, "k").await.problem(), "idempotency_key_mismatch");
    ada.client.post("/v1/messages", &body).await.ok();
    assert_eq!(bob.messages("inbox").await.len(), 2);
    // What was sent needs nobody any more to be sent again.
    world.cluster.lose_quorum(DIRECTORY);
    let third = ada.client.post_once("/v1/messages", &body, "k").await;
    assert_eq!((first.status, first.json()), (third.status, third.json()));
    assert_eq!(ada.client.post_once("/v1/messages", &other, "k").await.problem(), "idempotency_key_mismatch");
}

#[tokio::test]
async fn somebody_named_twice_gets_it_once() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let body = json!({"to": [bob.address, bob.address.to_uppercase()], "cc": [bob.address], "subject": "x"});
    ada.client.post("/v1/messages", &body).await.ok();
    assert_eq!(bob.messages("inbox").await.len(), 1);
    let to_herself = json!({"to": [ada.address], "subject": "note"});
    ada.client.post("/v1/messages", &to_herself).await.ok();
    assert_eq!(ada.messages("inbox").await.len(), 1);
    assert_eq!(ada.messages("sent").await.len(), 2);
    world.cluster.verify();
}

#[tokio::test]
async fn without_the_directory_nobody_is_unknown() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let locate_first = ada.client.get("/v1/profile").await;
    assert!(locate_first.status.is_success());
    world.cluster.lose_quorum(DIRECTORY);
    let answer = ada.client.post("/v1/messages", &json!({"to": [bob.address]})).await;
    assert_eq!(answer.problem(), "no_quorum");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn large_files_arrive_and_too_large_ones_are_refused_at_once() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let file: Vec<u8> = (0..6_000_000_u32).flat_map(|n| [n as u8, (n >> 8) as u8]).collect();
    let body = json!({"to": [bob.address], "attachments": [{"filename": "x", "data": STANDARD.encode(&file)}]});
    ada.client.post_once("/v1/messages", &body, "k").await.ok();
    let message = bob.messages("inbox").await.remove(0);
    let path = format!("/v1/messages/{}", message["id"].as_str().unwrap());
    let attachment = bob.client.get(&path).await.ok()["attachments"][0]["id"].as_str().unwrap().to_owned();
    assert!(bob.client.get(&format!("{path}/attachments/{attachment}")).await.bytes == file);

    // Refused by its head: not a byte of the body is waited for.
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: 50000000\r\n\r\n",
        ada.client.token()
    );
    let mut stream = TcpStream::connect(world.frontend.rest_addr().unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
}

/// Announces a message to send of the largest size, and sends none of it.
async fn announce(world: &World, token: &str) -> TcpStream {
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: 39000000\r\n\r\n"
    );
    let mut stream = TcpStream::connect(world.frontend.rest_addr().unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn announcing_much_keeps_nobody_from_sending() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    // A secret that somebody made up: refused before a byte of the body is waited for.
    for _ in 0..4 {
        let mut stream = announce(&world, &Token::random(ada.user, &SystemEntropy).text()).await;
        let mut answer = String::new();
        let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
        reading.await.expect("it waits for the body").unwrap();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    // A session of his own lets somebody announce more than all that there is, but not hold it.
    let mut announced = Vec::new();
    for _ in 0..6 {
        announced.push(announce(&world, bob.client.token()).await);
    }
    let file = STANDARD.encode(vec![7; 3_000_000]);
    let body = json!({"to": [ada.address], "attachments": [{"filename": "x", "data": file}]});
    ada.client.post("/v1/messages", &body).await.ok();
    drop(announced);
}

#[tokio::test]
async fn asked_at_the_same_time_under_one_key_it_is_one_message() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    let body = json!({"to": [bob.address], "subject": "once"});
    let all = futures::future::join_all((0..16).map(|_| ada.client.post_once("/v1/messages", &body, "k"))).await;
    let first = all[0].ok();
    assert!(all.iter().all(|answer| answer.ok() == first));
    assert_eq!(bob.messages("inbox").await.len(), 1);
    assert_eq!(ada.messages("sent").await.len(), 1);
    world.cluster.verify();
}
