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
mod plan;
mod read;
mod report;
mod search;
mod smtp;
mod target;
mod usage;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use postrider_api::limit::PAGE_ROWS_MAX;

use self::target::{Fresh, Target};
use crate::signal::Stop;

/// Most connections that one run makes.
const CONNECTIONS_MAX: usize = 1024;
/// Most recipients of one message: what SMTP takes.
const RECIPIENTS_MAX: usize = postrider_api::limit::RECIPIENTS_MAX;
/// Most accounts that one run makes: each is signed up, at the cost of a password hash.
const ACCOUNTS_MAX: usize = 10_000;
/// The largest message, bytes: below what SMTP takes (`MESSAGE_BYTES_MAX`), trace fields and dots included.
const SIZE_BYTES_MAX: usize = 30 * 1024 * 1024;
/// The largest mailbox that is filled.
const MAILBOX_MESSAGES_MAX: usize = 10_000_000;

const SHARDS_DEFAULT: u32 = 6;
const SECONDS_DEFAULT: u64 = 20;
/// What the design reckons with (DESIGN section 10).
const MAIL_BYTES_DEFAULT: usize = 50_000;
const CONNECTIONS_DEFAULT: [usize; 3] = [1, 16, 64];
/// Four for each of the shards.
const ACCOUNTS_DEFAULT: usize = 24;
/// A small and a large mailbox.
const MAILBOX_DEFAULT: [usize; 2] = [100, 10_000];
const READ_BYTES_DEFAULT: usize = 2_000;
/// What the design names a speed for.
const SEARCH_MAILBOX_DEFAULT: [usize; 1] = [10_000];
const ARRIVING_DEFAULT: u32 = 100;
const READERS_DEFAULT: usize = 4;
/// What REST gives when nobody says otherwise.
const PAGE_DEFAULT: usize = 50;

/// Options of `postrider bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// The ready file of a running demo; without it a cluster is started in a temporary directory and removed.
    #[arg(long, value_name = "FILE", global = true)]
    ready_file: Option<PathBuf>,
    /// Where the temporary cluster is made: the disk that is measured.
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Mailbox shards of the temporary cluster [default: 6], or of the simulated one [default: 1000000].
    #[arg(long, value_name = "N", global = true)]
    shards: Option<u32>,
    /// Start the temporary cluster without search indexes: what they cost is the difference.
    #[arg(long, global = true, conflicts_with = "ready_file")]
    no_search: bool,
    /// For programs.
    #[arg(long, global = true)]
    json: bool,
    /// What is measured [default: smtp, then list, as without options].
    #[command(subcommand)]
    load: Option<LoadKind>,
}

#[derive(Debug, Subcommand)]
enum LoadKind {
    /// Deliver mail by SMTP.
    Smtp(SmtpLoad),
    /// List a folder over REST.
    List(ReadLoad),
    /// Read messages over REST.
    Read(ReadLoad),
    /// Search over REST, while mail arrives in the same mailbox.
    Search(SearchLoad),
    /// Plan what should move in a simulated cluster: a rack fails, nodes are added. Nothing is started.
    Plan(plan::PlanTrial),
}

