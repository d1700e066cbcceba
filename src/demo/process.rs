//! The processes of the demo: one of each role, started from this very binary, logged to a file, stopped together.
//!
//! Invariant: a process never outlives the demo (see [`crate::signal`]), and is never started again unless somebody asks:
//! a test that kills one means it.
//!
//! Logs are bounded: what is over [`LOG_BYTES_MAX`] is set aside as `log.old`, which takes the place of the one before.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Child;
use tokio::sync::mpsc;

use crate::files::{self, Access};
use crate::local::{self, Job, ProcessRecord, RECORDS};
use crate::signal::{LIFELINE, Lifeline};

/// How long a process may take to stop by itself before it is killed: a frontend's open SMTP transactions have 30 s, open
/// REST requests and deliveries 20 s of the same time (docs/api), and what waits for the disk [`crate::RUNTIME_SHUTDOWN_MAX`].
pub(crate) const STOP_DEADLINE: Duration = Duration::from_secs(35);
/// Deaths that nobody has looked at yet; there are fewer processes than that.
const DEATHS_MAX: usize = 1024;
/// What is shown of a log when its process died.
const LOG_TAIL_LINES: usize = 8;
/// The largest log that a process goes on with, bytes. Looked at when a process starts, and every [`LOG_LOOK_EVERY`].
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often it is looked for logs that have grown too large.
pub(crate) const LOG_LOOK_EVERY: Duration = Duration::from_secs(60);
/// Beside `log`: what was set aside of it.
const LOG_OLD: &str = "log.old";

/// A process that ended although nobody stopped it.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) job: Job,
    pub(crate) pid: u32,
    pub(crate) how: String,
}

struct Running {
    pid: u32,
    command: Vec<String>,
    log: PathBuf,
    lifeline: Option<Lifeline>,
    ended: tokio::sync::watch::Receiver<bool>,
    kill: mpsc::Sender<()>,
}

/// All of them.
pub(crate) struct Processes {
    root: PathBuf,
    program: PathBuf,
    running: BTreeMap<Job, Running>,
    deaths: mpsc::Sender<Death>,
}

impl Processes {
    /// None yet, and where deaths are reported.
    pub(crate) fn new(root: &Path) -> anyhow::Result<(Self, mpsc::Receiver<Death>)> {
        let program = std::env::current_exe().context("find this binary")?;
        let (deaths, receiver) = mpsc::channel(DEATHS_MAX);
        Ok((Self { root: root.to_owned(), program, running: BTreeMap::new(), deaths }, receiver))
    }

    /// Starts the process of `job` with the configuration `config`, in the network namespace if one is given, from another binary
    /// than this one if one is given. Its command line holds absolute paths only: whoever finds it can start the process again
    /// from anywhere.
    pub(crate) fn start(
        &mut self,
        job: Job,
        config: &Path,
        namespace: Option<&str>,
        program: Option<&Path>,
    ) -> anyhow::Result<u32> {
        if self.is_running(&job) {
            bail!("{} is running", job.name());
        }
        let name = job.name();
        let log = self.root.join(&name).join("log");
        bound_log(&log)?;
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let (lifeline, stdin, pipe) = Lifeline::new().context("make a pipe")?;
        // `ip netns exec` becomes the program that it starts, so the process id is the program's.
        let mut command: Vec<String> = namespace
            .map(|namespace| ["ip", "netns", "exec", namespace].map(str::to_owned).to_vec())
            .unwrap_or_default();
        command.push(program.unwrap_or(&self.program).to_string_lossy().into_owned());
        command.extend([job.subcommand().to_owned(), "--config".to_owned(), config.to_string_lossy().into_owned()]);
        let child = tokio::process::Command::new(&command[0])
            .args(&command[1..])
            .current_dir(&self.root)
            .env(LIFELINE, pipe)
            .stdin(stdin)
            .stdout(log_file.try_clone().context("share the log file")?)
            .stderr(Stdio::from(log_file))
            // Ctrl-C in the terminal is for the demo alone, which then stops the others in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let pid = child.id().with_context(|| format!("{name} ended at once: see {}", log.display()))?;
        let (ended_sender, ended) = tokio::sync::watch::channel(false);
        let (kill, kill_receiver) = mpsc::channel(1);
        tokio::spawn(watch_over(child, job.clone(), pid, kill_receiver, ended_sender, self.deaths.clone()));
        self.running.insert(job, Running { pid, command, log, lifeline: Some(lifeline), ended, kill });
        self.record()?;
        Ok(pid)
    }

    /// Whether it runs now.
    pub(crate) fn is_running(&self, job: &Job) -> bool {
        self.running.get(job).is_some_and(|running| !*running.ended.borrow())
    }

    /// The process id that it has, or had when it died.
    pub(crate) fn pid(&self, job: &Job) -> Option<u32> {
        self.running.get(job).map(|running| running.pid)
    }

