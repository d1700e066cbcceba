//! What a blob costs: puts and gets of one region's embedded store through the S3 client, both in this process.
//!
//! `cargo bench -p postrider-blob` prints a table. `cpu` is of client and server together; `fsyncs` counts what the
//! server asked the disk for; the last lines measure the same disk with nothing above it, for scale. The directory is
//! made under the current one, or where the first argument says.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use postrider_blob::server::{S3ServerOptions, serve};
use postrider_blob::{BLOB_BYTES_MAX, BlobHash, BlobStore, S3Options, S3Store, Zone};
use tokio::net::TcpListener;

const RUN: Duration = Duration::from_secs(2);

/// Counts fsyncs and forgets everything else.
#[derive(Clone, Default)]
struct Fsyncs(Arc<AtomicU64>);

impl CounterFn for Fsyncs {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Recorder for Fsyncs {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "postrider_blob_fsyncs_total" {
            Counter::from_arc(Arc::new(self.clone()))
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// User and system time of this process, from /proc/self/stat (fields 14 and 15, in hundredths of a second).
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a line").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

struct Row {
    what: String,
    count: usize,
    wall: Duration,
    cpu: Duration,
    fsyncs: u64,
    latencies: Vec<Duration>,
}

impl Row {
    fn print(mut self) {
        self.latencies.sort();
        let at =
            |share: f64| self.latencies[((self.latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        println!(
            "{:<28} {:>8.0}/s   p50 {:>7.2} ms   p99 {:>7.2} ms   cpu {:>7.3} ms each   fsyncs {:>5.2} each",
            self.what,
            self.count as f64 / self.wall.as_secs_f64(),
            at(0.5),
            at(0.99),
            self.cpu.as_secs_f64() * 1000.0 / self.count as f64,
            self.fsyncs as f64 / self.count as f64,
        );
    }
}

/// Content of its own for each number, cheap to make; hashing it is part of what a caller pays.
fn content(bytes: usize, number: u64) -> (BlobHash, Bytes) {
    let mut content = vec![0x5a; bytes];
    content[..8].copy_from_slice(&number.to_le_bytes());
    (BlobHash::of(&content), content.into())
}

async fn run<F, Fut>(what: String, writers: usize, fsyncs: &Fsyncs, work: F) -> Row
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (wall, before, synced) = (Instant::now(), cpu(), fsyncs.0.load(Ordering::Relaxed));
    let tasks = (0..writers).map(|writer| {
        let work = work.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while wall.elapsed() < RUN {
                let start = Instant::now();
                work(writer).await;
                latencies.push(start.elapsed());
            }
            latencies
        })
    });
    let latencies: Vec<Duration> = join_all(tasks).await.into_iter().flat_map(|task| task.expect("no panic")).collect();
    Row {
        what,
        count: latencies.len(),
        wall: wall.elapsed(),
        cpu: cpu() - before,
        fsyncs: fsyncs.0.load(Ordering::Relaxed) - synced,
        latencies,
    }
}

async fn disk(dir: &Path) {
    let mut file = File::create(dir.join("raw")).expect("create");
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < RUN {
        file.write_all(&[0x5a; 4096]).expect("write");
        file.sync_data().expect("sync");
        count += 1;
    }
    println!("disk: append 4 KiB + fdatasync {:>8.0}/s", f64::from(count) / start.elapsed().as_secs_f64());
    let mut file = File::create(dir.join("raw")).expect("create");
    let start = Instant::now();
    for _ in 0..256 {
        file.write_all(&[0x5a; 1024 * 1024]).expect("write");
    }
    file.sync_data().expect("sync");
    println!("disk: sequential write         {:>8.0} MiB/s", 256.0 / start.elapsed().as_secs_f64());
}

fn main() {
    // Test runners start every target, with --list or nothing; only `cargo bench` means it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let fsyncs = Fsyncs::default();
    metrics::set_global_recorder(fsyncs.clone()).expect("the only recorder");
    // cargo passes --bench; anything else is a directory.
    let parent =
        std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map_or(PathBuf::from("."), PathBuf::from);
    let dir = tempfile::tempdir_in(parent).expect("a directory to write to");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let options = S3ServerOptions {
            dir: dir.path().join("store"),
            address,
            access_key: "key".into(),
            secret_key: "secret".into(),
        };
        tokio::spawn(serve(options, listener, std::future::pending()));
        let options = S3Options::new("here", format!("http://{address}"), "mail", "key", "secret");
        let store = S3Store::connect(options).await.expect("options");
        store.ensure_bucket().await.expect("a bucket");
        let zone = Zone::new("eu").expect("a name");
        let number = Arc::new(AtomicU64::new(0));
        for bytes in [50_000, 150_000, 500_000] {
            for writers in [1, 16, 64] {
                let (store, zone, number) = (store.clone(), zone.clone(), Arc::clone(&number));
                run(format!("put {:>3} KB, {writers:>2} at a time", bytes / 1000), writers, &fsyncs, move |_| {
                    let (store, zone, number) = (store.clone(), zone.clone(), Arc::clone(&number));
                    async move {
                        let (hash, content) = content(bytes, number.fetch_add(1, Ordering::Relaxed));
                        store.put(&zone, &hash, content).await.expect("put");
                    }
                })
                .await
                .print();
            }
            let (hash, blob) = content(bytes, u64::MAX - bytes as u64);
            store.put(&zone, &hash, blob).await.expect("put");
            let (store, zone) = (store.clone(), zone.clone());
            run(format!("get {:>3} KB, 16 at a time", bytes / 1000), 16, &fsyncs, move |_| {
                let (store, zone) = (store.clone(), zone.clone());
                async move {
                    let reader = store.get(&zone, &hash, None).await.expect("get");
                    reader.collect(BLOB_BYTES_MAX).await.expect("collect");
                }
            })
            .await
            .print();
        }
        disk(dir.path()).await;
    });
}
