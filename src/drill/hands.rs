//! Who breaks and heals: the demo's own processes directly, or an operator's two commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cut::{self, Cut, Member};
use super::disk;
use super::fault::{Fault, Who};
use super::installation::{Installation, config_of, inner_listeners};
use crate::demo::control;
use crate::local::{self, Job, ProcessRecord};
use crate::role;
use crate::role::node::NodeRoleConfig;

/// How long a process may take to end: longer than a demo gives it.
const END_MAX: Duration = Duration::from_secs(45);
/// How long a killed process may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(10);
/// How long an operator's command may take.
const HOOK_MAX: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(20);
/// How often it is looked after a cut: connections come and go.
const CUT_LOOK_EVERY: Duration = Duration::from_millis(50);
/// A slow region runs so long of each [`SLOW_PERIOD`].
const SLOW_RUNS: Duration = Duration::from_millis(60);
const SLOW_PERIOD: Duration = Duration::from_millis(200);

/// Breaks and heals.
pub(super) enum Hands {
    Demo(Demo),
    Hooks(Hooks),
}

/// The processes of a demo.
pub(super) struct Demo {
    root: PathBuf,
    installation: Installation,
    /// What has to be done all the while something is broken.
    keeping: Option<JoinHandle<anyhow::Result<()>>>,
}

/// An operator's commands.
pub(super) struct Hooks {
    pub(super) break_command: String,
    pub(super) heal_command: String,
    pub(super) drill: String,
}

impl Hands {
    pub(super) fn of_demo(root: &Path, installation: Installation) -> Self {
        Hands::Demo(Demo { root: root.to_owned(), installation, keeping: None })
    }

    /// Whether this can be broken here at all: said before anything is.
    pub(super) async fn check(&self, fault: &Fault) -> anyhow::Result<()> {
        let Hands::Demo(demo) = self else { return Ok(()) };
        match fault {
            Fault::Cut { .. } => cut::check(&demo.members()?),
            Fault::FullDisk { node } => disk::check(&demo.data_dir(*node)?).await,
            _ => Ok(()),
        }
    }

    /// Breaks it.
    pub(super) async fn break_it(&mut self, fault: &Fault) -> anyhow::Result<()> {
        let broken = match self {
            Hands::Demo(demo) => demo.break_it(fault).await,
            Hands::Hooks(hooks) => hooks.run(&hooks.break_command, fault, None).await,
        };
        broken.with_context(|| format!("break: {fault}"))
    }

    /// Puts it right, whatever has become of it meanwhile; also what another process broke. `program`: what is started again is started from
    /// this binary.
    pub(super) async fn heal(&mut self, fault: &Fault, program: Option<&Path>) -> anyhow::Result<()> {
        let healed = match self {
            Hands::Demo(demo) => demo.heal(fault, program).await,
            Hands::Hooks(hooks) => hooks.run(&hooks.heal_command, fault, program).await,
        };
        healed.with_context(|| format!("heal: {fault}"))
    }
}

