//! `postrider demo`: three regions on this machine, or two zones of three each, every role a process of its own.
//!
//! What starts first: object stores and storage nodes together; then the cluster is made, once in a directory; then the
//! frontends; then samples. Everything is kept in the data directory and is there again at the next start.

mod accounts;
mod cluster;
mod config;
pub(crate) mod control;
pub(crate) mod layout;
pub(crate) mod process;
pub(crate) mod ready;
mod samples;
mod screen;
mod secrets;

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use postrider_api::env::{Clock, Entropy, SystemClock, SystemEntropy};

use self::accounts::Samples;
use self::cluster::Cluster;
use self::control::{Control, Errand};
use self::layout::{Layout, Wish};
use self::process::{Death, LOG_LOOK_EVERY};
use self::ready::Ready;
use self::screen::Progress;
use crate::files;
use crate::local::Job;
use crate::signal::Stop;
use crate::telemetry::traces::TracesConfig;

/// Steps of a start, samples included.
const STEPS: u64 = 8;
/// Pause before a process that died is started again by itself.
const REVIVE_PAUSE: Duration = Duration::from_secs(1);

/// Options of `postrider demo`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArguments {
    #[command(subcommand)]
    action: Option<DemoAction>,
    /// Where everything is kept [default: $XDG_STATE_HOME/postrider/demo or ~/.local/state/postrider/demo].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Written once everything serves and every shard is whole: addresses, process ids and passwords as JSON.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Residency zones, 1 or 2, each with three regions of its own and a domain [default: 1, or what the directory has].
    #[arg(long, value_name = "N")]
    zones: Option<u32>,
    /// Mailbox shards of each zone [default: 6, or what the directory has].
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Storage nodes in each region [default: 1, or what the directory has].
    #[arg(long, value_name = "N")]
    nodes_per_region: Option<u32>,
    /// Further regions of the first zone, up to 3, with nodes and a store that hold nothing: for shards to move to.
    #[arg(long, value_name = "N", hide = true)]
    spare_regions: Option<u32>,
    /// Send mail to the outside: this DNS server is asked for everything there, and loopback addresses are delivered to as well. Without it
    /// such mail waits.
    #[arg(long, value_name = "IP:PORT")]
    resolver: Option<SocketAddr>,
    /// Have every process send traces to this collector, by OTLP over gRPC.
    #[arg(long, value_name = "URL")]
    traces: Option<String>,
    /// The share of traces that are kept whatever becomes of them; what is slow or fails is kept in any case.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, requires = "traces")]
    traces_rate: f64,
    /// Start a process again by itself when it dies.
    #[arg(long)]
    supervise: bool,
    /// Leave every shard where it is, also when a node is gone for good.
    #[arg(long)]
    no_balance: bool,
    /// No sample accounts and no sample mail.
    #[arg(long)]
    no_sample: bool,
    /// The storage nodes keep no search indexes: what these cost is measured so.
    #[arg(long, hide = true)]
    no_search: bool,
    /// Listen on 127.N.1.1, 127.N.2.1 and 127.N.3.1, with two zones up to 127.N.6.1, so that several demos fit on one machine.
    #[arg(long, value_name = "N", default_value_t = 0, hide = true)]
    loopback_block: u8,
    /// Run each region in the network namespace that has its name, at 10.240.0.1, .2, .3 and so on: a wide-area network on one
    /// machine. The namespaces must be there, and this command must be able to reach them.
    #[arg(long, hide = true)]
    namespaces: bool,
}

