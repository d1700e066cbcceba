//! The server on a disk that waits, fails and is watched.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use postrider_api::id::BlobHash;
use tokio::task::JoinHandle;

use super::*;
use crate::{BLOB_BYTES_MAX, BlobError, BlobStore, Outage, Put, S3Options, S3Store, Zone};

const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct State {
    /// Directory syncs wait while this is set.
    held: bool,
    waiting: usize,
    fail_content: bool,
    fail_directories: bool,
    /// Inodes whose content is durable.
    durable: HashSet<u64>,
    /// Names that were durable before their content was.
    too_early: Vec<String>,
}

#[derive(Default)]
struct TestDisk {
    state: Mutex<State>,
    released: Condvar,
}

impl TestDisk {
    fn hold(&self) {
        self.state.lock().held = true;
    }

    fn release(&self) {
        self.state.lock().held = false;
        self.released.notify_all();
    }

    async fn until_waiting(&self) {
        let start = Instant::now();
        while self.state.lock().waiting == 0 {
            assert!(start.elapsed() < DEADLINE, "no directory is being synced");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Disk for TestDisk {
    fn sync_content(&self, file: &File) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        let mut state = self.state.lock();
        if state.fail_content {
            return Err(io::Error::other("the test says so"));
        }
        state.durable.insert(inode);
        Ok(())
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.held {
            self.released.wait(&mut state);
        }
        state.waiting -= 1;
        if state.fail_directories {
            return Err(io::Error::other("the test says so"));
        }
        for entry in fs::read_dir(directory)? {
            let metadata = entry?.metadata()?;
            if metadata.is_file() && !state.durable.contains(&metadata.ino()) {
                state.too_early.push(format!("{directory:?}"));
            }
        }
        Ok(())
    }
}

struct World {
    disk: Arc<TestDisk>,
    store: S3Store,
    zone: Zone,
    serving: JoinHandle<Result<(), ServeError>>,
    _dir: tempfile::TempDir,
}

async fn world() -> World {
    world_with(Limits::default()).await
}

async fn world_with(limits: Limits) -> World {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options =
        S3ServerOptions { dir: dir.path().into(), address, access_key: "key".into(), secret_key: "secret".into() };
    let disk = Arc::new(TestDisk::default());
    let serving = tokio::spawn(serve_on(disk.clone(), limits, options, listener, Box::pin(std::future::pending())));
    let mut options = S3Options::new("here", format!("http://{address}"), "mail", "key", "secret");
    options.timeouts.answer = DEADLINE;
    let store = S3Store::connect(options).await.unwrap();
    store.ensure_bucket().await.unwrap();
    World { disk, store, zone: Zone::new("eu").unwrap(), serving, _dir: dir }
}

impl World {
    fn put(&self, content: &'static [u8]) -> JoinHandle<Result<Put, BlobError>> {
        let (store, zone) = (self.store.clone(), self.zone.clone());
        tokio::spawn(async move { store.put(&zone, &BlobHash::of(content), Bytes::from_static(content)).await })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hears_of_a_blob_before_its_name_is_durable() {
    let world = world().await;
    world.disk.hold();
    let winner = world.put(b"content");
    world.disk.until_waiting().await;
    // The name is there now, and not durable. All of these would claim that it is.
    let hash = BlobHash::of(b"content");
    let loser = world.put(b"content");
    let (store, zone) = (world.store.clone(), world.zone.clone());
    let head = tokio::spawn(async move { store.head(&zone, &hash).await });
    let (store, zone) = (world.store.clone(), world.zone.clone());
    let get = tokio::spawn(async move { store.get(&zone, &hash, None).await?.collect(BLOB_BYTES_MAX).await });
    let (store, zone) = (world.store.clone(), world.zone.clone());
    let list = tokio::spawn(async move { store.list(&zone, None, 10).await });
    // Silence cannot be waited for; this is long against what an answer takes.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!winner.is_finished() && !loser.is_finished());
    assert!(!head.is_finished() && !get.is_finished() && !list.is_finished());
    world.disk.release();
    assert_eq!(winner.await.unwrap(), Ok(Put::Stored));
    assert_eq!(loser.await.unwrap(), Ok(Put::Existed));
    assert_eq!(head.await.unwrap(), Ok(Some(7)));
    assert_eq!(get.await.unwrap(), Ok(Bytes::from_static(b"content")));
    assert_eq!(list.await.unwrap().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_durable_before_its_name() {
    let world = world().await;
    let puts: Vec<_> = (0..64u32)
        .map(|n| {
            let (store, zone) = (world.store.clone(), world.zone.clone());
            let content = Bytes::from(n.to_le_bytes().repeat(20_000));
            tokio::spawn(async move { store.put(&zone, &BlobHash::of(&content), content).await })
        })
        .collect();
    for put in puts {
        assert_eq!(put.await.unwrap(), Ok(Put::Stored));
    }
    assert!(world.disk.state.lock().durable.len() >= 64);
    assert_eq!(world.disk.state.lock().too_early, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_content_sync_leaves_nothing() {
    let world = world().await;
    world.disk.state.lock().fail_content = true;
    let put = world.put(b"content").await.unwrap();
    assert!(matches!(put, Err(BlobError::Unavailable { .. })), "{put:?}");
    world.disk.state.lock().fail_content = false;
    assert_eq!(world.store.head(&world.zone, &BlobHash::of(b"content")).await, Ok(None));
    assert_eq!(world.put(b"content").await.unwrap(), Ok(Put::Stored));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_directory_sync_stops_the_server() {
    let world = world().await;
    assert_eq!(world.put(b"before").await.unwrap(), Ok(Put::Stored));
    world.disk.state.lock().fail_directories = true;
    let put = world.put(b"content").await.unwrap();
    assert!(matches!(put, Err(BlobError::Unavailable { .. })), "{put:?}");
    let served = tokio::time::timeout(DEADLINE, world.serving).await.expect("it goes on").unwrap();
    assert!(matches!(served, Err(ServeError::SyncFailed)), "{served:?}");
}

/// A blob that no socket's buffers hold.
fn large() -> (BlobHash, Bytes) {
    let content = Bytes::from(vec![7; 32 * 1024 * 1024]);
    (BlobHash::of(&content), content)
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_who_take_nothing_leave_room_for_writers_and_are_dropped() {
    let world = world_with(Limits { write_stall_max: Duration::from_secs(4), downloads_max: 2 }).await;
    let (hash, content) = large();
    assert_eq!(world.store.put(&world.zone, &hash, content.clone()).await, Ok(Put::Stored));
    let mut stalled = Vec::new();
    for _ in 0..2 {
        stalled.push(world.store.get(&world.zone, &hash, None).await.unwrap());
    }
    // A third is told at once, and writers do not notice any of it.
    let third = world.store.get(&world.zone, &hash, None).await;
    assert!(matches!(third, Err(BlobError::Unavailable { outage: Outage::Busy, .. })), "{third:?}");
    assert_eq!(world.put(b"content").await.unwrap(), Ok(Put::Stored));
    // Nobody takes a byte: their places come back by themselves.
    let start = Instant::now();
    let read = loop {
        match world.store.get(&world.zone, &hash, None).await {
            Ok(reader) => break reader.collect(BLOB_BYTES_MAX).await,
            Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(read.unwrap() == content);
    drop(stalled);
}
