//! `ctl node`, `ctl region`, `ctl domain`: what the cluster consists of.

use clap::Subcommand;
use postrider_api::audit;
use postrider_api::id::NodeId;
use postrider_api::limit::{REGION_WEIGHT, REGION_WEIGHT_MAX};
use postrider_api::pb::{self, command::Op};
use postrider_router::operate::node_state;
use serde::Serialize;

use super::Verdict;
use super::operations;
use super::records;
use super::session::Session;
use super::table::{Align, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// All nodes, and how many replicas each has by the shard map.
    List,
    /// Give a node's leads and replicas to others, and wait until it has none.
    Drain {
        /// The node.
        node: u64,
    },
    /// Let a node that was drained take leads and replicas again.
    Activate {
        /// The node.
        node: u64,
    },
    /// Remove a node that holds nothing, for good: its number is never used again.
    Remove {
        /// The node.
        node: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegionCommand {
    /// All regions, and what clients are told of them.
    List,
    /// How much of what is near to a region shall go there, by DNS and by `GET /v1/regions`.
    Weight {
        /// Its name.
        region: String,
        /// 100: its fair share; 50: as if it were twice as far away; 0: it is drained, and nobody new is sent there.
        #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(REGION_WEIGHT_MAX)))]
        weight: u32,
    },
    /// Where clients reach a region's REST.
    Url {
        /// Its name.
        region: String,
        /// `https://HOST` or `https://HOST:PORT`; empty: clients are not told of it.
        url: String,
    },
    /// Remove a region that has no node and is no shard's home.
    Remove {
        /// Its name.
        region: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Accept mail for a domain.
    Add {
        /// The domain, in lower case.
        domain: String,
        /// The residency zone of its mailboxes, for ever.
        zone: String,
    },
    /// Refuse mail for a domain from now on. Its accounts stay.
    Remove {
        /// The domain.
        domain: String,
    },
    /// The DNS records that a domain needs, as a zone file.
    Records(records::Named),
    /// What the world sees of them, line by line.
    Check {
        #[command(flatten)]
        named: records::Named,
        #[command(flatten)]
        resolver: records::Resolver,
    },
}

#[derive(Serialize)]
struct NodeLine {
    id: u64,
    region: String,
    address: String,
    state: &'static str,
    replicas: usize,
}

pub(super) async fn run_node(session: &Session, command: NodeCommand) -> anyhow::Result<Verdict> {
    match command {
        NodeCommand::List => list(session),
        NodeCommand::Drain { node } => {
            let verdict =
                operations::carry_out(session, "node.drain", target(node), Op::DrainNode(pb::DrainNode { node }))
                    .await?;
            say(session, &format!("Node {node} holds nothing any more."))?;
            Ok(verdict)
        }
        NodeCommand::Activate { node } => {
            session.place("node.activate", target(node), Op::ActivateNode(pb::ActivateNode { node })).await?;
            say(session, &format!("Node {node} takes leads and replicas again."))?;
            Ok(Verdict::Good)
        }
        NodeCommand::Remove { node } => {
            session.place("node.remove", target(node), Op::RemoveNode(pb::RemoveNode { node })).await?;
            say(session, &format!("Node {node} is removed."))?;
            Ok(Verdict::Good)
        }
    }
}

fn target(node: u64) -> [String; 1] {
    [audit::node(NodeId(node))]
}

fn list(session: &Session) -> anyhow::Result<Verdict> {
    let map = session.map();
    let held = |node: u64| map.shards.iter().filter(|shard| shard.replicas.contains(&node)).count();
    let lines: Vec<NodeLine> = map
        .nodes
        .iter()
        .map(|node| NodeLine {
            id: node.id,
            region: node.region.clone(),
            address: node.address.clone(),
            state: node_state(node),
            replicas: held(node.id),
        })
        .collect();
    if session.json {
        session.print_json(&lines)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[
        ("node", Align::Right),
        ("region", Align::Left),
        ("address", Align::Left),
        ("state", Align::Left),
        ("replicas", Align::Right),
    ]);
    for line in lines {
        table.row([line.id.to_string(), line.region, line.address, line.state.into(), line.replicas.to_string()]);
    }
    table.print();
    Ok(Verdict::Good)
}

pub(super) async fn run_region(session: &Session, command: RegionCommand) -> anyhow::Result<Verdict> {
    let update = |region: &str| pb::UpdateRegion { region: region.to_owned(), ..pb::UpdateRegion::default() };
    let (region, action, op, said) = match command {
        RegionCommand::List => return list_regions(session),
        RegionCommand::Weight { region, weight } => {
            let op = Op::UpdateRegion(pb::UpdateRegion { weight: Some(weight), ..update(&region) });
            let said = match weight {
                0 => format!("Region {region} is drained: nobody new is sent there."),
                weight => format!("Region {region} has the weight {weight}."),
            };
            (region, "region.weight", op, said)
        }
        RegionCommand::Url { region, url } => {
            let said = match url.is_empty() {
                true => format!("Clients are not told of region {region}."),
                false => format!("Clients reach region {region} at {url}."),
            };
            let op = Op::UpdateRegion(pb::UpdateRegion { api_url: Some(url), ..update(&region) });
            (region, "region.url", op, said)
        }
        RegionCommand::Remove { region } => {
            let op = Op::RemoveRegion(pb::RemoveRegion { region: region.clone() });
            let said = format!("Region {region} is removed.");
            (region, "region.remove", op, said)
        }
    };
    session.place(action, [format!("region {region}")], op).await?;
    say(session, &said)?;
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct RegionLine {
    name: String,
    zone: String,
    weight: u32,
    url: String,
    nodes: usize,
}

fn list_regions(session: &Session) -> anyhow::Result<Verdict> {
    let map = session.map();
    let line = |region: &pb::Region| RegionLine {
        name: region.name.clone(),
        zone: region.zone.clone(),
        weight: region.weight.unwrap_or(REGION_WEIGHT),
        url: region.api_url.clone(),
        nodes: map.nodes.iter().filter(|node| node.region == region.name).count(),
    };
    let lines: Vec<RegionLine> = map.regions.iter().map(line).collect();
    if session.json {
        session.print_json(&lines)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[
        ("region", Align::Left),
        ("zone", Align::Left),
        ("weight", Align::Right),
        ("nodes", Align::Right),
        ("url", Align::Left),
    ]);
    for line in lines {
        table.row([line.name, line.zone, line.weight.to_string(), line.nodes.to_string(), line.url]);
    }
    table.print();
    Ok(Verdict::Good)
}

pub(super) async fn run_domain(session: &Session, command: DomainCommand) -> anyhow::Result<Verdict> {
    match command {
        DomainCommand::Add { domain, zone } => {
            let add = Op::AddDomain(pb::AddDomain { domain: domain.clone(), zone });
            session.place("domain.add", [format!("domain {domain}")], add).await?;
            say(session, &format!("Mail for {domain} is accepted."))?;
        }
        DomainCommand::Remove { domain } => {
            let remove = Op::RemoveDomain(pb::RemoveDomain { domain: domain.clone() });
            session.place("domain.remove", [format!("domain {domain}")], remove).await?;
            say(session, &format!("Mail for {domain} is refused."))?;
        }
        DomainCommand::Records(named) => return records::records(session, &named),
        DomainCommand::Check { named, resolver } => return records::check(session, &named, &resolver).await,
    }
    Ok(Verdict::Good)
}

#[derive(Serialize)]
struct Said<'s> {
    done: &'s str,
}

pub(super) fn say(session: &Session, sentence: &str) -> anyhow::Result<()> {
    if session.json {
        return session.print_json(&Said { done: sentence });
    }
    println!("{sentence}");
    Ok(())
}