#[derive(Debug, Subcommand)]
enum DemoAction {
    /// Start a process of the running demo again, after it was killed.
    Restart {
        /// The data directory of the running demo [default: as for `demo`].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// What kind of process.
        what: Kind,
        /// Which one: a node's id, or a region's name.
        which: String,
        /// Start it from this binary, and not from the demo's own.
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Start one storage node more in a region of the running demo. It joins by itself, and gets its share of the shards.
    AddNode {
        /// The data directory of the running demo [default: as for `demo`].
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The region.
        region: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Node,
    Frontend,
    Store,
    Dns,
}

/// Runs the demo until it is told to stop.
pub(crate) async fn run(arguments: DemoArguments) -> anyhow::Result<ExitCode> {
    if let Some(action) = arguments.action {
        return act(action).await;
    }
    let root = arguments.data_dir.clone().map_or_else(layout::default_data_dir, Ok)?;
    files::make_directory(&root)?;
    // Before anything else: a ready file that is there names processes that are gone, unless a demo runs.
    let _lock = lock(&root)?;
    if let Some(path) = &arguments.ready_file {
        remove_if_there(path)?;
    }
    let mut stop = Stop::listen()?;
    let wish = Wish {
        zones: arguments.zones,
        shards: arguments.shards,
        nodes_per_region: arguments.nodes_per_region,
        spare_regions: arguments.spare_regions,
        block: arguments.loopback_block,
        namespaces: arguments.namespaces,
    };
    let mut layout = Layout::open(&root, &wish)?;
    layout.resolver = arguments.resolver;
    layout.traces = arguments.traces.clone().map(|endpoint| TracesConfig::of_demo(endpoint, arguments.traces_rate));
    layout.search = !arguments.no_search;
    layout.balances = !arguments.no_balance;
    let clock = SystemClock::shared();
    let entropy = SystemEntropy::shared();
    let mut cluster = Cluster::prepare(layout.clone(), clock.clone(), entropy.clone())?;
    let result = serve(&arguments, &layout, &mut cluster, &mut stop, (clock, entropy)).await;
    cluster.stop().await;
    if let Some(path) = &arguments.ready_file {
        // It would name processes that are gone.
        remove_if_there(path)?;
    }
    result
}

/// Asks the demo that runs.
async fn act(action: DemoAction) -> anyhow::Result<ExitCode> {
    let root = |given: Option<PathBuf>| given.map_or_else(layout::default_data_dir, Ok);
    match action {
        DemoAction::Restart { data_dir, what, which, binary } => {
            let kind = match what {
                Kind::Node => "node",
                Kind::Frontend => "frontend",
                Kind::Store => "store",
                Kind::Dns => "dns",
            };
            let job = Job::parse(kind, &which).with_context(|| format!("there is no {kind} {which}"))?;
            let binary = binary
                .map(|path| path.canonicalize().with_context(|| format!("find {}", path.display())))
                .transpose()?;
            let pid = control::restart(&root(data_dir)?, &job, binary.as_deref()).await?;
            println!("{kind} {which} runs as process {pid}");
        }
        DemoAction::AddNode { data_dir, region } => {
            let (id, pid) = control::add_node(&root(data_dir)?, &region).await?;
            println!("node {id} runs in {region} as process {pid}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    arguments: &DemoArguments,
    layout: &Layout,
    cluster: &mut Cluster,
    stop: &mut Stop,
    (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new(STEPS);
    let started = tokio::select! {
        started = start(arguments, layout, cluster, &mut progress, clock, entropy) => started,
        reason = stop.wait() => {
            progress.finish();
            eprintln!("Stopping: {reason}.");
            return Ok(ExitCode::SUCCESS);
        }
    };
    progress.finish();
    let accounts = started?;
    let mut control = Control::open(&layout.root)?;
    let publish = |cluster: &Cluster| match &arguments.ready_file {
        Some(path) => {
            Ready::new(cluster.layout(), cluster.processes(), cluster.admin_token(), accounts.clone()).write(path)
        }
        None => Ok(()),
    };
    screen::print_guide(layout, &accounts, &binary_name());
    publish(cluster)?;
    let mut log_look = tokio::time::interval(LOG_LOOK_EVERY);
    loop {
        tokio::select! {
            // To copy a log takes a moment: other tasks of this thread go elsewhere.
            _ = log_look.tick() => tokio::task::block_in_place(|| cluster.processes().bound_logs()),
            reason = stop.wait() => {
                eprintln!("Stopping: {reason}.");
                return Ok(ExitCode::SUCCESS);
            }
            death = cluster.next_death() => {
                report(&death, layout);
                if arguments.supervise {
                    revive(cluster, &death.job).await;
                    publish(cluster)?;
                }
            }
            Some(request) = control.next() => {
                let outcome = run_errand(cluster, &request.errand).await;
                if outcome.is_ok() {
                    publish(cluster)?;
                }
                request.answer(outcome.map_err(|error| format!("{error:#}"))).await;
            }
        }
    }
}

/// Does what somebody has asked for; answers what he is told.
async fn run_errand(cluster: &mut Cluster, errand: &Errand) -> anyhow::Result<String> {
    match errand {
        Errand::Restart { job, program } => {
            let pid = cluster.restart(job, program.as_deref()).await?;
            eprintln!("{} runs again as process {pid}.", job.name());
            Ok(pid.to_string())
        }
        Errand::AddNode { region } => {
            let (id, pid) = cluster.add_node(region).await?;
            eprintln!("node-{id} runs in {region} as process {pid}.");
            Ok(format!("{id} {pid}"))
        }
    }
}

/// Brings everything up; answers the sample accounts.
async fn start(
    arguments: &DemoArguments,
    layout: &Layout,
    cluster: &mut Cluster,
    progress: &mut Progress,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> anyhow::Result<Vec<ready::Account>> {
    progress.step("looking at addresses and ports");
    cluster.until_remains_are_gone().await?;
    cluster.check_ports().await?;
    progress.step("starting object stores and storage nodes");
    cluster.start_storage().await?;
    progress.step("making the cluster: placement, directory, mailbox shards");
    cluster.bootstrap().await?;
    progress.step("starting frontends");
    cluster.start_frontends().await?;
    progress.step("starting name servers");
    cluster.start_name_servers().await?;
    progress.step("waiting until every shard has its primary and all replicas");
    cluster.until_whole().await?;
    let mut samples = Samples::open(layout, &layout.secrets_dir())?;
    if !arguments.no_sample && !samples.complete() {
        progress.step("signing up the sample accounts");
        samples.sign_up(&*entropy).await?;
        progress.step("sending the sample mail by SMTP");
        samples.send(clock.wall_ms()).await?;
    }
    Ok(samples.accounts())
}

/// Starts a process again after a pause, so that one which cannot run does not keep the machine busy.
async fn revive(cluster: &mut Cluster, job: &Job) {
    tokio::time::sleep(REVIVE_PAUSE).await;
    match cluster.restart(job, None).await {
        Ok(pid) => eprintln!("{} runs again as process {pid}.", job.name()),
        Err(error) => eprintln!("{} does not start again: {error:#}", job.name()),
    }
}

fn report(death: &Death, layout: &Layout) {
    eprintln!("{} (process {}) {}.", death.job.name(), death.pid, death.how);
    let (kind, which) = (death.job.subcommand(), death.job.which());
    eprintln!(
        "  Start it again with: {} demo restart --data-dir {} {kind} {which}",
        binary_name(),
        layout.root.display()
    );
}

/// How this program was called, for commands that people copy.
fn binary_name() -> String {
    std::env::args().next().unwrap_or_else(|| "postrider".into())
}

/// Held as long as the demo runs, so that two demos never share a directory.
fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("lock");
    let file = File::create(&path).with_context(|| format!("open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("a demo is running in {} already: stop it, or give another --data-dir", root.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
    }
}
