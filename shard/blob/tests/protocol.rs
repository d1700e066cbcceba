//! What other S3 clients may send, and what must be refused.

mod common;

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use common::Server;
use postrider_blob::BLOB_BYTES_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A client as the SDK sets it up by itself: signed bodies, CRC-32, no idea of what we leave out.
fn client(server: &Server) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .endpoint_url(server.endpoint())
        .force_path_style(true)
        .credentials_provider(Credentials::new("key", "secret", None, None, "test"))
        .request_checksum_calculation(RequestChecksumCalculation::WhenSupported)
        .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https())
        .build();
    Client::from_conf(config)
}

async fn with_bucket() -> (Server, Client) {
    let server = Server::start().await;
    let client = client(&server);
    client.create_bucket().bucket("mail").send().await.unwrap();
    (server, client)
}

fn body(content: &[u8]) -> ByteStream {
    ByteStream::from(content.to_vec())
}

async fn read(client: &Client, key: &str) -> Bytes {
    let answer = client.get_object().bucket("mail").key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_without_a_condition_overwrite() {
    let (_server, client) = with_bucket().await;
    let first = client.put_object().bucket("mail").key("a").body(body(b"one")).send().await.unwrap();
    let second = client.put_object().bucket("mail").key("a").body(body(b"two")).send().await.unwrap();
    assert_ne!(first.e_tag(), second.e_tag());
    assert_eq!(read(&client, "a").await, "two");
    let head = client.head_object().bucket("mail").key("a").send().await.unwrap();
    assert_eq!((head.e_tag(), head.content_length()), (second.e_tag(), Some(3)));
    let conditional = client.put_object().bucket("mail").key("a").if_none_match("*").body(body(b"three"));
    assert_eq!(conditional.send().await.unwrap_err().code(), Some("PreconditionFailed"));
    assert_eq!(read(&client, "a").await, "two");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_checksum_is_checked() {
    let (_server, client) = with_bucket().await;
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"].map(ChecksumAlgorithm::from) {
        let put = client.put_object().bucket("mail").key(algorithm.as_str()).checksum_algorithm(algorithm.clone());
        put.body(body(b"content")).send().await.unwrap();
        assert_eq!(read(&client, algorithm.as_str()).await, "content");
    }
    let put = || client.put_object().bucket("mail").key("wrong").body(body(b"content"));
    let attempts = [
        put().checksum_crc32("AAAAAA=="),
        put().checksum_crc32_c("AAAAAA=="),
        put().checksum_sha1("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        put().checksum_sha256("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        put().checksum_crc64_nvme("AAAAAAAAAAA="),
        put().content_md5("AAAAAAAAAAAAAAAAAAAAAA=="),
    ];
    for attempt in attempts {
        assert_eq!(attempt.send().await.unwrap_err().code(), Some("BadDigest"));
    }
    let none = client.head_object().bucket("mail").key("wrong").send().await.unwrap_err();
    assert!(none.into_service_error().is_not_found());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_signed_chunks_with_a_trailer() {
    let (_server, client) = with_bucket().await;
    // A body that the SDK cannot see as a whole goes out as aws-chunked with its checksum behind it.
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
    std::fs::write(file.path(), &content).unwrap();
    let streamed = ByteStream::from_path(file.path()).await.unwrap();
    client.put_object().bucket("mail").key("chunked").body(streamed).send().await.unwrap();
    assert!(read(&client, "chunked").await == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_forgotten_is_refused() {
    let (_server, client) = with_bucket().await;
    let put = || client.put_object().bucket("mail").key("a").body(body(b"x"));
    let attempts = [
        put().metadata("color", "blue"),
        put().tagging("a=b"),
        put().if_match("\"0\""),
        put().if_none_match("\"0\""),
        put().server_side_encryption("AES256".into()),
    ];
    for attempt in attempts {
        assert_eq!(attempt.send().await.unwrap_err().code(), Some("NotImplemented"));
    }
    let copy = client.copy_object().bucket("mail").key("b").copy_source("mail/a").send().await;
    assert_eq!(copy.unwrap_err().code(), Some("NotImplemented"));
    let buckets = client.list_buckets().send().await;
    assert_eq!(buckets.unwrap_err().code(), Some("NotImplemented"));
    let delimiter = client.list_objects_v2().bucket("mail").delimiter("/").send().await;
    assert_eq!(delimiter.unwrap_err().code(), Some("NotImplemented"));
    let multipart = client.create_multipart_upload().bucket("mail").key("a").send().await;
    assert!(multipart.is_err());
    assert!(client.head_object().bucket("mail").key("a").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_all_kinds_list_in_order() {
    let (_server, client) = with_bucket().await;
    let mut keys = ["a", "a/", "a/b", "a-b", "a//b", "../x", "é/ü", "with space", "%2F", "z/../y", ".", "a/b/c"];
    for key in keys {
        client.put_object().bucket("mail").key(key).body(body(key.as_bytes())).send().await.unwrap();
    }
    keys.sort_unstable();
    let mut listed = Vec::new();
    let mut pages = client.list_objects_v2().bucket("mail").max_keys(5).into_paginator().send();
    while let Some(page) = pages.next().await {
        listed.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    assert_eq!(listed, keys);
    for key in keys {
        assert_eq!(read(&client, key).await, key.as_bytes());
        client.delete_object().bucket("mail").key(key).send().await.unwrap();
    }
    assert_eq!(client.list_objects_v2().bucket("mail").send().await.unwrap().key_count(), Some(0));
    let long = client.put_object().bucket("mail").key("k".repeat(300)).body(body(b"x")).send().await;
    assert_eq!(long.unwrap_err().code(), Some("KeyTooLongError"));
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets() {
    let (_server, client) = with_bucket().await;
    let twice = client.create_bucket().bucket("mail").send().await.unwrap_err();
    assert_eq!(twice.code(), Some("BucketAlreadyOwnedByYou"));
    client.head_bucket().bucket("mail").send().await.unwrap();
    assert!(client.head_bucket().bucket("other").send().await.unwrap_err().into_service_error().is_not_found());
    let put = client.put_object().bucket("other").key("a").body(body(b"x")).send().await.unwrap_err();
    assert_eq!(put.code(), Some("NoSuchBucket"));
    let dotted = client.create_bucket().bucket("my.bucket").send().await.unwrap_err();
    assert_eq!(dotted.code(), Some("InvalidBucketName"));
}

/// Sends bytes as they are and gives the status line and the rest of the answer.
async fn raw(server: &Server, request: &str) -> String {
    let mut stream = TcpStream::connect(server.options.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let len = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_a_signature_in_the_header() {
    let (server, client) = with_bucket().await;
    client.put_object().bucket("mail").key("a").body(body(b"secret thing")).send().await.unwrap();
    let unsigned = raw(&server, "GET /mail/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(unsigned.starts_with("HTTP/1.1 403"), "{unsigned}");
    let version_2 =
        "GET /mail/a HTTP/1.1\r\nHost: x\r\nAuthorization: AWS key:c2lnbmF0dXJl\r\nConnection: close\r\n\r\n";
    let version_2 = raw(&server, version_2).await;
    assert!(version_2.starts_with("HTTP/1.1 40"), "{version_2}");
    let presigned = client.get_object().bucket("mail").key("a");
    let presigned = presigned.presigned(PresigningConfig::expires_in(Duration::from_secs(60)).unwrap()).await.unwrap();
    let path = presigned.uri().strip_prefix(&server.endpoint()).unwrap();
    let host = server.options.address;
    let presigned = raw(&server, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await;
    assert!(presigned.starts_with("HTTP/1.1 403"), "{presigned}");
    for answer in [unsigned, version_2, presigned] {
        assert!(!answer.contains("secret thing"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_gets_an_answer_or_a_closed_connection() {
    let server = Server::start().await;
    let post = raw(&server, "POST /mail HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    let garbage = raw(&server, "\x16\x03\x01 this is not http\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let headers: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    let many = raw(&server, &format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n")).await;
    assert!(many.starts_with("HTTP/1.1 431"), "{many}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_objects_are_refused_before_they_are_sent() {
    let (_server, client) = with_bucket().await;
    let large = vec![0u8; BLOB_BYTES_MAX as usize + 1];
    let put = client.put_object().bucket("mail").key("large").body(ByteStream::from(large)).send().await;
    // The server may close while the client is still sending: then there is no code to see.
    let error = put.unwrap_err();
    assert!(matches!(error.code(), Some("EntityTooLarge") | None), "{error:?}");
    assert!(client.head_object().bucket("mail").key("large").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_lets_nobody_hash_a_body_twice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let store = common::store_of(&format!("http://{}", listener.local_addr().unwrap())).await;
    let put = tokio::spawn(async move {
        let (hash, content) = common::blob(1000);
        postrider_blob::BlobStore::put(&store, &common::zone(), &hash, content).await
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    for expected in [
        "x-amz-content-sha256: unsigned-payload",
        "x-amz-checksum-crc32c: ",
        "content-length: 1000",
        "if-none-match: *",
    ] {
        assert!(head.contains(expected), "{expected} is not in {head}");
    }
    let signed = head.split("signedheaders=").nth(1).unwrap().split(',').next().unwrap().to_owned();
    assert!(signed.contains("x-amz-checksum-crc32c"), "what protects the body must be signed: {signed}");
    assert!(!head.contains("aws-chunked"));
    put.abort();
}
