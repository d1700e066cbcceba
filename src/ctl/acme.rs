//! `ctl acme`: the certificates of public authorities. Frontends with `[acme]` order what is wanted here, and all frontends show it.

use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use postrider_api::pb::{self, CertificateProof, PublicCertificate, command::Op};
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum AcmeCommand {
    /// Have a certificate for these names, known by the first; other names or another proof for one that is there. After a failure: try again now.
    Want {
        /// Host names; `*.DOMAIN` wants `--proof dns`.
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// How the authority is shown that they are ours.
        #[arg(long, value_enum, default_value_t = Proof::Http)]
        proof: Proof,
    },
    /// The certificates: until when they are good, who orders one, what has failed.
    List,
    /// Show and order a certificate no more.
    Forget {
        /// Its first name.
        name: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Proof {
    /// Frontends answer at port 80 (`acme.http_listen`) of each name.
    Http,
    /// The cluster's name servers answer, which the names' domains are delegated to.
    Dns,
}

#[derive(Serialize)]
struct Line {
    name: String,
    names: Vec<String>,
    proof: &'static str,
    /// `wanted`, `ordered`, `issued`, `failed`, `expired`.
    state: &'static str,
    /// Milliseconds since the Unix epoch; null: none was issued.
    expires_ms: Option<i64>,
    /// Why the last order failed; empty: it did not.
    failure: String,
    /// When it is ordered again after a failure, milliseconds since the Unix epoch; null: there was none.
    retry_ms: Option<i64>,
}

pub(super) async fn run(session: &Session, command: AcmeCommand) -> anyhow::Result<Verdict> {
    match command {
        AcmeCommand::Want { names, proof } => {
            let name = names.first().cloned().unwrap_or_default();
            let proof = match proof {
                Proof::Http => CertificateProof::Http,
                Proof::Dns => CertificateProof::Dns,
            };
            let want = Op::WantCertificate(pb::WantCertificate { names, proof: proof.into() });
            session.place("acme.want", [format!("certificate {name}")], want).await?;
            println!("A certificate is ordered as {name}: `ctl acme list` shows what becomes of it.");
            Ok(Verdict::Good)
        }
        AcmeCommand::List => list(session),
        AcmeCommand::Forget { name } => {
            let forget = Op::ForgetCertificate(pb::ForgetCertificate { name: name.clone() });
            session.place("acme.forget", [format!("certificate {name}")], forget).await?;
            println!("{name} is neither shown nor ordered any more.");
            Ok(Verdict::Good)
        }
    }
}

/// Good when every one that is wanted is issued, and its last order did not fail.
fn list(session: &Session) -> anyhow::Result<Verdict> {
    let (map, now_ms) = (session.map(), Timestamp::now().as_millisecond());
    let lines: Vec<Line> = map.public_certificates.iter().map(|certificate| line(certificate, now_ms)).collect();
    let verdict = match lines.iter().all(|line| line.state == "issued") {
        true => Verdict::Good,
        false => Verdict::Bad,
    };
    if session.json {
        session.print_json(&lines)?;
        return Ok(verdict);
    }
    let columns = [
        ("certificate", Align::Left),
        ("names", Align::Right),
        ("proof", Align::Left),
        ("state", Align::Left),
        ("expires", Align::Left),
        ("", Align::Left),
    ];
    let mut table = Table::new(&columns);
    for line in lines {
        let expires = line.expires_ms.map(day).unwrap_or_default();
        let again = line.retry_ms.map(|at| format!("; again at {}", moment(at))).unwrap_or_default();
        let note = if line.failure.is_empty() { String::new() } else { format!("{}{again}", line.failure) };
        table.row([line.name, line.names.len().to_string(), line.proof.into(), line.state.into(), expires, note]);
    }
    table.print();
    Ok(verdict)
}

fn line(certificate: &PublicCertificate, now_ms: i64) -> Line {
    let is_issued = !certificate.chain.is_empty();
    let state = match certificate {
        _ if is_issued && certificate.expires_ms <= now_ms => "expired",
        failed if failed.failures > 0 => "failed",
        ordered if !ordered.challenges.is_empty() => "ordered",
        _ if is_issued && certificate.issued_for_ms == certificate.wanted_ms => "issued",
        _ => "wanted",
    };
    Line {
        name: certificate.name.clone(),
        names: certificate.names.clone(),
        proof: match certificate.proof() {
            CertificateProof::Dns => "dns",
            CertificateProof::Http | CertificateProof::Unspecified => "http",
        },
        state,
        expires_ms: is_issued.then_some(certificate.expires_ms),
        failure: certificate.failure.clone(),
        retry_ms: (certificate.failures > 0).then_some(certificate.retry_ms),
    }
}

fn moment(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}

fn day(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}
