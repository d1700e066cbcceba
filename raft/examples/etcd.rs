//! A peer on the same machine: three members of etcd (`etcd` in `PATH`; Debian's `etcd-server`), each with its own data and synced,
//! that are given values as large as the mails of `postrider bench smtp`, by as many connections in a closed loop.
//!
//! `cargo run --release -p postrider-raft --example etcd -- [--connections 64] [--seconds 20] [--bytes 50000] [--dir DIR]` prints puts
//! per second, how long they take and the members' processor time for each, next to what the disk does in the same run. A put is
//! one key that is stored three times, and nothing else: what a mail service does beside it is not in it.

mod support;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use support::{Failure, cpu, disk_syncs, each_option};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const MEMBERS: usize = 3;
const PUT: &str = "/etcdserverpb.KV/Put";
/// Until all members serve.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// More than any run writes: etcd refuses writes beyond what it was given.
const QUOTA_BYTES: &str = "8589934592";

/// The two fields of etcd's `PutRequest` (etcd 3.4, `rpc.proto`) that are needed.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// The members; they end with this.
struct Etcd {
    members: Vec<Child>,
    clients: Vec<String>,
}

impl Etcd {
    fn start(dir: &Path) -> Result<Self, Failure> {
        // Held together, so that they differ; free again when etcd asks for them.
        let held = (0..2 * MEMBERS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let urls = held
            .iter()
            .map(|port| Ok(format!("http://{}", port.local_addr()?)))
            .collect::<Result<Vec<_>, Failure>>()?;
        drop(held);
        let (clients, peers) = urls.split_at(MEMBERS);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("m{at}={peer}")).collect();
        let cluster = cluster.join(",");
        let mut etcd = Self { members: Vec::new(), clients: clients.to_vec() };
        for (at, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let member = Command::new("etcd")
                .args(["--name", &format!("m{at}"), "--log-level", "error", "--quota-backend-bytes", QUOTA_BYTES])
                .args(["--data-dir".as_ref(), dir.join(at.to_string()).as_os_str()])
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &cluster, "--initial-cluster-state", "new"])
                .stdin(Stdio::null())
                .stderr(std::fs::File::create(log(dir, at))?)
                .spawn()
                .map_err(|error| format!("etcd does not start: {error}"))?;
            etcd.members.push(member);
        }
        Ok(etcd)
    }

    /// Waits until each member takes a put.
    async fn serves(&self, dir: &Path) -> Result<(), Failure> {
        let began = Instant::now();
        for (at, client) in self.clients.iter().enumerate() {
            let channel = Endpoint::from_shared(client.clone())?.connect_lazy();
            while let Err(error) = put(&channel, "probe".into(), "probe".into()).await {
                if began.elapsed() > START_DEADLINE {
                    let said = std::fs::read_to_string(log(dir, at))?;
                    return Err(format!("etcd does not serve: {error}\n{said}").into());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Duration, Failure> {
        self.members.iter().map(|member| cpu(&member.id().to_string())).sum()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that has ended already needs no ending.
            drop(member.kill());
            drop(member.wait());
        }
    }
}

/// What a member says.
fn log(dir: &Path, member: usize) -> PathBuf {
    dir.join(format!("{member}.log"))
}

async fn put(channel: &Channel, key: Bytes, value: Bytes) -> Result<(), Failure> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    client.unary(tonic::Request::new(PutRequest { key, value }), PathAndQuery::from_static(PUT), codec).await?;
    Ok(())
}

/// Printable text that does not compress to less than its letters need.
fn text(bytes: usize) -> Bytes {
    support::keep::noise(7, bytes).iter().map(|byte| b' ' + byte % 95).collect()
}

/// Puts one value after the other until `until`; how long each took.
async fn load(channel: Channel, connection: usize, value: Bytes, until: Instant) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while Instant::now() < until {
        let key = format!("{connection}/{}", times.len());
        let began = Instant::now();
        put(&channel, key.into(), value.clone()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

struct Options {
    connections: usize,
    seconds: u64,
    bytes: usize,
    dir: PathBuf,
}

fn options() -> Result<Options, Failure> {
    let mut options = Options { connections: 64, seconds: 20, bytes: 50_000, dir: std::env::temp_dir() };
    each_option(std::env::args().skip(1), |word, value| {
        match word {
            "--connections" => options.connections = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--bytes" => options.bytes = value.parse()?,
            "--dir" => options.dir = value.into(),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

// One thread, as the load of `postrider bench`.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = options()?;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let syncs = disk_syncs(dir.path())?;
    let etcd = Etcd::start(dir.path())?;
    etcd.serves(dir.path()).await?;
    let value = text(options.bytes);
    let (before, began) = (etcd.cpu()?, Instant::now());
    let until = began + Duration::from_secs(options.seconds);
    let mut loads = Vec::new();
    for connection in 0..options.connections {
        let client = etcd.clients[connection % MEMBERS].clone();
        let channel = Endpoint::from_shared(client)?.connect().await?;
        loads.push(tokio::spawn(load(channel, connection, value.clone(), until)));
    }
    let mut times = Vec::new();
    for load in loads {
        times.append(&mut load.await??);
    }
    let (took, cpu) = (began.elapsed(), etcd.cpu()?.saturating_sub(before));
    times.sort_unstable();
    let count = times.len().max(1);
    let percentile = |share: usize| times.get(times.len() * share / 100).map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!("disk: {syncs:.0} x (4 KiB append + fdatasync)/s");
    println!("connections  bytes  puts/s  p50 ms  p99 ms  CPU ms/put");
    println!(
        "{:>11}  {:>5}  {:>6.1}  {:>6.1}  {:>6.1}  {:>10.2}",
        options.connections,
        options.bytes,
        times.len() as f64 / took.as_secs_f64(),
        percentile(50),
        percentile(99),
        cpu.as_secs_f64() * 1e3 / count as f64
    );
    Ok(())
}
