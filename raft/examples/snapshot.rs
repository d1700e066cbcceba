//! A large group moves to another node while it serves: one process leads it alone, the other has nothing and joins.
//!
//! `cargo run --release -p postrider-raft --example snapshot -- [--gib 10] [--bytes 50000] [--rate MB] [--dir DIR]` prints how fast
//! the state moves next to what the disk writes and copies in the same run, how much memory each side takes for it, and how long
//! commands take meanwhile. `--rate` is the limit of a snapshot in MB/s; there is none without.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use postrider_raft::{GroupId, Host, HostOptions, Member, NodeId};
use support::keep::{KeepAll, noise};
use support::process::{Process, end, next_line};
use support::{Failure, MADE, each_option, members, serve_with};

const GROUP: GroupId = GroupId(1);
/// Commands under way while the group is filled.
const FILLING: usize = 64;
/// A command is sent this often while the state moves.
const PROBE_EVERY: Duration = Duration::from_millis(20);
const PROBE_BYTES: usize = 1_000;
/// The file by which the disk is measured.
const DISK_BYTES: usize = 4 << 30;
/// Blocks that are read before they are written.
const BLOCKS_AHEAD: usize = 16;
const MIB: f64 = (1 << 20) as f64;

fn parse(addresses: &str) -> BTreeMap<NodeId, Member> {
    let member = |address: &str| Member { address: address.to_owned(), region: "r".to_owned() };
    (1..).map(NodeId).zip(addresses.split(',').map(member)).collect()
}

async fn child(node: NodeId, addresses: &str, dir: &Path, rate: u64) -> Result<(), Failure> {
    let members = parse(addresses);
    let mut options = HostOptions::new(node, dir);
    options.limits.snapshot_bytes_per_s = rate;
    let host = serve_with(options, &members[&node], Arc::new(KeepAll)).await?;
    println!("ready");
    loop {
        let line = next_line().await?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["create"] => {
                host.create_group(GROUP, MADE, BTreeMap::from([(node, members[&node].clone())])).await?;
                println!("done");
            }
            ["fill", count, bytes] => {
                fill(&host, count.parse()?, bytes.parse()?).await?;
                println!("done");
            }
            ["open"] => {
                host.open_replica(GROUP, MADE).await?;
                println!("done");
            }
            ["move", to] => {
                let (elapsed, commands) = relocate(&host, NodeId(to.parse()?), &members).await?;
                let at = |share: f64| commands[((commands.len() - 1) as f64 * share) as usize].as_micros();
                println!("{} {} {} {}", elapsed.as_micros(), commands.len(), at(0.5), at(0.99));
            }
            // The parent has gone.
            _ => break,
        }
    }
    host.shutdown().await;
    Ok(())
}

async fn fill(host: &Host, count: u64, bytes: usize) -> Result<(), Failure> {
    let mut writes =
        futures::stream::iter(0..count).map(|id| host.propose(GROUP, noise(id + 1, bytes))).buffer_unordered(FILLING);
    while let Some(written) = writes.next().await {
        written?;
    }
    // The log forgets it: whoever joins needs a snapshot.
    while host.status(GROUP).is_none_or(|status| status.purged < Some(count / 2)) {
        host.flush().await?;
    }
    Ok(())
}

/// How long it took until `to` had everything, and how long each command took meanwhile, ascending.
async fn relocate(
    host: &Host,
    to: NodeId,
    members: &BTreeMap<NodeId, Member>,
) -> Result<(Duration, Vec<Duration>), Failure> {
    let last = host.status(GROUP).and_then(|status| status.last_log).ok_or("an empty group")?;
    let started = Instant::now();
    host.add_learner(GROUP, to, members[&to].clone()).await?;
    let mut commands = Vec::new();
    let mut every = tokio::time::interval(PROBE_EVERY);
    while host.status(GROUP).and_then(|status| status.matched.get(&to).copied().flatten()) < Some(last) {
        every.tick().await;
        let began = Instant::now();
        host.propose(GROUP, Bytes::from(vec![7; PROBE_BYTES])).await?;
        commands.push(began.elapsed());
    }
    let elapsed = started.elapsed();
    commands.sort_unstable();
    Ok((elapsed, commands))
}

/// Bytes a second.
struct Rates {
    /// Written, with one sync at the end.
    written: f64,
    /// Read from one file and written to another at once, past the page cache: what a move between two directories of one disk can
    /// come to.
    copied: f64,
}

fn disk_rates(dir: &Path) -> Result<Rates, Failure> {
    let (original, copy) = (dir.join("probe"), dir.join("copy"));
    let written = write_rate(&original)?;
    let copied = copy_rate(&original, &copy)?;
    std::fs::remove_file(original)?;
    std::fs::remove_file(copy)?;
    Ok(Rates { written, copied })
}

/// A MiB that begins where direct reads and writes may.
struct Block {
    memory: Vec<u8>,
    start: usize,
}

impl Block {
    const BYTES: usize = 1 << 20;
    const ALIGNMENT: usize = 4 << 10;

    fn new() -> Self {
        let memory = vec![0; Self::BYTES + Self::ALIGNMENT];
        let start = memory.as_ptr().align_offset(Self::ALIGNMENT).min(Self::ALIGNMENT);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + Self::BYTES]
    }
}

