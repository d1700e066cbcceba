//! `ctl cert`: a cluster's own authority, and what it signs. Works on files; no cluster has to be there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use postrider_api::identity::Role;
use rcgen::KeyPair;

use super::Verdict;
use crate::authority::{Authority, CertificateFiles, Subject};
use crate::files;

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
            issue(&how, files, &Subject::of_role(&name, role.into(), how.addresses.clone()))?;
        }
        CertCommand::Operator { name, how } => {
            let files = CertificateFiles::of_operator(&how.out);
            issue(&how, files, &Subject::of_role(&name, Role::Ctl, how.addresses.clone()))?;
        }
        CertCommand::Host { name, hosts, how } => {
            let files = CertificateFiles::of_process(&how.out, checked(&name)?);
            let subject = Subject { name: name.clone(), role: None, hosts, addresses: how.addresses.clone() };
            issue(&how, files, &subject)?;
        }
        CertCommand::DnssecKey { file } => {
            files::make_directory(directory(&file))?;
            files::keep_secret(&file, || Ok(KeyPair::generate().context("make a key")?.serialize_pem()))?;
            println!("{}", file.display());
        }
    }
    Ok(Verdict::Good)
}

fn issue(how: &How, files: CertificateFiles, subject: &Subject) -> anyhow::Result<()> {
    let authority = Authority::open(&how.authority).with_context(|| {
        format!("the authority in {} (`postrider ctl cert authority DIR` makes one)", how.authority.display())
    })?;
    files::make_directory(&how.out)?;
    let files = match how.renew {
        true => authority.renew(&files, subject).map(|()| files)?,
        false => authority.issue(files, subject)?,
    };
    println!("{}", files.cert.display());
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
