//! `ctl status`: nodes, and whether each shard is whole.

use postrider_api::pb::ShardMap;
use postrider_router::operate::{NodeReport, primary_of};
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table, or_dash};
use super::whole::{self, Look, list};

#[derive(Serialize)]
struct Status {
    nodes: Vec<NodeStatus>,
    shards: usize,
    shards_without_primary: Vec<u32>,
    shards_missing_replicas: Vec<u32>,
    shards_behind: Vec<u32>,
    operations: usize,
}

#[derive(Serialize)]
struct NodeStatus {
    id: u64,
    region: String,
    zone: String,
    address: String,
    up: bool,
    error: Option<String>,
    version: Option<String>,
    pid: Option<u64>,
    replicas: usize,
    primaries: usize,
    leads: Vec<Lead>,
    stopped: Vec<StoppedReplica>,
}

/// A shard that the node leads, and since which election.
#[derive(Serialize)]
struct Lead {
    shard: u32,
    term: u64,
}

#[derive(Serialize)]
struct StoppedReplica {
    shard: u32,
    reason: String,
}

pub(super) async fn run(session: &Session) -> anyhow::Result<Verdict> {
    let Look { reports, lacks } = whole::look(session).await;
    let map = session.map();
    let whole = lacks.nothing();
    let status = Status {
        nodes: reports.iter().map(|report| of_node(report, &reports, &map)).collect(),
        shards: map.shards.len(),
        shards_without_primary: lacks.without_primary,
        shards_missing_replicas: lacks.missing_replicas,
        shards_behind: lacks.behind,
        operations: map.operations.len(),
    };
    if session.json {
        session.print_json(&status)?;
    } else {
        print(&status);
    }
    Ok(if whole { Verdict::Good } else { Verdict::Bad })
}

fn of_node(report: &NodeReport, reports: &[NodeReport], map: &ShardMap) -> NodeStatus {
    let region = map.regions.iter().find(|region| region.name == report.node.region);
    let answer = report.status.as_ref().ok();
    let replicas = answer.map(|answer| answer.replicas.as_slice()).unwrap_or_default();
    let led = || replicas.iter().filter(|replica| primary_of(replica.shard, reports) == Some(report.node.id));
    NodeStatus {
        id: report.node.id,
        region: report.node.region.clone(),
        zone: region.map_or_else(String::new, |region| region.zone.clone()),
        address: report.node.address.clone(),
        up: answer.is_some(),
        error: report.status.as_ref().err().map(ToString::to_string),
        version: answer.map(|answer| answer.version.clone()),
        pid: answer.map(|answer| answer.pid),
        replicas: replicas.len(),
        primaries: led().count(),
        leads: led().map(|replica| Lead { shard: replica.shard, term: replica.term }).collect(),
        stopped: replicas
            .iter()
            .filter(|replica| !replica.stopped_reason.is_empty())
            .map(|replica| StoppedReplica { shard: replica.shard, reason: replica.stopped_reason.clone() })
            .collect(),
    }
}

fn print(status: &Status) {
    let mut table = Table::new(&[
        ("node", Align::Right),
        ("zone", Align::Left),
        ("region", Align::Left),
        ("address", Align::Left),
        ("state", Align::Left),
        ("version", Align::Left),
        ("pid", Align::Right),
        ("replicas", Align::Right),
        ("primaries", Align::Right),
    ]);
    for node in &status.nodes {
        table.row([
            node.id.to_string(),
            node.zone.clone(),
            node.region.clone(),
            node.address.clone(),
            if node.up { "up" } else { "DOWN" }.into(),
            or_dash(node.version.as_ref()),
            or_dash(node.pid),
            node.replicas.to_string(),
            node.primaries.to_string(),
        ]);
    }
    table.print();
    println!();
    for node in &status.nodes {
        if let Some(error) = &node.error {
            println!("node {}: {error}", node.id);
        }
        for stopped in &node.stopped {
            println!("node {}: the replica of shard {} has stopped: {}", node.id, stopped.shard, stopped.reason);
        }
    }
    if status.shards_without_primary.is_empty() {
        println!("All {} shards have a primary.", status.shards);
    } else {
        println!("WITHOUT PRIMARY: {}", list(&status.shards_without_primary));
    }
    if !status.shards_missing_replicas.is_empty() {
        println!("Missing a replica: {}", list(&status.shards_missing_replicas));
    }
    if !status.shards_behind.is_empty() {
        println!("Catching up: {}", list(&status.shards_behind));
    }
    if status.operations > 0 {
        println!("{} operations are running: see `postrider ctl operations`.", status.operations);
    }
}
