//! REST as HTTP: what is refused, and how.

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::World;

fn json_fields() -> HeaderMap {
    [("content-type".parse().unwrap(), "application/json".parse().unwrap())].into_iter().collect()
}

#[tokio::test]
async fn paths_and_methods() {
    let world = World::new().await;
    for path in ["/x", "/v1", "/v1/search/x", "/v1/messages/", "//v1/profile", "/docs/../healthz/x"] {
        assert_eq!(world.client.get(path).await.problem(), "not_found", "{path}");
    }
    for (method, path, allow) in [
        (Method::GET, "/v1/accounts", "POST"),
        (Method::PUT, "/v1/profile", "GET,HEAD,PATCH"),
        (Method::DELETE, "/v1/folders", "GET,HEAD,POST"),
        (Method::OPTIONS, "/v1/folders", "GET,HEAD,POST"),
        (Method::POST, "/healthz", "GET,HEAD"),
        (Method::POST, "/", "GET,HEAD"),
    ] {
        let answer = world.client.send(method.clone(), path, &[("origin", "https://elsewhere.example")], None).await;
        assert_eq!(answer.problem(), "method_not_allowed", "{method} {path}");
        let mut allowed: Vec<_> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
        // No other origin is let in.
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    }
}

#[tokio::test]
async fn bodies() {
    let world = World::new().await;
    let ada = world.person().await;
    let post = async |headers: HeaderMap, body: &[u8]| {
        ada.client.send_raw(Method::POST, "/v1/folders", headers, Some(body.to_vec())).await
    };
    let answer = post(json_fields(), b"{\"name\":\n  \"x\",}").await;
    assert_eq!(answer.problem(), "malformed_json");
    assert_eq!((answer.json()["line"].as_u64(), answer.json()["column"].as_u64()), (Some(2), Some(7)));
    let answer = post(json_fields(), b"{\"nmae\": \"x\"}").await;
    assert_eq!(answer.problem(), "invalid_body");
    assert!(answer.json()["detail"].as_str().unwrap().contains("nmae"));
    for malformed in [&b""[..], b"\xff", b"{\"name\": \"\xff\"}", b"[1", b"{} {}"] {
        let kind = post(json_fields(), malformed).await.problem();
        assert!(["malformed_json", "invalid_body"].contains(&kind.as_str()), "{kind} {malformed:?}");
    }
    assert_eq!(post(json_fields(), &b"[".repeat(60_000)).await.status.as_u16() / 100, 4);
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(70_000));
    let answer = post(json_fields(), large.as_bytes()).await;
    assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    assert_eq!(answer.json()["bytes_max"], 65_536);
    assert_eq!(post(HeaderMap::new(), b"{\"name\": \"x\"}").await.problem(), "media_type_unsupported");
    let form = [("content-type".parse().unwrap(), "text/plain".parse().unwrap())].into_iter().collect();
    assert_eq!(post(form, b"{\"name\": \"x\"}").await.problem(), "media_type_unsupported");
    let charset = "application/json; charset=utf-8".parse().unwrap();
    post([("content-type".parse().unwrap(), charset)].into_iter().collect(), b"{\"name\": \"x\"}").await.ok();
}

#[tokio::test]
async fn heads() {
    let world = World::new().await;
    let ada = world.person().await;
    let long = format!("/v1/folders?min_modseq={}", "1".repeat(9_000));
    assert_eq!(ada.client.get(&long).await.problem(), "uri_too_long");
    let large = "x".repeat(40_000);
    let answer = ada.client.send(Method::GET, "/v1/profile", &[("x-large", &large)], None).await;
    assert_eq!(answer.problem(), "headers_too_large");
    let folder = json!({"name": "x"});
    for bad in ["", &"k".repeat(256), "a\tb"] {
        let answer = ada.client.send(Method::POST, "/v1/folders", &[("idempotency-key", bad)], Some(&folder)).await;
        assert_eq!(answer.problem(), "invalid_header", "{bad:?}");
    }
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    assert_eq!(ada.client.send(Method::POST, "/v1/folders", &twice, Some(&folder)).await.problem(), "invalid_header");
    let two_tokens = [("authorization", "Bearer x")];
    assert_eq!(ada.client.send(Method::GET, "/v1/profile", &two_tokens, None).await.problem(), "unauthenticated");
}

/// Sends bytes and reads until the server closes.
async fn raw(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.frontend.rest_addr().unwrap()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_hurts_nobody() {
    let world = World::new().await;
    for junk in [
        "HELO x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n",
    ] {
        let answer = raw(&world, junk).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{junk:?}: {answer}");
    }
    assert!(world.client.get("/healthz").await.status.is_success());
}

#[tokio::test]
async fn head_and_connection_reuse() {
    let world = World::new().await;
    let requests =
        "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw(&world, requests).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("{\"alive\":true}").count(), 1, "{answer}");
}

#[tokio::test]
async fn http_2_with_prior_knowledge() {
    let world = World::new().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let get = || async {
        let response = client.get(format!("{}/healthz", world.client.base())).send().await.unwrap();
        assert_eq!((response.version(), response.status()), (reqwest::Version::HTTP_2, StatusCode::OK));
    };
    futures::future::join_all((0..50).map(|_| get())).await;
}

#[tokio::test]
async fn a_body_has_to_arrive_in_time() {
    let world = World::new().await;
    let head =
        "POST /v1/sessions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let answer = raw(&world, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:postrider:problem:request_timeout"), "{answer}");
}
