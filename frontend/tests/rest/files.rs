//! Attached files: whole and in ranges, small ones and those that lie in the object stores.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postrider_api::id::EmailId;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Answer;
use crate::world::{Person, World};

fn with_file(name: &str, content_type: &str, content: &[u8]) -> String {
    let lines: Vec<String> = STANDARD
        .encode(content)
        .into_bytes()
        .chunks(76)
        .map(|line| String::from_utf8(line.to_vec()).unwrap())
        .collect();
    format!(
        "From: a@elsewhere.example\r\nSubject: file\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee file\r\n--b\r\n\
         Content-Type: {content_type}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
}

async fn attachment(person: &Person, message: EmailId) -> (String, serde_json::Value) {
    let message = person.client.get(&format!("/v1/messages/{message}")).await.ok();
    let attachment = message["attachments"][0].clone();
    let path =
        format!("/v1/messages/{}/attachments/{}", message["id"].as_str().unwrap(), attachment["id"].as_str().unwrap());
    (path, attachment)
}

async fn range(person: &Person, path: &str, range: &str) -> Answer {
    person.client.send(Method::GET, path, &[("range", range)], None).await
}

#[tokio::test]
async fn files_come_back_whole_and_in_ranges() {
    let world = World::new().await;
    let ada = world.person().await;
    // Small ones stay with the message, large ones are cut out to the object stores.
    for length in [1_000_usize, 300_000] {
        let content: Vec<u8> = (0..length).map(|n| (n * 7 % 251) as u8).collect();
        let raw = with_file("a b.bin", "application/octet-stream", &content);
        let message = world.deliver(&ada, raw.clone()).await;
        let (path, attachment) = attachment(&ada, message).await;
        assert_eq!(attachment["filename"], "a b.bin");
        assert_eq!(attachment["size"], length);
        let whole = ada.client.get(&path).await;
        assert_eq!((whole.status, &whole.bytes[..]), (StatusCode::OK, &content[..]));
        assert_eq!(whole.header("accept-ranges"), Some("bytes"));
        assert_eq!(whole.header("content-length").unwrap(), length.to_string());
        let disposition = whole.header("content-disposition").unwrap();
        assert_eq!(disposition, "attachment; filename=\"a b.bin\"; filename*=UTF-8''a%20b.bin");
        assert!(whole.header("content-security-policy").unwrap().contains("sandbox"));

        for (asked, first, last) in [
            ("bytes=0-99".to_owned(), 0, 99),
            (format!("bytes={}-", length - 10), length - 10, length - 1),
            ("bytes=-5".to_owned(), length - 5, length - 1),
            (format!("bytes=500-{}", length * 2), 500, length - 1),
        ] {
            let part = range(&ada, &path, &asked).await;
            assert_eq!(
                (part.status, &part.bytes[..]),
                (StatusCode::PARTIAL_CONTENT, &content[first..=last]),
                "{asked}"
            );
            assert_eq!(part.header("content-range").unwrap(), format!("bytes {first}-{last}/{length}"));
        }
        let beyond = range(&ada, &path, &format!("bytes={length}-")).await;
        assert_eq!(beyond.problem(), "range_not_satisfiable");
        assert_eq!(beyond.header("content-range").unwrap(), format!("bytes */{length}"));
        for whole in ["bytes=0-1,3-4", "lines=0-1", "bytes=9-1"] {
            let answer = range(&ada, &path, whole).await;
            assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, length), "{whole}");
        }
        assert_eq!(ada.client.get(&format!("/v1/messages/{message}/raw")).await.bytes, raw.as_bytes());
    }
}

#[tokio::test]
async fn a_file_is_never_shown_by_a_browser() {
    let world = World::new().await;
    let ada = world.person().await;
    let message = world.deliver(&ada, with_file("x.html", "text/html", b"<script>alert(1)</script>")).await;
    let (path, _) = attachment(&ada, message).await;
    let answer = ada.client.get(&path).await;
    assert!(answer.header("content-disposition").unwrap().starts_with("attachment"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("content-security-policy"), Some("default-src 'none'; sandbox"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn what_is_no_file() {
    let world = World::new().await;
    let ada = world.person().await;
    let message = world.deliver(&ada, with_file("x", "text/plain", b"x")).await;
    for bad in ["1", "3", "0", "02", "x", "2.1", "..%2f2", "%00"] {
        let answer = ada.client.get(&format!("/v1/messages/{message}/attachments/{bad}")).await;
        assert_eq!(answer.problem(), "not_found", "{bad}");
    }
}

/// Asks for a path and takes nothing of the answer.
async fn ask_only(world: &World, person: &Person, path: &str) -> TcpStream {
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", person.client.token());
    let mut stream = TcpStream::connect(world.frontend.rest_addr().unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The head of the answer: from now on the body is on its way.
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

#[tokio::test]
async fn one_who_reads_all_that_he_can_leaves_room_for_others() {
    let world = World::new().await;
    let (ada, bob) = (world.person().await, world.person().await);
    // More than the buffers of a connection hold.
    let raw = with_file("x", "application/octet-stream", &vec![7; 20_000_000]);
    let large = format!("/v1/messages/{}/raw", world.deliver(&ada, raw).await);
    let small = world.deliver_text(&bob, "hello").await;
    let mut reads = Vec::new();
    for _ in 0..16 {
        reads.push(ask_only(&world, &ada, &large).await);
    }
    // She has as many as she may: the next one waits until one of them ends.
    let another = {
        let (client, path) = (ada.client.clone(), large.clone());
        tokio::spawn(async move { client.get(&path).await })
    };
    bob.client.get(&format!("/v1/messages/{small}")).await.ok();
    // Silence cannot be waited for; this is long against what the answer would take to begin.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!another.is_finished());
    reads.pop();
    let answer = another.await.unwrap();
    assert!(answer.status.is_success() && answer.bytes.len() > 20_000_000, "{}", answer.status);
}