/// How long a load lasts.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Extent {
    /// Seconds of load, when no count is given.
    #[arg(long, value_name = "S", default_value_t = SECONDS_DEFAULT)]
    seconds: u64,
    /// This many, however long it takes.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SmtpLoad {
    /// Size of a message: text of real mail (POSTRIDER_SUITES), padded with text that does not compress.
    #[arg(long, value_name = "BYTES", default_value_t = MAIL_BYTES_DEFAULT)]
    size: usize,
    /// Connections at a time; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_values_t = CONNECTIONS_DEFAULT)]
    connections: Vec<usize>,
    /// Messages a second of all connections together; without it, as many as get through.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Recipients of each message.
    #[arg(long, value_name = "N", default_value_t = 1)]
    recipients: usize,
    /// Accounts that the mail goes to.
    #[arg(long, value_name = "N", default_value_t = ACCOUNTS_DEFAULT)]
    accounts: usize,
    #[command(flatten)]
    extent: Extent,
    /// At most `size` bytes, without padding: words are words.
    #[arg(skip)]
    unpadded: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SearchLoad {
    /// Messages in the mailbox; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_values_t = SEARCH_MAILBOX_DEFAULT)]
    messages: Vec<usize>,
    /// The longest of them: text of real mail (POSTRIDER_SUITES), cut there.
    #[arg(long, value_name = "BYTES", default_value_t = READ_BYTES_DEFAULT)]
    size: usize,
    /// Search the mailbox that an earlier run filled with the same `--messages` and `--size`, of this address.
    #[arg(long, value_name = "ADDRESS")]
    mailbox: Option<String>,
    /// Messages a second that arrive meanwhile; 0 for none.
    #[arg(long, value_name = "N", default_value_t = ARRIVING_DEFAULT)]
    arriving: u32,
    /// Connections at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: usize,
    /// Ask at this region; without it, at the mailbox's own.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    #[command(flatten)]
    extent: Extent,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ReadLoad {
    /// Messages in the mailbox; several, with commas between, are measured one after the other.
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', default_values_t = MAILBOX_DEFAULT)]
    messages: Vec<usize>,
    /// Size of each of them.
    #[arg(long, value_name = "BYTES", default_value_t = READ_BYTES_DEFAULT)]
    size: usize,
    /// Connections at a time.
    #[arg(long, value_name = "N", default_value_t = READERS_DEFAULT)]
    connections: usize,
    /// Rows of a page.
    #[arg(long, value_name = "N", default_value_t = PAGE_DEFAULT)]
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

/// Measures and prints.
pub(crate) async fn run(arguments: BenchArguments) -> anyhow::Result<ExitCode> {
    let loads = match arguments.load {
        Some(LoadKind::Plan(trial)) => return plan::run(trial, arguments.shards, arguments.json),
        Some(load) => vec![load],
        None => vec![LoadKind::Smtp(defaults()?), LoadKind::List(defaults()?)],
    };
    loads.iter().try_for_each(check)?;
    let mut stop = Stop::listen()?;
    let fresh = Fresh {
        data_dir: arguments.data_dir,
        shards: arguments.shards.unwrap_or(SHARDS_DEFAULT),
        search: !arguments.no_search,
    };
    let target = tokio::select! {
        target = Target::open(arguments.ready_file, fresh) => target?,
        reason = stop.wait() => bail!("interrupted: {reason}"),
    };
    let measured = tokio::select! {
        measured = measure(&loads, &target) => measured,
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

async fn measure(loads: &[LoadKind], target: &Target) -> anyhow::Result<report::Report> {
    let directory = target.directory().to_owned();
    eprintln!("measuring the disk under {}", directory.display());
    let disk = tokio::task::spawn_blocking(move || disk::measure(&directory)).await.context("measure the disk")??;
    let mut report = report::Report::new(disk);
    for load in loads {
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
            LoadKind::Search(load) => {
                for messages in &load.messages {
                    report.search.extend(search::measure(target, load, *messages).await?);
                }
            }
            // It has no cluster.
            LoadKind::Plan(_) => {}
        }
    }
    Ok(report)
}

/// A load as its command line without options gives it.
fn defaults<T: Args>() -> anyhow::Result<T> {
    let matches = T::augment_args(clap::Command::new("bench")).try_get_matches_from(["bench"]);
    T::from_arg_matches(&matches.context("read no options")?).context("take the defaults")
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
            in_range("accounts", load.accounts, ACCOUNTS_MAX)?;
            in_range("recipients", load.recipients, RECIPIENTS_MAX.min(load.accounts))?;
            in_range("size", load.size, SIZE_BYTES_MAX)
        }
        LoadKind::List(load) | LoadKind::Read(load) => {
            for messages in &load.messages {
                in_range("messages", *messages, MAILBOX_MESSAGES_MAX)?;
            }
            in_range("connections", load.connections, CONNECTIONS_MAX)?;
            in_range("page", load.page, PAGE_ROWS_MAX as usize)?;
            in_range("size", load.size, SIZE_BYTES_MAX)
        }
        LoadKind::Search(load) => {
            for messages in &load.messages {
                in_range("messages", *messages, MAILBOX_MESSAGES_MAX)?;
            }
            in_range("connections", load.connections, CONNECTIONS_MAX)?;
            in_range("size", load.size, SIZE_BYTES_MAX)
        }
        LoadKind::Plan(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_options_each_load_is_one_that_runs() {
        let (smtp, list): (SmtpLoad, ReadLoad) = (defaults().unwrap(), defaults().unwrap());
        assert_eq!((smtp.size, smtp.connections.as_slice()), (MAIL_BYTES_DEFAULT, &CONNECTIONS_DEFAULT[..]));
        assert_eq!((list.page, list.messages.as_slice()), (PAGE_DEFAULT, &MAILBOX_DEFAULT[..]));
        for load in [LoadKind::Smtp(smtp), LoadKind::List(list)] {
            check(&load).unwrap();
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let load = SmtpLoad { connections: vec![1, CONNECTIONS_MAX + 1], ..defaults().unwrap() };
        assert!(check(&LoadKind::Smtp(load)).unwrap_err().to_string().contains("--connections"));
        let load = ReadLoad { page: 0, ..defaults().unwrap() };
        assert!(check(&LoadKind::List(load)).unwrap_err().to_string().contains("--page"));
    }
}
