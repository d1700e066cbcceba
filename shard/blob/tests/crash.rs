//! P-1 for blobs: servers that are killed, frozen and started again. Each server is a process of its own: this test
//! binary, started again with [`server_child`] as its only test.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{blob, store_of, zone};
use futures::future::join_all;
use postrider_api::env::SystemClock;
use postrider_blob::server::{S3ServerOptions, serve};
use postrider_blob::{BLOB_BYTES_MAX, BlobError, BlobStore, Put, Replicated, S3Options, S3Store};
use tokio::net::TcpListener;

const DIR: &str = "POSTRIDER_BLOB_TEST_DIR";
const DEADLINE: Duration = Duration::from_secs(60);

/// Not a test of its own: the body of a child process. Without the variable there is nothing to serve.
#[tokio::test(flavor = "multi_thread")]
async fn server_child() {
    let Some(dir) = std::env::var_os(DIR).map(PathBuf::from) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Renamed into place, so that nobody reads half of it. Connections wait in the backlog until the server accepts.
    std::fs::write(dir.join("address.new"), address.to_string()).unwrap();
    std::fs::rename(dir.join("address.new"), dir.join("address")).unwrap();
    let options =
        S3ServerOptions { dir: dir.join("store"), address, access_key: "key".into(), secret_key: "secret".into() };
    serve(options, listener, std::future::pending()).await.unwrap();
}

struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    async fn start(dir: &Path) -> Self {
        let file = dir.join("address");
        std::fs::remove_file(&file).ok(); // of the run before, if there was one
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server_child", "--nocapture"]).env(DIR, dir).stdout(Stdio::null());
        // Owned at once, so that it is killed and waited for whatever happens.
        let mut server = Self { child: command.spawn().unwrap(), address: ([0, 0, 0, 0], 0).into() };
        let start = Instant::now();
        server.address = loop {
            assert!(start.elapsed() < DEADLINE, "the server does not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
            if let Ok(address) = std::fs::read_to_string(&file) {
                break address.parse().unwrap();
            }
        };
        server
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Puts blobs of different lengths until the server goes away; gives the lengths that were acknowledged.
async fn put_until_killed(store: S3Store, mut len: usize, step: usize) -> Vec<usize> {
    let mut acknowledged = Vec::new();
    loop {
        let (hash, content) = blob(len);
        match store.put(&zone(), &hash, content).await {
            Ok(_) => acknowledged.push(len),
            Err(BlobError::Unavailable { .. }) => return acknowledged,
            Err(error) => panic!("{error}"),
        }
        len += step;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_puts_loses_nothing_and_leaves_nothing_torn() {
    const WRITERS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for round in 1..=5 {
        let mut server = ServerProcess::start(dir.path()).await;
        let store = store_of(&server.endpoint()).await;
        // Each writer has lengths of its own, from small to several write steps.
        let writers =
            (0..WRITERS).map(|n| tokio::spawn(put_until_killed(store.clone(), round * 40_000 + n, WRITERS * 997)));
        let writers: Vec<_> = writers.collect();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(150 * round as u64) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.kill();
        let acknowledged = join_all(writers).await.into_iter().flat_map(Result::unwrap);
        all.extend(acknowledged);

        let server = ServerProcess::start(dir.path()).await;
        let store = store_of(&server.endpoint()).await;
        for len in &all {
            let (hash, content) = blob(*len);
            let read = store.get(&zone(), &hash, None).await.expect("an acknowledged blob is missing");
            assert!(read.collect(BLOB_BYTES_MAX).await.unwrap() == content, "an acknowledged blob is torn");
            assert_eq!(store.put(&zone(), &hash, content).await, Ok(Put::Existed));
        }
        // What was not acknowledged is there as a whole or not at all.
        let mut after = None;
        let mut listed = 0;
        loop {
            let page = store.list(&zone(), after.as_ref(), 1000).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.hash);
            listed += page.len();
            for row in page {
                let content = store.get(&zone(), &row.hash, None).await.unwrap().collect(BLOB_BYTES_MAX).await.unwrap();
                assert_eq!(content.len() as u64, row.bytes);
            }
        }
        assert!(listed >= all.len());
        let left = std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count();
        assert_eq!(left, 0, "uploads of the killed server are left over");
    }
    assert!(all.len() > WRITERS, "the load was no load: {}", all.len());
}

struct Region {
    name: &'static str,
    dir: tempfile::TempDir,
    server: ServerProcess,
}

async fn regions() -> Vec<Region> {
    let mut regions = Vec::new();
    for name in ["seoul", "frankfurt", "virginia"] {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerProcess::start(dir.path()).await;
        regions.push(Region { name, dir, server });
    }
    regions
}

async fn replicated(regions: &[Region]) -> Replicated {
    let mut stores: Vec<Arc<dyn BlobStore>> = Vec::new();
    for region in regions {
        let options = S3Options::new(region.name, region.server.endpoint(), "mail", "key", "secret");
        stores.push(Arc::new(S3Store::connect(options).await.unwrap()));
    }
    Replicated::new(stores, "seoul", SystemClock::shared())
}

/// Waits until a region's server has a good copy.
async fn until_there(region: &Region, len: usize) {
    let store = store_of(&region.server.endpoint()).await;
    let (hash, content) = blob(len);
    let start = Instant::now();
    loop {
        if let Ok(reader) = store.get(&zone(), &hash, None).await
            && reader.collect(BLOB_BYTES_MAX).await.as_ref() == Ok(&content)
        {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{} has no good copy", region.name);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_region_costs_nothing_and_is_caught_up_when_it_is_back() {
    let mut regions = regions().await;
    let replicated = replicated(&regions).await;
    let lengths: Vec<usize> = (0..20).map(|n| 150_000 + n * 10_000).collect();
    let (before, after) = lengths.split_at(10);
    for len in before {
        replicated.put(&zone(), &blob(*len).0, blob(*len).1).await.unwrap();
    }
    regions[0].server.kill(); // the local one
    for len in after {
        let durable = replicated.put(&zone(), &blob(*len).0, blob(*len).1).await.unwrap();
        assert!(!durable.regions.contains(&"seoul".to_owned()));
    }
    for len in &lengths {
        let read = replicated.get(&zone(), &blob(*len).0, None).await.unwrap();
        assert!(read.collect(BLOB_BYTES_MAX).await.unwrap() == blob(*len).1);
    }
    // Back under its old directory; the port is another, so a client of its own looks in, as a new deployment would.
    regions[0].server = ServerProcess::start(regions[0].dir.path()).await;
    let back = self::replicated(&regions).await;
    for len in &lengths {
        back.repair(&zone(), &blob(*len).0).await.unwrap();
        until_there(&regions[0], *len).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_region_delays_nobody_and_is_mended_when_it_thaws() {
    let regions = regions().await;
    let replicated = replicated(&regions).await;
    regions[0].server.signal("-STOP"); // the local one, and it looks alive to TCP
    let start = Instant::now();
    for len in 200_000..200_010 {
        let durable = replicated.put(&zone(), &blob(len).0, blob(len).1).await.unwrap();
        assert!(!durable.regions.contains(&"seoul".to_owned()));
        let read = replicated.get(&zone(), &blob(len).0, None).await.unwrap();
        assert!(read.collect(BLOB_BYTES_MAX).await.unwrap() == blob(len).1);
    }
    // Ten waits for its time-out would take far longer, on however slow a machine.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "puts or reads waited for the frozen store: {:?}",
        start.elapsed()
    );
    regions[0].server.signal("-CONT");
    for len in 200_000..200_010 {
        until_there(&regions[0], len).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_regions_lost_are_a_clear_error_and_reading_goes_on() {
    let mut regions = regions().await;
    let replicated = replicated(&regions).await;
    let (hash, content) = blob(300_000);
    replicated.put(&zone(), &hash, content.clone()).await.unwrap();
    for region in &regions {
        until_there(region, 300_000).await;
    }
    regions[0].server.kill();
    regions[1].server.kill();
    let start = Instant::now();
    let put = replicated.put(&zone(), &blob(5).0, blob(5).1).await;
    assert_eq!(put, Err(BlobError::TooFewCopies { durable: 1, needed: 2 }));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let read = replicated.get(&zone(), &hash, None).await.unwrap();
    assert!(read.collect(BLOB_BYTES_MAX).await.unwrap() == content);
}