    /// The last lines of a process's log, for people.
    pub(crate) fn log_tail(&self, job: &Job) -> String {
        let path = self.root.join(job.name()).join("log");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return format!("{}: {error}", path.display()),
        };
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        format!("{}:\n{}", path.display(), tail.join("\n"))
    }

    /// Stops those that `which` chooses, and waits until they are gone.
    pub(crate) async fn stop(&mut self, which: impl Fn(&Job) -> bool) {
        let chosen: Vec<Job> = self.running.keys().filter(|job| which(job)).cloned().collect();
        for job in &chosen {
            if let Some(running) = self.running.get_mut(job) {
                running.lifeline = None;
            }
        }
        let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
        for job in chosen {
            let Some(mut running) = self.running.remove(&job) else { continue };
            if tokio::time::timeout_at(deadline, running.ended.wait_for(|ended| *ended)).await.is_err() {
                eprintln!("{} (process {}) is killed: it does not stop by itself.", job.name(), running.pid);
                // Full or closed: it is being killed or gone already.
                let _ = running.kill.try_send(());
                // The sender goes without a word only with the runtime, and that with this very process.
                let _ = running.ended.wait_for(|ended| *ended).await;
            }
        }
    }

    /// Sets aside what is too much in the logs of all processes.
    pub(crate) fn bound_logs(&self) {
        for running in self.running.values() {
            if let Err(error) = bound_log(&running.log) {
                eprintln!("postrider: {error:#}");
            }
        }
    }

    /// Writes `processes.json`.
    fn record(&self) -> anyhow::Result<()> {
        let records: Vec<ProcessRecord> = self
            .running
            .iter()
            .map(|(job, running)| ProcessRecord {
                name: job.name(),
                pid: running.pid,
                directory: self.root.clone(),
                command: running.command.clone(),
                log: running.log.clone(),
            })
            .collect();
        files::write_atomically(&self.root.join(RECORDS), &serde_json::to_vec_pretty(&records)?, Access::Public)
    }
}

/// Copied and emptied, not renamed: its process has it open for appending. A line written between the two is lost.
fn bound_log(log: &Path) -> anyhow::Result<()> {
    let length = match std::fs::metadata(log) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("look at {}", log.display())),
    };
    if length <= LOG_BYTES_MAX {
        return Ok(());
    }
    let set_aside = || -> std::io::Result<()> {
        std::fs::copy(log, log.with_file_name(LOG_OLD))?;
        OpenOptions::new().write(true).open(log)?.set_len(0)
    };
    set_aside().with_context(|| format!("set aside {}, which is too large", log.display()))
}

/// Those processes of an earlier demo in `root` that still run, for people.
pub(super) fn remains(root: &Path) -> anyhow::Result<Vec<String>> {
    let records = local::processes(root)?;
    let running = records.iter().filter(|record| record.runs());
    Ok(running.map(|record| format!("{} (process {})", record.name, record.pid)).collect())
}

async fn watch_over(
    mut child: Child,
    job: Job,
    pid: u32,
    mut kill: mpsc::Receiver<()>,
    ended: tokio::sync::watch::Sender<bool>,
    deaths: mpsc::Sender<Death>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        Some(()) = kill.recv() => {
            // It fails only when the process is gone, which the wait then tells.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let how = match status {
        Ok(status) => describe(status),
        Err(error) => format!("was lost sight of: {error}"),
    };
    ended.send_replace(true);
    // Nobody listens any more when the demo itself is ending.
    let _ = deaths.send(Death { job, pid, how }).await;
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "stopped".into(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    use postrider_frontend::rest::limit::DRAIN_MAX;
    use postrider_frontend::smtp::SmtpLimits;
    use postrider_frontend::worker::WorkerTimings;

    use super::*;

    #[test]
    fn a_frontend_has_the_time_that_it_promises_to_finish_what_it_accepted() {
        for drain in [SmtpLimits::default().drain, WorkerTimings::default().drain, DRAIN_MAX] {
            assert!(drain + crate::RUNTIME_SHUTDOWN_MAX < STOP_DEADLINE, "{drain:?}");
        }
    }

    #[test]
    fn a_log_that_is_too_large_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        bound_log(&log).unwrap();
        std::fs::write(&log, "small").unwrap();
        bound_log(&log).unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "small");
        // As its process has it, across the cut.
        let mut appending = OpenOptions::new().append(true).open(&log).unwrap();
        appending.set_len(LOG_BYTES_MAX + 1).unwrap();
        bound_log(&log).unwrap();
        std::io::Write::write_all(&mut appending, b"next").unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "next");
        assert_eq!(std::fs::metadata(dir.path().join(LOG_OLD)).unwrap().len(), LOG_BYTES_MAX + 1);
    }

    #[test]
    fn only_a_process_with_the_recorded_command_line_remains() {
        let dir = tempfile::tempdir().unwrap();
        assert!(remains(dir.path()).unwrap().is_empty());
        let mut child = std::process::Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        let record = |command: &[&str]| {
            let command: Vec<&str> = command.to_vec();
            let record = serde_json::json!([
                { "name": "node-1", "pid": pid, "directory": "/", "command": command, "log": "/log" }
            ]);
            std::fs::write(dir.path().join(RECORDS), record.to_string()).unwrap();
            remains(dir.path()).unwrap()
        };
        let found = |command: &[&str]| {
            // Between fork and exec a child has its parent's command line.
            let until = std::time::Instant::now() + Duration::from_secs(10);
            while record(command).is_empty() && std::time::Instant::now() < until {
                std::thread::yield_now();
            }
            record(command)
        };
        let expected = [format!("node-1 (process {pid})")];
        assert_eq!(found(&["sleep", "1000"]), expected);
        assert_eq!(record(&["ip", "netns", "exec", "seoul", "sleep", "1000"]), expected);
        assert!(record(&["sleep", "1001"]).is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(record(&["sleep", "1000"]).is_empty());
    }
}