impl Hooks {
    /// The fault is in the environment; an exit code other than 0 is a failure, and what the command says is the reason.
    async fn run(&self, command: &str, fault: &Fault, program: Option<&Path>) -> anyhow::Result<()> {
        let who = fault.who();
        let (node, region) = match &who {
            Who::Node(id) => (id.to_string(), String::new()),
            Who::Frontend(region) | Who::Store(region) | Who::Dns(region) | Who::Region(region) => {
                (String::new(), region.clone())
            }
        };
        let ways = match fault {
            Fault::Cut { ways, .. } => ways.name(),
            _ => "",
        };
        let run = Command::new("sh")
            .args(["-c", command])
            .env("POSTRIDER_DRILL", &self.drill)
            .env("POSTRIDER_FAULT", fault.name())
            .env("POSTRIDER_ROLE", who.role())
            .env("POSTRIDER_NODE", node)
            .env("POSTRIDER_REGION", region)
            .env("POSTRIDER_WAYS", ways)
            .env("POSTRIDER_BINARY", program.unwrap_or_else(|| Path::new("")))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(HOOK_MAX, run)
            .await
            .with_context(|| format!("{command}: does not end within {} s", HOOK_MAX.as_secs()))?
            .with_context(|| format!("run {command}"))?;
        ensure!(
            output.status.success(),
            "{command}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

impl Demo {
    async fn break_it(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill { who } => self.end(who, Signal::KILL, GONE_MAX).await,
            Fault::Stop { who } => self.end(who, Signal::TERM, END_MAX).await,
            Fault::Freeze { who } => self.signal(who, Signal::STOP),
            Fault::Slow { region } => {
                self.keep(tokio::spawn(keep_slow(self.same(), Who::Region(region.clone()))));
                Ok(())
            }
            Fault::Cut { region, ways } => {
                let mut cut = Cut::new(region, *ways, inner_listeners(&self.root, &self.installation.jobs())?);
                cut.keep(&self.members()?)?;
                self.keep(tokio::spawn(keep_cut(self.same(), cut)));
                Ok(())
            }
            Fault::FullDisk { node } => {
                let data = self.data_dir(*node)?;
                self.end(&Who::Node(*node), Signal::TERM, END_MAX).await?;
                disk::put_on_small(&data).await?;
                disk::rely_on_small(&data)?;
                self.start(&Job::Node { id: *node }, None).await?;
                tokio::task::block_in_place(|| disk::fill(&data))
            }
            // The cluster does it, not its processes.
            Fault::Drain { .. } => Ok(()),
        }
    }

    async fn heal(&mut self, fault: &Fault, program: Option<&Path>) -> anyhow::Result<()> {
        // What kept it broken ends first; why it ended before, if it did, is told after everything is right again.
        let kept = match self.keeping.take() {
            Some(task) => {
                task.abort();
                task.await
            }
            None => Ok(Ok(())),
        };
        match fault {
            Fault::Kill { who } | Fault::Stop { who } => {
                for job in self.jobs(who)? {
                    if !self.record(&job)?.is_some_and(|record| record.runs()) {
                        self.start(&job, program).await?;
                    }
                }
            }
            Fault::Freeze { who } => self.signal(who, Signal::CONT)?,
            Fault::Slow { region } => self.signal(&Who::Region(region.clone()), Signal::CONT)?,
            Fault::Cut { .. } => tokio::task::block_in_place(|| cut::heal(&self.members()?))?,
            Fault::FullDisk { node } => {
                let data = self.data_dir(*node)?;
                if disk::is_small(&data)? {
                    disk::free(&data)?;
                    self.end(&Who::Node(*node), Signal::TERM, END_MAX).await?;
                    disk::put_back(&data).await?;
                }
                let job = Job::Node { id: *node };
                if !self.record(&job)?.is_some_and(|record| record.runs()) {
                    self.start(&job, None).await?;
                }
            }
            Fault::Drain { .. } => {}
        }
        match kept {
            Ok(Err(error)) => Err(error.context("the drill could not keep it broken")),
            // Ended by us.
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => Err(error).context("what kept it broken"),
            Ok(Ok(())) => Ok(()),
        }
    }

    /// For a task that goes on beside.
    fn same(&self) -> Self {
        Self { root: self.root.clone(), installation: self.installation.clone(), keeping: None }
    }

    fn keep(&mut self, task: JoinHandle<anyhow::Result<()>>) {
        if let Some(before) = self.keeping.replace(task) {
            before.abort();
        }
    }

    async fn start(&self, job: &Job, program: Option<&Path>) -> anyhow::Result<()> {
        match control::restart(&self.root, job, program).await {
            Ok(_) => Ok(()),
            // A demo with --supervise was faster.
            Err(_) if self.record(job)?.is_some_and(|record| record.runs()) => Ok(()),
            Err(error) => Err(error.context(format!("start {} again", job.name()))),
        }
    }

    /// Sends a signal that ends, and waits until all are gone.
    async fn end(&self, who: &Who, signal: Signal, longest: Duration) -> anyhow::Result<()> {
        let records = self.records(who)?;
        for record in records.iter().filter(|record| record.runs()) {
            send(record, signal)?;
            if signal == Signal::TERM {
                // One that is frozen would never hear of it.
                send(record, Signal::CONT)?;
            }
        }
        let until = Instant::now() + longest;
        while let Some(left) = records.iter().find(|record| record.runs()) {
            ensure!(Instant::now() < until, "{} (process {}) does not end", left.name, left.pid);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn signal(&self, who: &Who, signal: Signal) -> anyhow::Result<()> {
        self.records(who)?.iter().filter(|record| record.runs()).try_for_each(|record| send(record, signal))
    }

    /// Which processes are meant.
    fn jobs(&self, who: &Who) -> anyhow::Result<Vec<Job>> {
        Ok(match who {
            Who::Node(id) => vec![Job::Node { id: *id }],
            Who::Frontend(region) => vec![Job::Frontend { region: region.clone() }],
            Who::Store(region) => vec![Job::Store { region: region.clone() }],
            Who::Dns(region) => vec![Job::Dns { region: region.clone() }],
            Who::Region(region) => {
                let one = Installation {
                    domain: None,
                    admin_token: None,
                    regions: vec![self.installation.region(region)?.clone()],
                };
                one.jobs()
            }
        })
    }

    fn records(&self, who: &Who) -> anyhow::Result<Vec<ProcessRecord>> {
        let jobs = self.jobs(who)?;
        let known = local::processes(&self.root)?;
        Ok(known.into_iter().filter(|record| record.job().is_some_and(|job| jobs.contains(&job))).collect())
    }

    fn record(&self, job: &Job) -> anyhow::Result<Option<ProcessRecord>> {
        Ok(self.records(&Who::from(job))?.into_iter().next())
    }

    /// All processes that run, each with its region.
    fn members(&self) -> anyhow::Result<Vec<Member>> {
        let mut members = Vec::new();
        for region in &self.installation.regions {
            for record in self.records(&Who::Region(region.name.clone()))?.iter().filter(|record| record.runs()) {
                members.push(Member { pid: record.pid, region: region.name.clone() });
            }
        }
        Ok(members)
    }

    fn data_dir(&self, node: u64) -> anyhow::Result<PathBuf> {
        let config: NodeRoleConfig = role::read(&config_of(&self.root, &Job::Node { id: node }))?;
        Ok(config.data_dir)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(task) = self.keeping.take() {
            task.abort();
        }
    }
}

/// Stops and starts the processes until it is ended; whoever ends it starts them.
async fn keep_slow(demo: Demo, who: Who) -> anyhow::Result<()> {
    loop {
        demo.signal(&who, Signal::STOP)?;
        tokio::time::sleep(SLOW_PERIOD - SLOW_RUNS).await;
        demo.signal(&who, Signal::CONT)?;
        tokio::time::sleep(SLOW_RUNS).await;
    }
}

/// Looks after the connections until it is ended; whoever ends it takes the filters off.
async fn keep_cut(demo: Demo, mut cut: Cut) -> anyhow::Result<()> {
    loop {
        tokio::time::sleep(CUT_LOOK_EVERY).await;
        tokio::task::block_in_place(|| cut.keep(&demo.members()?))?;
    }
}

fn send(record: &ProcessRecord, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("{} has no process id", record.name))?;
    match kill_process(pid, signal) {
        // It is gone already.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => bail!("signal {} (process {}): {error}", record.name, record.pid),
    }
}
