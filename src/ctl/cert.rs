//! `ctl cert`: a cluster's own authority, and what it signs. Works on files; no cluster has to be there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use postrider_api::identity::Role;
use rcgen::KeyPair;

use super::Verdict;
use crate::authority::{Authority, CertificateFiles, Subject, holder};
use crate::files;

const DAY_S: u32 = 24 * 60 * 60;
/// What a certificate that expires is good for at most.
const DAYS_MAX: i64 = 3650;

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make the cluster's authority: DIR/ca.pem and DIR/ca.key. Whoever has the key can do everything in the cluster.
    Authority {
        /// Its directory.
        dir: PathBuf,
        /// The name that stands in its certificate.
        #[arg(long, value_name = "TEXT", default_value = "Postrider authority")]
        name: String,
    },
    /// A certificate for a process of the cluster: OUT/NAME.pem, OUT/NAME.key and OUT/ca.pem.
    Process {
        /// What it is.
        role: ProcessRole,
        /// Its name, for the audit log: node-1, frontend-seoul.
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// An operator's certificate, for `--identity OUT`: OUT/cert.pem, OUT/key.pem and OUT/ca.pem.
    Operator {
        /// Who, for the audit log.
        name: String,
        #[command(flatten)]
        how: How,
    },
    /// A certificate for a host name that clients meet, where no public authority signs one: OUT/NAME.pem, OUT/NAME.key and OUT/ca.pem.
    Host {
        /// Its name among the files.
        name: String,
        /// The host names.
        #[arg(required = true)]
        hosts: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Certificates anew, with other keys, for whom and for as long as they were. Processes show them within seconds, without a restart.
    Renew {
        /// The certificates: NAME.pem with NAME.key beside it, or an operator's cert.pem with key.pem.
        #[arg(required = true, value_name = "FILE")]
        certificates: Vec<PathBuf>,
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        authority: PathBuf,
        /// How long they are good for from now on [default: as long as they were].
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: Option<u32>,
        /// Only those that expire within so many days.
        #[arg(long, value_name = "DAYS")]
        expiring_within: Option<u32>,
    },
    /// A P-256 key (PKCS#8, PEM), as `dnssec_key_files` of a name server wants it. A file that is there is kept.
    DnssecKey {
        /// Where to write it.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct How {
    /// The authority's directory.
    #[arg(long, value_name = "DIR")]
    authority: PathBuf,
    /// Where to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// IP addresses that the certificate is good for as well.
    #[arg(long = "address", value_name = "IP", value_delimiter = ',')]
    addresses: Vec<IpAddr>,
    /// How long the certificate is good for [default: it does not expire].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    days: Option<u32>,
    /// Make another key and certificate in place of those that are there, which are kept otherwise.
    #[arg(long)]
    renew: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ProcessRole {
    Node,
    Frontend,
    Worker,
    Dns,
}

impl From<ProcessRole> for Role {
    fn from(role: ProcessRole) -> Self {
        match role {
            ProcessRole::Node => Role::Node,
            ProcessRole::Frontend => Role::Frontend,
            ProcessRole::Worker => Role::Worker,
            ProcessRole::Dns => Role::Dns,
        }
    }
}

pub(super) fn run(command: CertCommand) -> anyhow::Result<Verdict> {
    match command {
        CertCommand::Authority { dir, name } => {
            Authority::open_or_make(&dir, &name)?;
            println!(
                "{} signs for the cluster; its key is {}.",
                dir.join("ca.pem").display(),
                dir.join("ca.key").display()
            );
        }
        CertCommand::Process { role, name, how } => {
            let files = CertificateFiles::of_process(&how.out, checked(&name)?);
            issue(&how, files, Subject::of_role(&name, role.into(), how.addresses.clone()))?;
        }
        CertCommand::Operator { name, how } => {
            let files = CertificateFiles::of_operator(&how.out);
            issue(&how, files, Subject::of_role(&name, Role::Ctl, how.addresses.clone()))?;
        }
        CertCommand::Host { name, hosts, how } => {
            let files = CertificateFiles::of_process(&how.out, checked(&name)?);
            let addresses = how.addresses.clone();
            issue(&how, files, Subject { name, role: None, hosts, addresses, good_for: None })?;
        }
        CertCommand::Renew { certificates, authority, days, expiring_within } => {
            let authority = open(&authority)?;
            for certificate in certificates {
                renew(&authority, &certificate, days, expiring_within)
                    .with_context(|| format!("renew {}", certificate.display()))?;
            }
        }
        CertCommand::DnssecKey { file } => {
            files::make_directory(directory(&file))?;
            files::keep_secret(&file, || Ok(KeyPair::generate().context("make a key")?.serialize_pem()))?;
            println!("{}", file.display());
        }
    }
    Ok(Verdict::Good)
}

fn open(authority: &Path) -> anyhow::Result<Authority> {
    Authority::open(authority).with_context(|| {
        format!("the authority in {} (`postrider ctl cert authority DIR` makes one)", authority.display())
    })
}

fn length(days: u32) -> Duration {
    Duration::from_secs(DAY_S.into()) * days
}

fn issue(how: &How, files: CertificateFiles, mut subject: Subject) -> anyhow::Result<()> {
    subject.good_for = how.days.map(length);
    let authority = open(&how.authority)?;
    files::make_directory(&how.out)?;
    let files = match how.renew {
        true => authority.replace(&files, &subject).map(|()| files)?,
        false => authority.issue(files, &subject)?,
    };
    println!("{}", files.cert.display());
    Ok(())
}

fn renew(authority: &Authority, cert: &Path, days: Option<u32>, expiring_within: Option<u32>) -> anyhow::Result<()> {
    let holder = holder(&std::fs::read(cert).context("read the certificate")?)?;
    let left_s = holder.expires_s.saturating_sub(Timestamp::now().as_second());
    let days_left = left_s / i64::from(DAY_S);
    if expiring_within.is_some_and(|days| left_s > i64::from(days) * i64::from(DAY_S)) {
        println!("{} is good for {days_left} days more", cert.display());
        return Ok(());
    }
    let files = CertificateFiles::of_certificate(cert);
    // Written elsewhere it would be of no use to whoever has the certificate.
    ensure!(files.key.exists(), "its key is not there: {}", files.key.display());
    let mut subject = Subject::of(holder);
    subject.good_for = days.map(length).or(subject.good_for);
    authority.sign(&files.cert, &files.key, &subject)?;
    println!("{} is renewed", cert.display());
    Ok(())
}

/// It becomes the name of a file.
fn checked(name: &str) -> anyhow::Result<&str> {
    let good = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    anyhow::ensure!(
        good && !name.starts_with('.') && name != "ca",
        "{name:?}: letters, digits, '-', '_' and '.'; not \"ca\""
    );
    Ok(name)
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_files_and_nothing_else() {
        for good in ["node-1", "mail.seoul", "a_b"] {
            assert!(checked(good).is_ok(), "{good}");
        }
        for bad in ["", "ca", "../x", "a/b", ".hidden", "a b"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
