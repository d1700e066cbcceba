//! The one binary: reads the command line and wires roles; the rooms do the work.
//!
//! Invariant: no mail logic here. What a role does lives in `node`, `frontend`, `router`, `router/dns` and `shard/blob`; here it is
//! configured, started, stopped, watched (`demo`), asked (`ctl`), hurt (`drill`) and measured (`bench`).

mod authority;
mod bench;
mod ctl;
mod demo;
mod drill;
mod files;
mod initial;
mod local;
mod proc;
mod role;
mod signal;
mod smtp;
mod telemetry;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

// The system allocator keeps too much of what bursts of large messages needed.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How long threads that still wait for the disk may hold up the end: what was promised is on it already.
pub(crate) const RUNTIME_SHUTDOWN_MAX: Duration = Duration::from_secs(2);

#[derive(Parser)]
#[command(name = "postrider", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    role: RoleCommand,
}

#[derive(Subcommand)]
enum RoleCommand {
    /// A storage node: replicas of shards, and the gRPC service that frontends use.
    Node(role::ConfigArgument),
    /// SMTP, REST and WebSocket; with a worker in it unless the configuration says otherwise.
    Frontend(role::ConfigArgument),
    /// Delivers what waits in queues; a process of its own.
    Worker(role::ConfigArgument),
    /// Authoritative DNS for the cluster's domains: the nearest region that serves.
    Dns(role::ConfigArgument),
    /// The embedded object store: an S3 server on the file system.
    Store(role::ConfigArgument),
    /// Three regions on this machine, every role a process of its own.
    Demo(demo::DemoArguments),
    /// Ask and steer a running cluster.
    Ctl(ctl::CtlArguments),
    /// Break something of a running cluster under load, and say which promises were kept.
    Drill(drill::DrillArguments),
    /// Measure a cluster, beside what the disk can do.
    Bench(bench::BenchArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(feature) = missing_feature() {
        eprintln!("postrider: this processor lacks {feature}, which RocksDB here is compiled for (.cargo/config.toml)");
        return ExitCode::FAILURE;
    }
    // Interactive commands talk on the screen; only what is wrong reaches them as a log line.
    let default_filter = match arguments.role {
        RoleCommand::Demo(_) | RoleCommand::Ctl(_) | RoleCommand::Drill(_) | RoleCommand::Bench(_) => "error",
        // The consensus library tells every vote at info; what matters of it, the host says itself.
        _ => "info,openraft=warn",
    };
    telemetry::start(default_filter);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("postrider: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(arguments.role));
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_MAX);
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("postrider: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// An instruction set that the C++ in this binary uses without asking, and that is not there.
fn missing_feature() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        if !std::arch::is_x86_feature_detected!("sse4.2") {
            return Some("SSE 4.2");
        }
        if !std::arch::is_x86_feature_detected!("pclmulqdq") {
            return Some("PCLMULQDQ");
        }
    }
    None
}

async fn run(role: RoleCommand) -> anyhow::Result<ExitCode> {
    match role {
        RoleCommand::Node(argument) => role::node::run(&argument.config).await?,
        RoleCommand::Frontend(argument) => role::frontend::run(&argument.config).await?,
        RoleCommand::Worker(argument) => role::worker::run(&argument.config).await?,
        RoleCommand::Dns(argument) => role::dns::run(&argument.config).await?,
        RoleCommand::Store(argument) => role::store::run(&argument.config).await?,
        RoleCommand::Demo(arguments) => return demo::run(arguments).await,
        RoleCommand::Ctl(arguments) => return ctl::run(arguments).await,
        RoleCommand::Drill(arguments) => return drill::run(arguments).await,
        RoleCommand::Bench(arguments) => return bench::run(arguments).await,
    }
    Ok(ExitCode::SUCCESS)
}
