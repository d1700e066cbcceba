//! `postrider bench`: what a cluster does under load, beside what the disk under it can do in the same run.
//!
//! The load generator shares the machine with the cluster, so it is one thread over raw sockets with prepared buffers, and
//! its own processor time is not part of what is reported.

mod accounts;
mod corpus;
mod disk;
mod http;
mod load;
mod percentile;
mod read;
mod report;
mod smtp;
mod target;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use self::target::Target;
use crate::signal::Stop;

/// Options of `postrider bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// The ready file of a running demo; without it a cluster is started in a temporary directory and removed.
    #[arg(long, value_name = "FILE", global = true)]
    ready_file: Option<PathBuf>,
    /// Where the temporary cluster is made: the disk that is measured.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Mailbox shards of the temporary cluster.
    #[arg(long, value_name = "N", default_value_t = 6, global = true)]
    shards: u32,
    /// For programs.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    load: LoadKind,
}

#[derive(Debug, Subcommand)]
enum LoadKind {
    /// Deliver mail by SMTP.
    Smtp(SmtpLoad),
    /// List a folder over REST.
    List(ReadLoad),
    /// Read messages over REST.
    Read(ReadLoad),
}

/// How long a load lasts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Extent {
    /// Seconds of load, when no count is given.
    #[arg(long, value_name = "S", default_value_t = 20)]
    seconds: u64,
    /// This many, however long it takes.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SmtpLoad {
    /// Size of a message: text of real mail (POSTRIDER_SUITES), padded with text that does not compress.
    #[arg(long, value_name = "BYTES", default_value_t = 50_000)]
    size: usize,
    /// Connections at a time; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<usize>,
    /// Recipients of each message.
    #[arg(long, value_name = "N", default_value_t = 1)]
    recipients: usize,
    /// Accounts that the mail goes to.
    #[arg(long, value_name = "N", default_value_t = 24)]
    accounts: usize,
    #[command(flatten)]
    extent: Extent,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReadLoad {
    /// Messages in the mailbox; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_values_t = [100, 10_000])]
    messages: Vec<usize>,
    /// Size of each of them.
    #[arg(long, value_name = "BYTES", default_value_t = 2_000)]
    size: usize,
    /// Connections at a time.
    #[arg(long, value_name = "N", default_value_t = 4)]
    connections: usize,
    /// Rows of a page.
    #[arg(long, value_name = "N", default_value_t = 50)]
    page: usize,
    #[command(flatten)]
    extent: Extent,
}

/// When a load is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Count(u64),
    Elapsed(Duration),
}

impl Extent {
    fn until(self) -> Until {
        self.count.map_or(Until::Elapsed(Duration::from_secs(self.seconds)), Until::Count)
    }
}

/// Most connections and recipients that one run makes.
const CONNECTIONS_MAX: usize = 1024;
const RECIPIENTS_MAX: usize = postrider_api::limit::RECIPIENTS_MAX;

/// Measures and prints.
pub(crate) async fn run(arguments: BenchArguments) -> anyhow::Result<ExitCode> {
    check(&arguments.load)?;
    let mut stop = Stop::listen()?;
    let target = tokio::select! {
        target = Target::open(arguments.ready_file, arguments.data_dir, arguments.shards) => target?,
        reason = stop.wait() => bail!("interrupted: {reason}"),
    };
    let measured = tokio::select! {
        measured = measure(&arguments.load, &target) => measured,
        reason = stop.wait() => Err(anyhow::anyhow!("interrupted: {reason}")),
    };
    target.close().await?;
    let report = measured?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(if report.nothing_missing() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(load: &LoadKind, target: &Target) -> anyhow::Result<report::Report> {
    let directory = target.directory().to_owned();
    eprintln!("measuring the disk under {}", directory.display());
    let disk = tokio::task::spawn_blocking(move || disk::measure(&directory)).await.context("measure the disk")??;
    let mut report = report::Report::new(disk);
    match load {
        LoadKind::Smtp(load) => {
            for connections in &load.connections {
                report.smtp.push(smtp::measure(target, load, *connections).await?);
            }
        }
        LoadKind::List(load) => {
            for messages in &load.messages {
                report.rest.push(read::measure(target, load, *messages, read::What::List).await?);
            }
        }
        LoadKind::Read(load) => {
            for messages in &load.messages {
                report.rest.push(read::measure(target, load, *messages, read::What::Message).await?);
            }
        }
    }
    Ok(report)
}

fn check(load: &LoadKind) -> anyhow::Result<()> {
    let in_range = |name: &str, value: usize, max: usize| {
        ensure!((1..=max).contains(&value), "--{name}: 1 to {max}");
        Ok(())
    };
    match load {
        LoadKind::Smtp(load) => {
            for connections in &load.connections {
                in_range("connections", *connections, CONNECTIONS_MAX)?;
            }
            in_range("accounts", load.accounts, 10_000)?;
            in_range("recipients", load.recipients, RECIPIENTS_MAX.min(load.accounts))?;
            in_range("size", load.size, 30 * 1024 * 1024)
        }
        LoadKind::List(load) | LoadKind::Read(load) => {
            for messages in &load.messages {
                in_range("messages", *messages, 10_000_000)?;
            }
            in_range("connections", load.connections, CONNECTIONS_MAX)?;
            in_range("page", load.page, 200)?;
            in_range("size", load.size, 30 * 1024 * 1024)
        }
    }
}
