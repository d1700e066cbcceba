//! The host at its limit: three hosts in one process, one or more groups, proposals of one size from many tasks.
//!
//! `cargo run --release -p postrider-raft --example limit -- [--bytes 50000] [--tasks 64] [--seconds 10] [--groups 1]
//! [--dir DIR]` prints proposals per second, latencies, fsyncs per proposal and bytes written per byte proposed, next to
//! what the disk itself does in the same run.

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider_raft::{GroupId, Host, ProposeError};
use support::keep::{KeepAll, noise};
use support::{Failure, MADE, cpu, disk_syncs, each_option, members, serve};

struct Arguments {
    bytes: usize,
    tasks: usize,
    seconds: u64,
    groups: u32,
    dir: Option<PathBuf>,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut arguments = Arguments { bytes: 50_000, tasks: 64, seconds: 10, groups: 1, dir: None };
    each_option(std::env::args().skip(1), |word, value| {
        match word {
            "--bytes" => arguments.bytes = value.parse()?,
            "--tasks" => arguments.tasks = value.parse()?,
            "--seconds" => arguments.seconds = value.parse()?,
            "--groups" => arguments.groups = value.parse()?,
            "--dir" => arguments.dir = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(arguments)
}

/// Bytes that this process has caused to be written to disks.
fn written_bytes() -> Result<u64, Failure> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find(|line| line.starts_with("write_bytes:")).ok_or("no write_bytes")?;
    Ok(line.trim_start_matches("write_bytes:").trim().parse()?)
}

async fn leader(hosts: &[Host], group: GroupId) -> Host {
    loop {
        for host in hosts {
            if host.status(group).is_some_and(|status| status.leads()) && host.read_barrier(group).await.is_ok() {
                return host.clone();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn load(
    leaders: &[(GroupId, Host)],
    arguments: &Arguments,
    refused: &Arc<AtomicU64>,
) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut tasks = Vec::new();
    for at in 0..arguments.tasks {
        let (group, host) = leaders[at % leaders.len()].clone();
        let payload = noise(at as u64 + 1, arguments.bytes);
        let refused = refused.clone();
        tasks.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let started = Instant::now();
                match host.propose(group, payload.clone()).await {
                    Ok(_) => latencies.push(started.elapsed()),
                    Err(ProposeError::Busy) => {
                        refused.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(latencies)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    all.sort_unstable();
    Ok(all)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = arguments()?;
    let temporary;
    let dir = match &arguments.dir {
        Some(dir) => dir.clone(),
        None => {
            temporary = tempfile::tempdir()?;
            temporary.path().to_owned()
        }
    };
    let syncs = disk_syncs(&dir)?;
    let members = members()?;
    let mut hosts = Vec::new();
    for (id, member) in &members {
        hosts.push(serve(*id, member, &dir.join(id.to_string()), Arc::new(KeepAll)).await?);
    }
    let mut leaders = Vec::new();
    for group in (1..=arguments.groups).map(GroupId) {
        for host in &hosts {
            host.open_replica(group, MADE).await?;
        }
        hosts[group.0 as usize % 3].create_group(group, MADE, members.clone()).await?;
        leaders.push((group, leader(&hosts, group).await));
    }
    let refused = Arc::new(AtomicU64::new(0));
    let before: Vec<_> = hosts.iter().map(Host::stats).collect();
    let (written, used, started) = (written_bytes()?, cpu("self")?, Instant::now());
    let latencies = load(&leaders, &arguments, &refused).await?;
    let (elapsed, used) = (started.elapsed(), cpu("self")?.checked_sub(used).unwrap_or_default());
    for host in &hosts {
        host.flush().await?;
    }
    // Compaction goes on a little longer.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = written_bytes()?.saturating_sub(written);

    let count = latencies.len();
    if count == 0 {
        return Err("nothing was acknowledged".into());
    }
    let at = |share: f64| latencies[((count - 1) as f64 * share) as usize];
    let proposed = (count * arguments.bytes) as f64;
    println!("disk: {syncs:.0} appends of 4 KiB with fdatasync per second");
    println!(
        "proposals: {count} of {} bytes from {} tasks to {} groups",
        arguments.bytes, arguments.tasks, arguments.groups
    );
    println!("rate: {:.0}/s, refused {}", count as f64 / elapsed.as_secs_f64(), refused.load(Ordering::Relaxed));
    println!("latency: p50 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0));
    println!("processor: {:.2} ms per proposal, all three hosts and the load", used.as_secs_f64() * 1e3 / count as f64);
    println!("written: {:.2} bytes per replica per byte proposed", written as f64 / 3.0 / proposed);
    for (host, before) in hosts.iter().zip(before) {
        let stats = host.stats();
        println!(
            "host: {:.3} fsyncs per proposal, {:.2} log bytes per byte, {:.1} entries per apply, {} flushes",
            (stats.log_syncs - before.log_syncs) as f64 / count as f64,
            (stats.log_bytes - before.log_bytes) as f64 / proposed,
            (stats.applied_entries - before.applied_entries) as f64
                / (stats.apply_writes - before.apply_writes).max(1) as f64,
            stats.flushes - before.flushes,
        );
        host.shutdown().await;
    }
    Ok(())
}
