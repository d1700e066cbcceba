//! `ctl domain records`, `ctl domain check`: the DNS records that a domain needs, and what the world sees of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use postrider_api::env::{SystemEntropy, random};
use postrider_api::pb;
use postrider_dns::ask::ask;
use postrider_dns::server::sign::Signer;
use postrider_dns::zone::file::{self, Line};
use postrider_dns::zone::tree::Zone;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};
use crate::local::{self, Job};
use crate::role;
use crate::role::dns::config::DnsRoleConfig;
use crate::role::dns::describe::Described;

/// How long a server may take to answer one question, however often it is asked.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// Where the system's resolvers are named.
const RESOLVERS: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;

/// Which domain, and by whose description.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The domain.
    domain: String,
    /// The configuration of a name server, which knows the regions' addresses and the domains' policies [default: the demo's].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Resolver {
    /// A resolver or name server, ADDRESS or ADDRESS:PORT [default: the system's resolver].
    #[arg(long, value_name = "ADDRESS")]
    resolver: Option<String>,
}

struct Expected {
    zone: Zone,
    /// What the parent zone has to say, where the zone is signed.
    delegation: Vec<String>,
}

/// Prints the zone as a file.
pub(super) fn records(session: &Session, named: &Named) -> anyhow::Result<Verdict> {
    let expected = expected(session, named)?;
    if session.json {
        session.print_json(&file::lines(&expected.zone).iter().map(line_of).collect::<Vec<_>>())?;
        return Ok(Verdict::Good);
    }
    print!("{}", file::print(&expected.zone));
    if !expected.delegation.is_empty() {
        println!("; In the parent zone, if our name servers answer for the domain:");
        expected.delegation.iter().for_each(|line| println!("; {line}"));
    }
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct RecordLine<'l> {
    name: &'l str,
    ttl: u32,
    r#type: &'l str,
    data: &'l str,
    /// Whether our name servers choose it for whoever asks.
    chosen: bool,
}

fn line_of(line: &Line) -> RecordLine<'_> {
    RecordLine { name: &line.name, ttl: line.ttl, r#type: &line.rtype, data: &line.data, chosen: line.tailored }
}

/// One name and type, as it is and as it should be.
#[derive(Debug, Serialize)]
pub(crate) struct CheckLine {
    pub(crate) name: String,
    pub(crate) r#type: String,
    pub(crate) state: State,
    pub(crate) expected: Vec<String>,
    pub(crate) seen: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// There is none of it.
    Missing,
    /// It is there, and other than it should be.
    Differs,
}

