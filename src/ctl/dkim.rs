//! `ctl dkim`: the keys that a domain's mail is signed with.
//!
//! Invariant: a private key leaves this process sealed, under the secret of frontends and workers: no storage node, no log and no
//! backup of one has it in the clear.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use postrider_api::env::SystemEntropy;
use postrider_api::pb::{self, DkimAlgorithm, command::Op};
use postrider_frontend::rest::ClusterSecret;
use postrider_outgoing::dkim::{Algorithm, DkimKey, KeySealer, txt_value};
use postrider_outgoing::dns::Domain;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};
use crate::role;
use crate::role::outgoing::KEYS_PURPOSE;

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
            let retire = Op::RetireDkimKey(pb::RetireDkimKey { domain: domain.clone(), selector: selector.clone() });
            session.place("dkim.retire", [format!("domain {domain}")], retire).await?;
            println!("Nothing is signed with {selector} of {domain} any more.");
        }
        DkimCommand::Remove { domain, selector } => {
            let remove = Op::RemoveDkimKey(pb::RemoveDkimKey { domain: domain.clone(), selector: selector.clone() });
            session.place("dkim.remove", [format!("domain {domain}")], remove).await?;
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
    let name: Domain = domain.parse().context("domain")?;
    let secret = ClusterSecret::new(role::read_secret(secret_file)?.into_bytes()).context("use the secret")?;
    let (algorithm, told) = match kind {
        Kind::Rsa => (Algorithm::RsaSha256, DkimAlgorithm::RsaSha256),
        Kind::Ed25519 => (Algorithm::Ed25519, DkimAlgorithm::Ed25519Sha256),
    };
    let key = DkimKey::generate(algorithm)?;
    let sealed = KeySealer::new(&secret.key(KEYS_PURPOSE)).seal(&name, selector, &key, &SystemEntropy);
    let new = pb::DkimKey {
        selector: selector.to_owned(),
        algorithm: told.into(),
        public_key: key.public_key()?.into(),
        wrapped_private_key: sealed.into(),
        ..pb::DkimKey::default()
    };
    let line = line(name.as_str(), &new)?;
    let add = Op::AddDkimKey(pb::AddDkimKey { domain: name.to_string(), key: Some(new) });
    session.place("dkim.add", [format!("domain {domain}")], add).await?;
    Ok(line)
}

fn line(domain: &str, key: &pb::DkimKey) -> anyhow::Result<KeyLine> {
    let (algorithm, word) = match key.algorithm() {
        DkimAlgorithm::Ed25519Sha256 => (Algorithm::Ed25519, "ed25519-sha256"),
        DkimAlgorithm::RsaSha256 | DkimAlgorithm::Unspecified => (Algorithm::RsaSha256, "rsa-sha256"),
    };
    Ok(KeyLine {
        selector: key.selector.clone(),
        algorithm: word,
        state: if key.retired_ms == 0 { "signs" } else { "retired" },
        record: format!("{}._domainkey.{domain}", key.selector),
        value: txt_value(algorithm, &key.public_key)?,
    })
}

fn list(session: &Session, domain: &str) -> anyhow::Result<()> {
    let map = session.map();
    let record = map.domains.iter().find(|record| record.name == domain);
    let record = record.with_context(|| format!("{domain} is none of this service's domains"))?;
    let lines = record.dkim_keys.iter().map(|key| line(domain, key)).collect::<anyhow::Result<Vec<_>>>()?;
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