fn copy_rate(from: &Path, to: &Path) -> Result<f64, Failure> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits())?;
    let mut from = File::options().read(true).custom_flags(direct).open(from)?;
    let mut to = File::options().write(true).create_new(true).custom_flags(direct).open(to)?;
    let (full, blocks) = mpsc::sync_channel::<Block>(BLOCKS_AHEAD);
    let (empty, reusable) = mpsc::channel();
    for _ in 0..BLOCKS_AHEAD {
        empty.send(Block::new())?;
    }
    let started = Instant::now();
    let reading = std::thread::spawn(move || -> std::io::Result<()> {
        for mut block in reusable.into_iter().take(DISK_BYTES / Block::BYTES) {
            from.read_exact(block.bytes())?;
            // Who writes has failed, and says so.
            if full.send(block).is_err() {
                break;
            }
        }
        Ok(())
    });
    for mut block in blocks {
        to.write_all(block.bytes())?;
        // Nothing more may have to be read.
        drop(empty.send(block));
    }
    to.sync_data()?;
    let elapsed = started.elapsed();
    reading.join().map_err(|_| "reading panicked")??;
    Ok(DISK_BYTES as f64 / elapsed.as_secs_f64())
}

fn write_rate(path: &Path) -> Result<f64, Failure> {
    let block = noise(1, 1 << 20);
    let mut file = File::create(path)?;
    let started = Instant::now();
    for _ in 0..DISK_BYTES / block.len() {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    let elapsed = started.elapsed();
    Ok(DISK_BYTES as f64 / elapsed.as_secs_f64())
}

struct Settings {
    gib: f64,
    bytes: usize,
    rate: u64,
    dir: Option<PathBuf>,
}

fn settings(words: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let mut settings = Settings { gib: 10.0, bytes: 50_000, rate: u64::MAX, dir: None };
    each_option(words, |word, value| {
        match word {
            "--gib" => settings.gib = value.parse()?,
            "--bytes" => settings.bytes = value.parse()?,
            "--rate" => settings.rate = value.parse::<u64>()? * 1_000_000,
            "--dir" => settings.dir = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(settings)
}

fn measure(settings: &Settings) -> Result<(), Failure> {
    let dir = match &settings.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let addresses: Vec<String> = members()?.into_values().map(|member| member.address).collect();
    let (addresses, rate) = (addresses.join(","), settings.rate.to_string());
    let start = |node: &str| {
        let dir = dir.path().join(node);
        Process::start(&["--child", node, &addresses, &dir.to_string_lossy(), &rate])
    };
    let (mut from, mut to) = (start("1")?, start("2")?);
    let count = (settings.gib * 1024.0 * MIB / settings.bytes as f64) as u64;
    let bytes = count as f64 * settings.bytes as f64;
    let started = Instant::now();
    from.ask("create")?;
    from.ask(&format!("fill {count} {}", settings.bytes))?;
    println!("filled: {:.0} MB in {:.1} s", bytes / 1e6, started.elapsed().as_secs_f64());
    to.ask("open")?;
    let before = disk_rates(dir.path())?;
    from.forget_peak()?;
    to.forget_peak()?;
    let memory = (from.memory()?, to.memory()?);
    let used = (from.cpu()?, to.cpu()?);
    let moved = from.ask("move 2")?;
    let used = (from.cpu()? - used.0, to.cpu()? - used.1);
    let peaks = (from.memory_peak()?, to.memory_peak()?);
    let after = disk_rates(dir.path())?;
    let numbers = moved.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    let [micros, commands, p50, p99] = numbers[..] else { return Err(format!("it answered {moved}").into()) };
    let rate = bytes / (micros as f64 / 1e6);
    println!(
        "disk: {:.0} MB/s before, {:.0} MB/s after ({} MiB and a sync); copied {:.0} MB/s before, {:.0} MB/s after",
        before.written / 1e6,
        after.written / 1e6,
        DISK_BYTES >> 20,
        before.copied / 1e6,
        after.copied / 1e6
    );
    println!(
        "moved: {:.1} s, {:.0} MB/s, {:.0} % of the disk's lower rate, {:.0} % of the lower at which it copies",
        micros as f64 / 1e6,
        rate / 1e6,
        rate / before.written.min(after.written) * 100.0,
        rate / before.copied.min(after.copied) * 100.0
    );
    let grown = |before: u64, peak: u64| peak.saturating_sub(before) as f64 / MIB;
    println!("memory: sender +{:.0} MiB, receiver +{:.0} MiB", grown(memory.0, peaks.0), grown(memory.1, peaks.1));
    println!("processor: sender {:.1} s, receiver {:.1} s", used.0.as_secs_f64(), used.1.as_secs_f64());
    println!("commands meanwhile: {commands}, p50 {p50} us, p99 {p99} us");
    end(vec![from, to])
}

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "--child") {
        let words: Vec<String> = words.collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let node = NodeId(words[1].parse()?);
        return runtime.block_on(child(node, &words[2], Path::new(&words[3]), words[4].parse()?));
    }
    measure(&settings(words)?)
}