/// Compares what a resolver sees with what should be.
pub(super) async fn check(session: &Session, named: &Named, resolver: &Resolver) -> anyhow::Result<Verdict> {
    let expected = expected(session, named)?;
    let server = server(resolver)?;
    let checked = compared(&expected.zone, server).await?;
    let verdict = if checked.iter().all(|line| line.state == State::Ok) { Verdict::Good } else { Verdict::Bad };
    if session.json {
        session.print_json(&checked)?;
        return Ok(verdict);
    }
    let columns = [("name", Align::Left), ("type", Align::Left), ("state", Align::Left), ("", Align::Left)];
    let mut table = Table::new(&columns);
    for line in checked {
        let (state, what) = match line.state {
            State::Ok => ("ok", line.seen.join(" | ")),
            State::Missing => ("MISSING", format!("should be {}", line.expected.join(" | "))),
            State::Differs => {
                ("DIFFERS", format!("is {}, should be {}", line.seen.join(" | "), line.expected.join(" | ")))
            }
        };
        table.row([line.name, line.r#type, state.into(), what]);
    }
    table.print();
    Ok(verdict)
}

/// Asks `server` for every name and type.
pub(crate) async fn compared(zone: &Zone, server: SocketAddr) -> anyhow::Result<Vec<CheckLine>> {
    let mut sets: BTreeMap<(String, String), Vec<Line>> = BTreeMap::new();
    for line in file::lines(zone) {
        // Nobody but our own name servers has this serial, and a wildcard is no name to ask for.
        if line.rtype != "SOA" && !line.name.starts_with("*.") {
            sets.entry((line.name.clone(), line.rtype.clone())).or_default().push(line);
        }
    }
    let mut checked = Vec::with_capacity(sets.len());
    for ((name, rtype), lines) in sets {
        let id = u16::from_be_bytes(random(&SystemEntropy));
        let seen = ask(server, &name, &rtype, id, ANSWER_MAX).await.with_context(|| format!("{name} {rtype}"))?;
        let state = compare(&lines, &seen);
        let expected = lines.into_iter().map(|line| line.data).collect();
        checked.push(CheckLine { name, r#type: rtype, state, expected, seen });
    }
    Ok(checked)
}

/// Whether what was seen is as it should be. Of what is chosen for whoever asks, a part is enough and numbers do not count; of
/// texts, others may stand beside.
fn compare(lines: &[Line], seen: &[String]) -> State {
    if seen.is_empty() {
        return State::Missing;
    }
    let chosen = lines.iter().all(|line| line.tailored);
    let target = |data: &str| data.rsplit(' ').next().unwrap_or_default().to_ascii_lowercase();
    let seen_targets: BTreeSet<String> = seen.iter().map(|data| target(data)).collect();
    let good = if chosen {
        let expected: BTreeSet<String> = lines.iter().map(|line| target(&line.data)).collect();
        seen_targets.is_subset(&expected)
    } else {
        let expected: BTreeSet<&str> = lines.iter().map(|line| line.data.as_str()).collect();
        let seen: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
        if lines[0].rtype == "TXT" { expected.is_subset(&seen) } else { expected == seen }
    };
    if good { State::Ok } else { State::Differs }
}

fn expected(session: &Session, named: &Named) -> anyhow::Result<Expected> {
    let path = match &named.config {
        Some(path) => path.clone(),
        None => demo_config(session)?,
    };
    let config: DnsRoleConfig = role::read(&path)?;
    let zone = zone_of(&config, &session.map(), &named.domain)?;
    let keys =
        config.dnssec_key_files.iter().map(|path| role::read_secret(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let delegation = match keys.as_slice() {
        [] => Vec::new(),
        keys => Signer::new(keys.iter().map(String::as_str))
            .context("dnssec_key_files")?
            .delegation(&canonical(&named.domain)),
    };
    Ok(Expected { zone, delegation })
}

/// The zone of a domain as a name server with this configuration would answer of it.
pub(crate) fn zone_of(config: &DnsRoleConfig, map: &pb::ShardMap, domain: &str) -> anyhow::Result<Zone> {
    let described = Described::load(config)?;
    let wanted = canonical(domain);
    let domains = described.domains(map);
    let domain = domains.iter().find(|domain| domain.name == wanted);
    let domain = domain.with_context(|| format!("mail for {wanted} is not accepted: `ctl domain add` first"))?;
    Zone::build(domain, &described.regions(map)).with_context(|| format!("the zone of {wanted}"))
}

fn canonical(domain: &str) -> String {
    domain.trim_end_matches('.').to_ascii_lowercase()
}

/// The configuration of a name server of the demo that made this operator's certificate.
fn demo_config(session: &Session) -> anyhow::Result<PathBuf> {
    let missing = "--config FILE: the configuration of a name server is needed";
    // An absolute path, or one below the current directory.
    let identity = session.identity_dir.canonicalize().context(missing)?;
    let root = identity.parent().context(missing)?;
    let of_region = |region: &str| root.join(Job::Dns { region: region.into() }.name()).join(local::CONFIG);
    let map = session.map();
    map.regions.iter().map(|region| of_region(&region.name)).find(|path| path.exists()).context(missing)
}

fn server(resolver: &Resolver) -> anyhow::Result<SocketAddr> {
    let Some(text) = &resolver.resolver else { return system_resolver() };
    let with_port = text.parse::<SocketAddr>();
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, DNS_PORT));
    with_port.or(address).with_context(|| format!("--resolver {text}: no ADDRESS or ADDRESS:PORT"))
}

/// The first that the system names.
pub(crate) fn system_resolver() -> anyhow::Result<SocketAddr> {
    let text = std::fs::read_to_string(RESOLVERS).with_context(|| format!("read {RESOLVERS}"))?;
    for line in text.lines() {
        if let Some(Ok(address)) = line.strip_prefix("nameserver").map(|address| address.trim().parse::<IpAddr>()) {
            return Ok(SocketAddr::new(address, DNS_PORT));
        }
    }
    bail!("{RESOLVERS} names no resolver: give --resolver")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rtype: &str, data: &str, tailored: bool) -> Line {
        Line { name: "example.org.".into(), ttl: 30, rtype: rtype.into(), data: data.into(), tailored }
    }

    fn state(lines: &[Line], seen: &[&str]) -> State {
        compare(lines, &seen.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_chosen_may_be_a_part_in_another_order() {
        let mx = [line("MX", "10 mx-a.example.org.", true), line("MX", "20 mx-b.example.org.", true)];
        assert_eq!(state(&mx, &["10 mx-b.example.org.", "20 mx-a.example.org."]), State::Ok);
        assert_eq!(state(&mx, &["10 mx-b.example.org."]), State::Ok, "a region is down");
        assert_eq!(state(&mx, &["10 mx.elsewhere.net."]), State::Differs);
        assert_eq!(state(&mx, &[]), State::Missing);
    }

    #[test]
    fn texts_may_have_others_beside_them_and_nothing_else_may() {
        let txt = [line("TXT", "\"v=spf1 -all\"", false)];
        assert_eq!(state(&txt, &["\"site=1\"", "\"v=spf1 -all\""]), State::Ok);
        assert_eq!(state(&txt, &["\"v=spf1 ~all\""]), State::Differs);
        let caa = [line("CAA", "0 issue \"letsencrypt.org\"", false)];
        assert_eq!(state(&caa, &["0 issue \"letsencrypt.org\"", "0 issue \"other.example\""]), State::Differs);
    }
}
