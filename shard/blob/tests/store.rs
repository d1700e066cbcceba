//! The S3 client against the embedded server, over loopback.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{Server, blob, store_of, zone};
use futures::future::join_all;
use postrider_blob::{BLOB_BYTES_MAX, BlobError, BlobHash, BlobStore, Listed, Outage, Put, S3Options, S3Store, Zone};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_comes_back() {
    let server = Server::start().await;
    let store = server.store().await;
    // Around every size at which something changes: empty, a block, a read step, a write step.
    for len in [0, 1, 65_535, 65_536, 65_537, 262_144, 262_145, 1_048_576, 1_048_577, 5_000_000] {
        let (hash, content) = blob(len);
        assert_eq!(store.put(&zone(), &hash, content.clone()).await, Ok(Put::Stored), "{len}");
        assert_eq!(store.put(&zone(), &hash, content.clone()).await, Ok(Put::Existed), "{len}");
        assert_eq!(store.head(&zone(), &hash).await, Ok(Some(len as u64)));
        let reader = store.get(&zone(), &hash, None).await.unwrap();
        assert_eq!((reader.len(), reader.blob_len()), (len as u64, len as u64));
        assert!(reader.collect(BLOB_BYTES_MAX).await.unwrap() == content, "{len}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_one_of_concurrent_puts_stores() {
    let server = Server::start().await;
    let store = server.store().await;
    store.ensure_bucket().await.unwrap();
    for round in 0..10 {
        let (hash, content) = blob(10_000 + round);
        let puts = join_all((0..16).map(|_| {
            let (store, content) = (store.clone(), content.clone());
            tokio::spawn(async move { store.put(&zone(), &hash, content).await.unwrap() })
        }));
        let stored = puts.await.into_iter().filter(|put| *put.as_ref().unwrap() == Put::Stored).count();
        assert_eq!(stored, 1, "round {round}");
        assert!(store.get(&zone(), &hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await.unwrap() == content);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(600_000);
    store.put(&zone(), &hash, content.clone()).await.unwrap();
    for (range, expected) in [
        (0..1, 0..1),
        (599_999..600_000, 599_999..600_000),
        (65_535..65_537, 65_535..65_537),
        (100_000..400_000, 100_000..400_000),
        (262_144..262_145, 262_144..262_145),
        (500_000..u64::MAX, 500_000..600_000),
    ] {
        let reader = store.get(&zone(), &hash, Some(range.clone())).await.unwrap();
        assert_eq!(reader.blob_len(), 600_000);
        assert!(reader.collect(BLOB_BYTES_MAX).await.unwrap() == content.slice(expected), "{range:?}");
    }
    for range in [600_000..600_001, 5..5, 700_000..u64::MAX] {
        let read = store.get(&zone(), &hash, Some(range.clone())).await;
        assert!(matches!(read, Err(BlobError::Invalid { .. })), "{range:?}: {read:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    let server = Server::start().await;
    let store = server.store().await;
    let hash = BlobHash::of(b"nothing");
    for _ in 0..2 {
        assert!(matches!(store.get(&zone(), &hash, None).await, Err(BlobError::NotFound)));
        assert_eq!(store.head(&zone(), &hash).await, Ok(None));
        assert_eq!(store.delete(&zone(), &hash).await, Ok(()));
        assert_eq!(store.list(&zone(), None, 10).await, Ok(Vec::new()));
        // Once without the bucket, once with.
        store.ensure_bucket().await.unwrap();
        store.ensure_bucket().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_and_replacements() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(1000);
    store.put(&zone(), &hash, Bytes::from_static(b"wrong")).await.unwrap();
    let read = store.get(&zone(), &hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await;
    assert_eq!(read, Err(BlobError::Corrupt { region: "seoul".into() }));
    store.replace(&zone(), &hash, content.clone()).await.unwrap();
    assert!(store.get(&zone(), &hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await.unwrap() == content);
    store.delete(&zone(), &hash).await.unwrap();
    assert_eq!(store.head(&zone(), &hash).await, Ok(None));
    assert_eq!(store.put(&zone(), &hash, content).await, Ok(Put::Stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_complete_sorted_and_of_one_zone() {
    let server = Server::start().await;
    let store = server.store().await;
    let mut expected: Vec<(BlobHash, u64)> = Vec::new();
    for len in 0..120 {
        let (hash, content) = blob(len);
        store.put(&zone(), &hash, content).await.unwrap();
        expected.push((hash, len as u64));
    }
    for other in ["e", "eu-2", "us"] {
        store.put(&Zone::new(other).unwrap(), &blob(500).0, blob(500).1).await.unwrap();
    }
    expected.sort();
    let mut rows = Vec::new();
    loop {
        let page = store.list(&zone(), rows.last().map(|row: &Listed| &row.hash), 50).await.unwrap();
        assert!(page.len() <= 50);
        if page.is_empty() {
            break;
        }
        rows.extend(page);
    }
    assert_eq!(rows.iter().map(|row| (row.hash, row.bytes)).collect::<Vec<_>>(), expected);
    let versions: BTreeSet<&str> = rows.iter().map(|row| row.version.as_str()).collect();
    assert_eq!(versions.len(), rows.len(), "no two puts have one version");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_blob_that_was_listed_is_deleted() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(1000);
    let listed = async || store.list(&zone(), None, 10).await.unwrap().remove(0).version;
    store.put(&zone(), &hash, content.clone()).await.unwrap();
    let first = listed().await;
    // It went and came again: whoever decided on the first is too late.
    store.delete(&zone(), &hash).await.unwrap();
    store.put(&zone(), &hash, content.clone()).await.unwrap();
    assert_eq!(store.delete_version(&zone(), &hash, &first).await, Ok(false));
    assert_eq!(store.head(&zone(), &hash).await, Ok(Some(1000)));
    // The same where it was written over.
    let second = listed().await;
    store.replace(&zone(), &hash, content).await.unwrap();
    assert_eq!(store.delete_version(&zone(), &hash, &second).await, Ok(false));
    let third = listed().await;
    assert_eq!(store.delete_version(&zone(), &hash, &third).await, Ok(true));
    assert_eq!(store.head(&zone(), &hash).await, Ok(None));
    assert_eq!(store.delete_version(&zone(), &hash, &third).await, Ok(true), "it is gone, whoever did it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_listed_and_can_be_deleted() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(1000);
    store.put(&zone(), &hash, content).await.unwrap();
    let path = server.object_path(&hash);
    std::fs::write(&path, b"what is left of it").unwrap();
    let listed = store.list(&zone(), None, 10).await.unwrap().remove(0);
    assert_eq!(listed.hash, hash);
    assert_eq!(store.delete_version(&zone(), &hash, &listed.version).await, Ok(true));
    assert!(store.list(&zone(), None, 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_refused() {
    let server = Server::start().await;
    let good = server.store().await;
    let (hash, content) = blob(1000);
    good.put(&zone(), &hash, content.clone()).await.unwrap();
    for (access, secret) in [("key", "wrong"), ("wrong", "secret")] {
        let options = S3Options::new("seoul", server.endpoint(), "mail", access, secret);
        let store = S3Store::connect(options).await.unwrap();
        let denied = BlobError::Denied { region: "seoul".into() };
        assert_eq!(store.put(&zone(), &blob(7).0, blob(7).1).await, Err(denied.clone()));
        assert_eq!(store.head(&zone(), &hash).await, Err(denied.clone()));
        assert_eq!(store.get(&zone(), &hash, None).await.err(), Some(denied.clone()));
        assert_eq!(store.delete(&zone(), &hash).await, Err(denied));
    }
    assert_eq!(good.head(&zone(), &blob(7).0).await, Ok(None));
    assert_eq!(good.head(&zone(), &hash).await, Ok(Some(1000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_refused_before_it_is_sent() {
    let server = Server::start().await;
    let store = server.store().await;
    let content = Bytes::from(vec![0; BLOB_BYTES_MAX as usize + 1]);
    let put = store.put(&zone(), &BlobHash::of(b"x"), content).await;
    assert_eq!(put, Err(BlobError::TooLarge { max: BLOB_BYTES_MAX }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_there_or_silent_is_unavailable() {
    // Bound and closed again: nobody listens.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = store_of(&format!("http://{nobody}")).await;
    let put = store.put(&zone(), &blob(1).0, blob(1).1).await;
    assert_eq!(put, Err(BlobError::Unavailable { region: "seoul".into(), outage: Outage::Connection }));
    // Accepts and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options =
        S3Options::new("seoul", format!("http://{}", silent.local_addr().unwrap()), "mail", "key", "secret");
    options.timeouts.answer = Duration::from_millis(200);
    let store = S3Store::connect(options).await.unwrap();
    let put = store.put(&zone(), &blob(1).0, blob(1).1).await;
    assert_eq!(put, Err(BlobError::Unavailable { region: "seoul".into(), outage: Outage::Timeout }));
}

#[tokio::test(flavor = "multi_thread")]
async fn bit_rot_is_found_by_the_server() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(1_000_000);
    store.put(&zone(), &hash, content.clone()).await.unwrap();
    let path = server.object_path(&hash);
    let mut file = std::fs::read(&path).unwrap();
    file[700_000] ^= 1;
    std::fs::write(&path, &file).unwrap();
    // In the middle: the stream breaks before the bad block. Elsewhere, all is well.
    let read = store.get(&zone(), &hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await;
    assert!(matches!(read, Err(BlobError::Unavailable { .. } | BlobError::Corrupt { .. })), "{:?}", read.err());
    let good = store.get(&zone(), &hash, Some(0..600_000)).await.unwrap().collect(BLOB_BYTES_MAX).await.unwrap();
    assert!(good == content.slice(..600_000));
    // In the first block that is asked for: an answer that says so.
    let bad = store.get(&zone(), &hash, Some(690_000..710_000)).await;
    assert!(matches!(bad, Err(BlobError::Corrupt { .. })), "{bad:?}");
    // A torn file is no object, and a put replaces it.
    std::fs::write(&path, &file[..500_000]).unwrap();
    assert!(matches!(store.head(&zone(), &hash).await, Err(BlobError::Corrupt { .. })));
    assert!(matches!(store.get(&zone(), &hash, None).await, Err(BlobError::Corrupt { .. })));
    assert_eq!(store.put(&zone(), &hash, content.clone()).await, Ok(Put::Stored));
    assert!(store.get(&zone(), &hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_requests_finish_and_keeps_everything() {
    let server = Server::start().await;
    let store = server.store().await;
    let (hash, content) = blob(5_000_000);
    store.put(&zone(), &hash, content.clone()).await.unwrap();
    let reader = store.get(&zone(), &hash, None).await.unwrap();
    let stopping = tokio::spawn(server.stop());
    assert!(reader.collect(BLOB_BYTES_MAX).await.unwrap() == content);
    let dir = stopping.await.unwrap();
    let server = Server::start_on(dir).await;
    let again = server.store().await.get(&zone(), &hash, None).await.unwrap();
    assert!(again.collect(BLOB_BYTES_MAX).await.unwrap() == content);
}
