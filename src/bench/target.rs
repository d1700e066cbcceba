//! The cluster that is measured: one that runs, or one that is started for it and removed behind it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

use crate::demo::process;
use crate::demo::ready::Ready;
use crate::role::node::NodeRoleConfig;
use crate::signal::{LIFELINE, Lifeline};

/// The loopback addresses of a cluster that is started here: beside a demo that may run.
const LOOPBACK_BLOCK: &str = "77";
/// How long the cluster may take to start.
const START_DEADLINE: Duration = Duration::from_secs(300);
/// How long it may take to stop: frontends first, then the others, and each may take its whole time.
const STOP_DEADLINE: Duration = process::STOP_DEADLINE.saturating_mul(3);
const PAUSE: Duration = Duration::from_millis(100);

/// A cluster, and where its data is.
pub(crate) struct Target {
    ready: Ready,
    directory: PathBuf,
    own: Option<Own>,
}

/// What was started here.
struct Own {
    child: Child,
    lifeline: Lifeline,
    root: PathBuf,
}

/// A cluster that is started to be measured.
pub(crate) struct Fresh {
    /// Under which it is made; without it among temporary files.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) shards: u32,
    pub(crate) search: bool,
}

impl Target {
    /// The cluster of `ready_file`, or a new one.
    pub(crate) async fn open(ready_file: Option<PathBuf>, fresh: Fresh) -> anyhow::Result<Self> {
        match ready_file {
            Some(path) => {
                let ready = read_ready(&path)?.with_context(|| format!("{} is not there", path.display()))?;
                let directory = match fresh.data_dir {
                    Some(dir) => dir,
                    None => node_configs(&ready)?.first().context("the cluster has no node")?.data_dir.clone(),
                };
                Ok(Self { ready, directory, own: None })
            }
            None => Self::start(fresh).await,
        }
    }

    pub(crate) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// On the disk that holds the cluster's data.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the nodes serve their counters.
    pub(crate) fn metrics_addresses(&self) -> anyhow::Result<Vec<String>> {
        let configs = node_configs(&self.ready)?;
        Ok(configs.iter().filter_map(|config| config.metrics_listen).map(|address| address.to_string()).collect())
    }

    /// Stops and removes what was started here.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let Some(Own { mut child, lifeline, root }) = self.own else { return Ok(()) };
        drop(lifeline);
        if tokio::time::timeout(STOP_DEADLINE, child.wait()).await.is_err() {
            child.kill().await.context("kill the cluster")?;
        }
        std::fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))
    }

    async fn start(fresh: Fresh) -> anyhow::Result<Self> {
        let parent = fresh.data_dir.unwrap_or_else(std::env::temp_dir);
        let root = parent.join(format!("postrider-bench-{}", std::process::id()));
        let ready_file = root.join("ready.json");
        crate::files::make_directory(&root)?;
        let log_path = root.join("demo.log");
        let log = std::fs::File::create(&log_path).with_context(|| format!("open {}", log_path.display()))?;
        let (lifeline, stdin, pipe) = Lifeline::new().context("make a pipe")?;
        eprintln!("starting a cluster in {}", root.display());
        let mut child = Command::new(std::env::current_exe().context("find this binary")?)
            .args(["demo", "--no-sample", "--loopback-block", LOOPBACK_BLOCK, "--shards", &fresh.shards.to_string()])
            .args((!fresh.search).then_some("--no-search"))
            .arg("--data-dir")
            .arg(root.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .env(LIFELINE, pipe)
            .stdin(stdin)
            .stdout(log.try_clone().context("share the log file")?)
            .stderr(Stdio::from(log))
            .process_group(0)
            .spawn()
            .context("start the cluster")?;
        let until = tokio::time::Instant::now() + START_DEADLINE;
        loop {
            if let Some(ready) = read_ready(&ready_file)? {
                let directory = root.join("data");
                return Ok(Self { ready, directory, own: Some(Own { child, lifeline, root }) });
            }
            if let Some(status) = child.try_wait().context("look after the cluster")? {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                bail!("the cluster did not start ({status}):\n{log}");
            }
            if tokio::time::Instant::now() > until {
                bail!("the cluster did not start within {} s: see {}", START_DEADLINE.as_secs(), log_path.display());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn read_ready(path: &Path) -> anyhow::Result<Option<Ready>> {
    crate::files::read_json(path)
}

/// The configurations of the storage nodes, found by their command lines.
fn node_configs(ready: &Ready) -> anyhow::Result<Vec<NodeRoleConfig>> {
    let nodes = ready.regions.iter().flat_map(|region| &region.nodes);
    nodes
        .map(|node| {
            let path = format!("/proc/{}/cmdline", node.pid);
            let line =
                std::fs::read_to_string(&path).with_context(|| format!("read {path}: does node {} run?", node.id))?;
            let mut words = line.split('\0');
            let config = words.find(|word| *word == "--config").and_then(|_| words.next());
            crate::role::read(Path::new(config.with_context(|| format!("find the configuration in {path}"))?))
        })
        .collect()
}
