//! Groups by the thousand: three processes, each with a replica of every group; what they cost while nobody uses them, and what
//! they do when somebody does.
//!
//! `cargo run --release -p postrider-raft --example groups -- [--groups 1,100,1000,5000] [--seconds 10] [--idle 30] [--tasks 64]
//! [--bytes 1000] [--dir DIR]` prints for each count of groups: seconds until all have a leader, until all are silent, and until all
//! are parked; memory of a process per replica beyond that of an empty host, when all are silent, when all have been parked for as long as
//! they are left idle, and when they have been used and are parked again; processor time while all are idle; and proposals per second over
//! all groups, of which each wakes one that is parked, next to what the disk itself does in the same run.
//!
//! With `--kill parked`, `silent` or `awake` it prints instead what the loss of a process does: all groups are brought into that state, the
//! process that leads a third of them is killed, and how long it takes until each of its groups has a leader again, and with `--writes 1` until
//! each has also taken a command, which is proposed as soon as there is one.
//!
//! With `--latency COUNT` it prints instead how long a command takes, one after the other on an idle cluster, next to an
//! fdatasync and a loopback round trip in the same run.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider_raft::{Committed, GroupId, Host, Machine, MachineError, MachineFactory, Member, NodeId, state_prefix};
use rocksdb::{DB, WriteBatch};
use support::process::{Process, ask, end, next_line};
use support::{Failure, MADE, disk_sync_times, disk_syncs, each_option, loopback_times, members, serve};

/// Keeps the last command of a group.
struct Keep {
    group: GroupId,
}

impl Machine for Keep {
    fn apply(&self, _: &DB, batch: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        for command in commands {
            batch.put(state_prefix(self.group), &command.payload);
        }
        Ok(vec![Bytes::new(); commands.len()])
    }

    fn applied(&self, _: u64) {}

    fn restored(&self, _: u64) {}
}

struct KeepAll;

impl MachineFactory for KeepAll {
    fn machine(&self, group: GroupId) -> Arc<dyn Machine> {
        Arc::new(Keep { group })
    }
}

// --- one of the three ----------------------------------------------------------------------------------------------

/// Does what it is told, line by line, and answers each line with one.
async fn child(node: u64, addresses: &str, dir: &Path) -> Result<(), Failure> {
    let member = |address: &str| Member { address: address.to_owned(), region: "r".to_owned() };
    let members: BTreeMap<NodeId, Member> = (1..).map(NodeId).zip(addresses.split(',').map(member)).collect();
    let host = serve(NodeId(node), &members[&NodeId(node)], dir, Arc::new(KeepAll)).await?;
    println!("ready");
    let mut groups = 0;
    let gains = Gains::default();
    loop {
        let line = next_line().await?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["open", count] => {
                groups = count.parse()?;
                for group in 1..=groups {
                    host.open_replica(GroupId(group), MADE).await?;
                }
                println!("done");
            }
            ["create"] => {
                // Each begins a third of them, and leads it at first.
                for group in (1..=groups).filter(|group| u64::from(group % 3) + 1 == node) {
                    host.create_group(GroupId(group), MADE, members.clone()).await?;
                }
                println!("done");
            }
            ["led"] => println!("{}", led(&host, groups).len()),
            ["quiet"] => {
                let is_quiet = |group: &u32| host.status(GroupId(*group)).is_some_and(|status| status.quiesced);
                println!("{}", (1..=groups).filter(is_quiet).count());
            }
            ["parked"] => {
                let is_parked = |group: &u32| host.status(GroupId(*group)).is_some_and(|status| status.parked);
                println!("{}", (1..=groups).filter(is_parked).count());
            }
            ["gain", writes] => {
                println!("{}", gains.note(&host, groups, writes == "1"));
            }
            ["gained"] => println!("{}", gains.len()),
            ["gains"] => println!("{}", gains.print()),
            ["flush"] => {
                host.flush().await?;
                println!("done");
            }
            ["load", tasks, bytes, seconds] => {
                let count = load(&host, groups, tasks.parse()?, bytes.parse()?, seconds.parse()?).await?;
                println!("{count}");
            }
            ["latency", bytes, count] => {
                let times = latencies(&host, groups, bytes.parse()?, count.parse()?).await?;
                println!("{}", times.iter().map(|time| time.as_nanos().to_string()).collect::<Vec<_>>().join(" "));
            }
            // The parent has gone.
            _ => break,
        }
    }
    host.shutdown().await;
    Ok(())
}

