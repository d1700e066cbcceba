//! `ctl dkim`: the keys that a domain's mail is signed with.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use postrider_frontend::rest::ClusterSecret;
use postrider_operator::dkim::{self, Published};
use postrider_outgoing::dkim::{Algorithm, KEYS_PURPOSE, KeySealer};
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};
use crate::role;

#[derive(Debug, Subcommand)]
pub(crate) enum DkimCommand {
    /// Make a key, and have the domain's mail signed with it from now on. The record to publish is printed.
    Add {
        /// The domain.
        domain: String,
        /// The name of its record below `_domainkey`.
        selector: String,
        /// How it signs: receivers know RSA all, Ed25519 some. Have one of each.
        #[arg(long, value_enum, default_value_t = Kind::Rsa)]
        algorithm: Kind,
        /// The frontends' secret (`cursor_secret_file`).
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
    },
    /// The keys of a domain, with the records that publish them.
    List {
        /// The domain.
        domain: String,
    },
    /// Sign nothing with a key any more. Its record stays until what it has signed has arrived: a week.
    Retire {
        /// The domain.
        domain: String,
        /// The key.
        selector: String,
    },
    /// Forget a key that was retired.
    Remove {
        /// The domain.
        domain: String,
        /// The key.
        selector: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// RSA of 2048 bits with SHA-256 (RFC 6376).
    Rsa,
    /// RFC 8463.
    Ed25519,
}

#[derive(Serialize)]
struct KeyLine {
    selector: String,
    algorithm: &'static str,
    state: &'static str,
    record: String,
    value: String,
}

pub(super) async fn run(session: &Session, command: DkimCommand) -> anyhow::Result<Verdict> {
    match command {
        DkimCommand::Add { domain, selector, algorithm, secret_file } => {
            let line = add(session, &domain, &selector, algorithm, &secret_file).await?;
            match session.json {
                true => session.print_json(&line)?,
                false => println!(
                    "Mail of {domain} is signed with {selector}. Publish:\n\n{} TXT {}",
                    line.record, line.value
                ),
            }
        }
        DkimCommand::List { domain } => list(session, &domain)?,
        DkimCommand::Retire { domain, selector } => {
            dkim::retire(session, &domain, &selector).await?;
            println!("Nothing is signed with {selector} of {domain} any more.");
        }
        DkimCommand::Remove { domain, selector } => {
            dkim::remove(session, &domain, &selector).await?;
            println!("{selector} of {domain} is gone.");
        }
    }
    Ok(Verdict::Good)
}

async fn add(
    session: &Session,
    domain: &str,
    selector: &str,
    kind: Kind,
    secret_file: &std::path::Path,
) -> anyhow::Result<KeyLine> {
    let secret = ClusterSecret::new(role::read_secret(secret_file)?.into_bytes()).context("use the secret")?;
    let algorithm = match kind {
        Kind::Rsa => Algorithm::RsaSha256,
        Kind::Ed25519 => Algorithm::Ed25519,
    };
    let sealer = KeySealer::new(&secret.key(KEYS_PURPOSE));
    Ok(line(dkim::add(session, domain, selector, algorithm, &sealer).await?))
}

fn line(key: Published) -> KeyLine {
    let Published { selector, algorithm, signs, record, value } = key;
    KeyLine { selector, algorithm, state: if signs { "signs" } else { "retired" }, record, value }
}

fn list(session: &Session, domain: &str) -> anyhow::Result<()> {
    let map = session.map();
    let record = map.domains.iter().find(|record| record.name == domain);
    let record = record.with_context(|| format!("{domain} is none of this service's domains"))?;
    let lines = record.dkim_keys.iter().map(|key| Published::of(domain, key).map(line));
    let lines = lines.collect::<anyhow::Result<Vec<_>>>()?;
    if session.json {
        return session.print_json(&lines);
    }
    let columns =
        [("selector", Align::Left), ("algorithm", Align::Left), ("state", Align::Left), ("record", Align::Left)];
    let mut table = Table::new(&columns);
    for line in &lines {
        table.row([line.selector.clone(), line.algorithm.into(), line.state.into(), line.record.clone()]);
    }
    table.print();
    for line in lines {
        println!("\n{} TXT {}", line.record, line.value);
    }
    Ok(())
}
