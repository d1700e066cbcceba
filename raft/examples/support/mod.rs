//! What measurements of the host share.

#![allow(dead_code, reason = "each example uses its part of this")]

pub(crate) mod keep;
pub(crate) mod process;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider_raft::{Host, HostOptions, Incarnation, MachineFactory, Member, NodeId};
use tokio::net::TcpListener;

/// The making of every group of the examples.
pub(crate) const MADE: Incarnation = Incarnation(1);

/// As in the binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What may go wrong in a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Hands each option and its value to `take`, which says whether it knows it.
pub(crate) fn each_option(
    mut words: impl Iterator<Item = String>,
    mut take: impl FnMut(&str, String) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        if !take(&word, value)? {
            return Err(format!("unknown: {word}").into());
        }
    }
    Ok(())
}

/// How long appends of 4 KiB with an fdatasync each take, one after the other for a second; ascending.
pub(crate) fn disk_sync_times(dir: &Path) -> Result<Vec<Duration>, Failure> {
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let block = vec![7_u8; 4 << 10];
    let started = Instant::now();
    let mut times = Vec::new();
    while started.elapsed() < Duration::from_secs(1) {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    std::fs::remove_file(dir.join("probe"))?;
    times.sort_unstable();
    Ok(times)
}

/// Appends of 4 KiB, each with an fdatasync, per second.
pub(crate) fn disk_syncs(dir: &Path) -> Result<f64, Failure> {
    let times = disk_sync_times(dir)?;
    Ok(times.len() as f64 / times.iter().sum::<Duration>().as_secs_f64())
}

/// How long `count` round trips of so many bytes over loopback TCP take, one after the other; ascending.
pub(crate) fn loopback_times(bytes: usize, count: usize) -> Result<Vec<Duration>, Failure> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut near = std::net::TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let mut message = vec![0; bytes];
        for _ in 0..count {
            far.read_exact(&mut message)?;
            far.write_all(&message)?;
        }
        Ok(())
    });
    let mut message = vec![7; bytes];
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        times.push(began.elapsed());
    }
    echo.join().map_err(|_| "the echo panicked")??;
    times.sort_unstable();
    Ok(times)
}

/// Processor time of a process so far, by its folder in `/proc`.
pub(crate) fn cpu(process: &str) -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().ok_or("no stat")?.split(' ').collect();
    Ok(Duration::from_millis((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?) * 10))
}

/// Three members at free loopback addresses.
pub(crate) fn members() -> Result<BTreeMap<NodeId, Member>, Failure> {
    let member = |id| {
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        Ok((NodeId(id), Member { address, region: format!("r{id}") }))
    };
    (1..=3).map(member).collect()
}

/// Opens a host in `dir` and serves it at its address.
pub(crate) async fn serve(
    node: NodeId,
    member: &Member,
    dir: &Path,
    machines: Arc<dyn MachineFactory>,
) -> Result<Host, Failure> {
    serve_with(HostOptions::new(node, dir), member, machines).await
}

/// The same with other options.
pub(crate) async fn serve_with(
    options: HostOptions,
    member: &Member,
    machines: Arc<dyn MachineFactory>,
) -> Result<Host, Failure> {
    let host = Host::open(options, machines).await?;
    let listener = TcpListener::bind(member.address.parse::<SocketAddr>()?).await?;
    tokio::spawn(host.listen(listener));
    Ok(host)
}