/// When this process got the lead of groups that others led before.
#[derive(Clone, Default)]
struct Gains(Arc<Mutex<Vec<Duration>>>);

/// How often each group is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Gains {
    /// Notes from now on when a group is led here, or with `writes` has taken a command. Returns how many are led here already.
    fn note(&self, host: &Host, groups: u32, writes: bool) -> usize {
        let began = Instant::now();
        let before: BTreeSet<GroupId> = led(host, groups).into_iter().collect();
        let others: Vec<GroupId> = (1..=groups).map(GroupId).filter(|group| !before.contains(group)).collect();
        let (gains, host) = (self.clone(), host.clone());
        tokio::spawn(async move {
            let mut left = others;
            loop {
                let leads = |group: &GroupId| host.status(*group).is_some_and(|status| status.leads());
                let (new, rest) = left.into_iter().partition::<Vec<_>, _>(leads);
                left = rest;
                for group in new {
                    let (gains, host) = (gains.clone(), host.clone());
                    tokio::spawn(async move {
                        while writes && host.propose(group, Bytes::from_static(&[7; 100])).await.is_err() {
                            tokio::time::sleep(LOOK_EVERY).await;
                        }
                        gains.lock().push(began.elapsed());
                    });
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
        before.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Duration>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn print(&self) -> String {
        self.lock().iter().map(|time| time.as_micros().to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn led(host: &Host, groups: u32) -> Vec<GroupId> {
    let leads = |group: &GroupId| host.status(*group).is_some_and(|status| status.leads());
    (1..=groups).map(GroupId).filter(leads).collect()
}

/// Proposes to the groups that are led here, one after the other.
async fn load(host: &Host, groups: u32, tasks: usize, bytes: usize, seconds: u64) -> Result<usize, Failure> {
    let led = Arc::new(led(host, groups));
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut running = Vec::new();
    for task in 0..tasks {
        let (host, led) = (host.clone(), led.clone());
        running.push(tokio::spawn(async move {
            let (mut count, mut at) = (0, task);
            while Instant::now() < until && !led.is_empty() {
                // Another replica may lead by now.
                count += usize::from(host.propose(led[at % led.len()], Bytes::from(vec![7; bytes])).await.is_ok());
                at += tasks;
            }
            count
        }));
    }
    let mut count = 0;
    for task in running {
        count += task.await?;
    }
    Ok(count)
}

/// How long each of `count` commands to the first group led here takes.
async fn latencies(host: &Host, groups: u32, bytes: usize, count: usize) -> Result<Vec<Duration>, Failure> {
    let Some(group) = led(host, groups).first().copied() else { return Ok(Vec::new()) };
    let payload = Bytes::from(vec![7; bytes]);
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        host.propose(group, payload.clone()).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

// --- the one that measures them ------------------------------------------------------------------------------------

/// Asks until the sum of the answers is `wanted`; how long that took.
fn until(processes: &mut [Process], line: &str, wanted: u64) -> Result<Duration, Failure> {
    let started = Instant::now();
    loop {
        let answers = ask(processes, line)?;
        let sum = answers.iter().map(|answer| answer.parse::<u64>()).sum::<Result<u64, _>>()?;
        if sum >= wanted {
            return Ok(started.elapsed());
        }
        if started.elapsed() > Duration::from_secs(600) {
            return Err(format!("{line}: {answers:?} of {wanted} after ten minutes").into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Settings {
    groups: Vec<u64>,
    seconds: u64,
    idle: u64,
    tasks: usize,
    bytes: usize,
    /// Commands whose latency is measured instead.
    latency: usize,
    /// In which state the groups lose a process, if that is measured instead.
    kill: Option<String>,
    /// Whether each has to take a command.
    writes: bool,
    dir: Option<PathBuf>,
}

fn settings(words: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let groups = vec![1, 100, 1_000, 5_000];
    let mut settings = Settings {
        groups,
        seconds: 10,
        idle: 30,
        tasks: 64,
        bytes: 1_000,
        latency: 0,
        kill: None,
        writes: false,
        dir: None,
    };
    each_option(words, |word, value| {
        match word {
            "--groups" => settings.groups = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--seconds" => settings.seconds = value.parse()?,
            "--idle" => settings.idle = value.parse()?,
            "--tasks" => settings.tasks = value.parse()?,
            "--bytes" => settings.bytes = value.parse()?,
            "--latency" => settings.latency = value.parse()?,
            "--kill" if ["parked", "silent", "awake"].contains(&value.as_str()) => settings.kill = Some(value),
            "--writes" => settings.writes = value == "1",
            "--dir" => settings.dir = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(settings)
}

fn directory(settings: &Settings) -> Result<tempfile::TempDir, Failure> {
    Ok(match &settings.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    })
}

fn start(dir: &Path) -> Result<Vec<Process>, Failure> {
    let addresses: Vec<String> = members()?.into_values().map(|member| member.address).collect();
    let addresses = addresses.join(",");
    let child = |node: u64| {
        let dir = dir.join(node.to_string());
        Process::start(&["--child", &node.to_string(), &addresses, &dir.to_string_lossy()])
    };
    (1..=3).map(child).collect()
}

/// Kills the first of three processes.
fn measure_loss(groups: u64, state: &str, settings: &Settings) -> Result<String, Failure> {
    let dir = directory(settings)?;
    let mut processes = start(dir.path())?;
    ask(&mut processes, &format!("open {groups}"))?;
    ask(&mut processes, "create")?;
    until(&mut processes, "led", groups)?;
    if state != "awake" {
        until(&mut processes, "quiet", 3 * groups)?;
    }
    if state == "parked" {
        until(&mut processes, "parked", 3 * groups)?;
    }
    let lost = processes.remove(0);
    let line = format!("gain {}", u8::from(settings.writes));
    let led = ask(&mut processes, &line)?.iter().map(|led| led.parse::<u64>()).sum::<Result<u64, _>>()?;
    let leads = groups.saturating_sub(led);
    lost.kill()?;
    until(&mut processes, "gained", leads)?;
    let answers = ask(&mut processes, "gains")?;
    let micros = answers.iter().flat_map(|answer| answer.split_whitespace()).map(str::parse::<u64>);
    let mut times = micros.collect::<Result<Vec<_>, _>>()?;
    times.sort_unstable();
    let parked = ask(&mut processes, "parked")?.join(" ");
    let at = |share: f64| {
        let place = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(place).map_or(f64::NAN, |micros| *micros as f64 / 1e6)
    };
    end(processes)?;
    Ok(format!(
        "{groups:>6}  {leads:>5}  {:>6.2}  {:>6.2}  {:>6.2}  {:>6.2}  {parked:>16}",
        at(0.0),
        at(0.5),
        at(0.99),
        at(1.0),
    ))
}

fn measure_latency(settings: &Settings) -> Result<(), Failure> {
    let dir = directory(settings)?;
    let mut processes = start(dir.path())?;
    ask(&mut processes, "open 1")?;
    ask(&mut processes, "create")?;
    until(&mut processes, "led", 1)?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let at = |times: &[Duration], share: f64| micros(times[((times.len() - 1) as f64 * share) as usize]);
    println!(
        "     commit p50  p99 us  fdatasync p50  p99 us  round trip p50  p99 us  commit / (fdatasync + round trip)"
    );
    for _ in 0..ROUNDS {
        let syncs = disk_sync_times(dir.path())?;
        let trips = loopback_times(settings.bytes, TRIPS)?;
        let answers = ask(&mut processes, &format!("latency {} {}", settings.bytes, settings.latency))?;
        let nanos = answers.iter().flat_map(|answer| answer.split_whitespace()).map(str::parse::<u64>);
        let mut commits = nanos.map(|nanos| nanos.map(Duration::from_nanos)).collect::<Result<Vec<_>, _>>()?;
        commits.sort_unstable();
        let (sync, trip, commit) = (at(&syncs, 0.5), at(&trips, 0.5), at(&commits, 0.5));
        println!(
            "{commit:>15.0}  {:>6.0}  {sync:>13.0}  {:>6.0}  {trip:>14.0}  {:>6.0}  {:>33.2}",
            at(&commits, 0.99),
            at(&syncs, 0.99),
            at(&trips, 0.99),
            commit / (sync + trip),
        );
    }
    end(processes)
}

/// The disk is not the same from one moment to the next: everything is measured in turns.
const ROUNDS: usize = 5;
/// Round trips over loopback.
const TRIPS: usize = 5_000;

fn measure(groups: u64, settings: &Settings) -> Result<String, Failure> {
    let dir = directory(settings)?;
    let syncs = disk_syncs(dir.path())?;
    let mut processes = start(dir.path())?;
    let empty = processes.iter().map(Process::memory).sum::<Result<u64, _>>()?;
    let started = Instant::now();
    ask(&mut processes, &format!("open {groups}"))?;
    ask(&mut processes, "create")?;
    until(&mut processes, "led", groups)?;
    let elected = started.elapsed();
    let silent = until(&mut processes, "quiet", 3 * groups)?;
    let memory = |processes: &[Process]| -> Result<f64, Failure> {
        let bytes = processes.iter().map(Process::memory).sum::<Result<u64, _>>()?;
        Ok(bytes.saturating_sub(empty) as f64 / (3 * groups) as f64 / 1024.0)
    };
    let awake = memory(&processes)?;
    let parking = until(&mut processes, "parked", 3 * groups)?;
    let before = processes.iter().map(Process::cpu).sum::<Result<Duration, _>>()?;
    let idle = Instant::now();
    std::thread::sleep(Duration::from_secs(settings.idle));
    let used = processes.iter().map(Process::cpu).sum::<Result<Duration, _>>()? - before;
    let cores = used.as_secs_f64() / idle.elapsed().as_secs_f64() / 3.0;
    let parked = memory(&processes)?;
    let line = format!("load {} {} {}", settings.tasks / 3 + 1, settings.bytes, settings.seconds);
    let proposals = ask(&mut processes, &line)?.iter().map(|count| count.parse::<u64>()).sum::<Result<u64, _>>()?;
    // As it would within ten minutes: a leader with a long log is not parked.
    ask(&mut processes, "flush")?;
    until(&mut processes, "parked", 3 * groups)?;
    std::thread::sleep(Duration::from_secs(settings.idle));
    let used = memory(&processes)?;
    end(processes)?;
    Ok(format!(
        "{groups:>6}  {:>9.1}  {:>8.1}  {:>8.1}  {awake:>10.1}  {parked:>10.1}  {used:>8.1}  {:>11.2}  {:>11.0}  {syncs:>12.0}",
        elected.as_secs_f64(),
        silent.as_secs_f64(),
        parking.as_secs_f64(),
        cores * 100.0,
        proposals as f64 / settings.seconds as f64,
    ))
}

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "--child") {
        let words: Vec<String> = words.collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(child(words[1].parse()?, &words[2], Path::new(&words[3])));
    }
    let settings = settings(words)?;
    if settings.latency > 0 {
        return measure_latency(&settings);
    }
    if let Some(state) = &settings.kill {
        println!("groups   lost   first     p50     p99   all s  parked afterwards");
        for groups in &settings.groups {
            println!("{}", measure_loss(*groups, state, &settings)?);
        }
        return Ok(());
    }
    println!(
        "groups  elected s  silent s  parked s  KiB silent  KiB parked  KiB used  idle core %  proposals/s  fdatasyncs/s"
    );
    for groups in &settings.groups {
        println!("{}", measure(*groups, &settings)?);
    }
    Ok(())
}
