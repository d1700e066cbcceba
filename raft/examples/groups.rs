//! Groups by the thousand: three processes, each with a replica of every group; what they cost while nobody uses them, and what
//! they do when somebody does.
//!
//! `cargo run --release -p postrider-raft --example groups -- [--groups 1,100,1000,5000] [--seconds 10] [--idle 30] [--tasks 64]
//! [--bytes 1000] [--dir DIR]` prints for each count of groups: seconds until all have a leader and until all are silent, memory
//! of a process per replica beyond that of an empty host, processor time while all are idle, and proposals per second
//! over all groups, next to what the disk itself does in the same run.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider_raft::{Committed, GroupId, Host, Machine, MachineError, MachineFactory, Member, NodeId, state_prefix};
use rocksdb::{DB, WriteBatch};
use support::{Failure, cpu, disk_syncs, members, serve};

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
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        })
        .await??;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["open", count] => {
                groups = count.parse()?;
                for group in 1..=groups {
                    host.open_replica(GroupId(group)).await?;
                }
                println!("done");
            }
            ["create"] => {
                // Each begins a third of them, and leads it at first.
                for group in (1..=groups).filter(|group| u64::from(group % 3) + 1 == node) {
                    host.create_group(GroupId(group), members.clone()).await?;
                }
                println!("done");
            }
            ["led"] => println!("{}", led(&host, groups).len()),
            ["quiet"] => {
                let is_quiet = |group: &u32| host.status(GroupId(*group)).is_some_and(|status| status.quiesced);
                println!("{}", (1..=groups).filter(is_quiet).count());
            }
            ["load", tasks, bytes, seconds] => {
                let count = load(&host, groups, tasks.parse()?, bytes.parse()?, seconds.parse()?).await?;
                println!("{count}");
            }
            // The parent has gone.
            _ => break,
        }
    }
    host.shutdown().await;
    Ok(())
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

// --- the one that measures them ------------------------------------------------------------------------------------

struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(node: usize, addresses: &str, dir: &Path) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--child", &node.to_string(), addresses])
            .arg(dir.join(node.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut process = Self { child, to, from: BufReader::new(from) };
        process.answer()?;
        Ok(process)
    }

    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        Ok(writeln!(self.to, "{line}")?)
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.from.read_line(&mut line)? {
            0 => Err("a process has ended".into()),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// Memory in RAM, bytes.
    fn memory(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? << 10)
    }

    /// Processor time.
    fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&self.child.id().to_string())
    }
}

/// Tells all, then hears all: they work side by side.
fn ask(processes: &mut [Process], line: &str) -> Result<Vec<String>, Failure> {
    for process in processes.iter_mut() {
        process.tell(line)?;
    }
    processes.iter_mut().map(Process::answer).collect()
}

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
    dir: Option<PathBuf>,
}

fn settings(mut words: impl Iterator<Item = String>) -> Result<Settings, Failure> {
    let groups = vec![1, 100, 1_000, 5_000];
    let mut settings = Settings { groups, seconds: 10, idle: 30, tasks: 64, bytes: 1_000, dir: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--groups" => settings.groups = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "--seconds" => settings.seconds = value.parse()?,
            "--idle" => settings.idle = value.parse()?,
            "--tasks" => settings.tasks = value.parse()?,
            "--bytes" => settings.bytes = value.parse()?,
            "--dir" => settings.dir = Some(value.into()),
            _ => return Err(format!("unknown: {word}").into()),
        }
    }
    Ok(settings)
}

fn measure(groups: u64, settings: &Settings) -> Result<String, Failure> {
    let dir = match &settings.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let syncs = disk_syncs(dir.path())?;
    let addresses: Vec<String> = members()?.into_values().map(|member| member.address).collect();
    let addresses = addresses.join(",");
    let mut processes = Vec::new();
    for node in 1..=3 {
        processes.push(Process::start(node, &addresses, dir.path())?);
    }
    let empty = processes.iter().map(Process::memory).sum::<Result<u64, _>>()?;
    let started = Instant::now();
    ask(&mut processes, &format!("open {groups}"))?;
    ask(&mut processes, "create")?;
    until(&mut processes, "led", groups)?;
    let elected = started.elapsed();
    let silent = until(&mut processes, "quiet", 3 * groups)?;
    let memory = processes.iter().map(Process::memory).sum::<Result<u64, _>>()?;
    let before = processes.iter().map(Process::cpu).sum::<Result<Duration, _>>()?;
    let idle = Instant::now();
    std::thread::sleep(Duration::from_secs(settings.idle));
    let used = processes.iter().map(Process::cpu).sum::<Result<Duration, _>>()? - before;
    let cores = used.as_secs_f64() / idle.elapsed().as_secs_f64() / 3.0;
    let line = format!("load {} {} {}", settings.tasks / 3 + 1, settings.bytes, settings.seconds);
    let proposals = ask(&mut processes, &line)?.iter().map(|count| count.parse::<u64>()).sum::<Result<u64, _>>()?;
    for mut process in processes {
        drop(process.to);
        process.child.wait()?;
    }
    Ok(format!(
        "{groups:>6}  {:>9.1}  {:>8.1}  {:>15.1}  {:>13.2}  {:>12.0}  {syncs:>12.0}",
        elected.as_secs_f64(),
        silent.as_secs_f64(),
        memory.saturating_sub(empty) as f64 / (3 * groups) as f64 / 1024.0,
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
    println!("groups  elected s  silent s  KiB per replica  idle core %  proposals/s  fdatasyncs/s");
    for groups in &settings.groups {
        println!("{}", measure(*groups, &settings)?);
    }
    Ok(())
}
