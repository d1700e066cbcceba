//! `ctl plan`: what should move, and why. Nothing is done.

use std::collections::BTreeSet;

use anyhow::ensure;
use clap::Args;
use postrider_api::id::NodeId;
use postrider_balance::limits::Limits;
use postrider_balance::step::{Change, Step};
use postrider_balance::{Blocked, Plan};
use postrider_operator::plan::{is_good, make};
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    /// As if these were given up, should they not answer; without it, nodes that do not answer are waited for.
    #[arg(long = "given-up", value_name = "NODE[,NODE…]", value_delimiter = ',')]
    given_up: Vec<u64>,
    /// All of it, and not only what may be under way at a time.
    #[arg(long)]
    whole: bool,
}

#[derive(Serialize)]
struct Planned {
    steps: Vec<PlannedStep>,
    blocked: Vec<BlockedShard>,
    blocked_shards: usize,
    waiting_shards: usize,
    has_more: bool,
    /// That did not answer.
    silent_nodes: Vec<u64>,
}

#[derive(Serialize)]
struct PlannedStep {
    shard: u32,
    priority: String,
    /// `set_replicas` or `set_home`.
    operation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicas: Option<Vec<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    change: String,
    reason: String,
}

#[derive(Serialize)]
struct BlockedShard {
    shard: u32,
    reason: String,
}

pub(super) async fn run(session: &Session, arguments: &PlanArguments) -> anyhow::Result<Verdict> {
    let map = session.map();
    for node in &arguments.given_up {
        ensure!(map.nodes.iter().any(|known| known.id == *node), "--given-up: there is no node {node}");
    }
    let given_up: BTreeSet<NodeId> = arguments.given_up.iter().copied().map(NodeId).collect();
    let limits = if arguments.whole { Limits::default().unbounded() } else { Limits::default() };
    let (planned, silent) = make(&session.router, &map, &given_up, &limits).await?;
    if session.json {
        session.print_json(&for_programs(&planned, silent))?;
    } else {
        print(&planned, &silent);
    }
    Ok(if is_good(&planned) { Verdict::Good } else { Verdict::Bad })
}

fn for_programs(planned: &Plan, silent_nodes: Vec<u64>) -> Planned {
    let blocked = |Blocked { shard, reason }: &Blocked| BlockedShard { shard: shard.0, reason: reason.to_string() };
    Planned {
        steps: planned.steps.iter().map(step_for_programs).collect(),
        blocked: planned.blocked.iter().map(blocked).collect(),
        blocked_shards: planned.blocked_shards,
        waiting_shards: planned.waiting_shards,
        has_more: planned.has_more,
        silent_nodes,
    }
}

fn step_for_programs(step: &Step) -> PlannedStep {
    let (operation, replicas, region) = match &step.change {
        Change::Replicas { replicas, .. } => ("set_replicas", Some(replicas.iter().map(|node| node.0).collect()), None),
        Change::Home { region, .. } => ("set_home", None, Some(region.clone())),
    };
    PlannedStep {
        shard: step.shard.0,
        priority: step.priority.to_string(),
        operation,
        replicas,
        region,
        change: step.change.to_string(),
        reason: step.reason.to_string(),
    }
}

fn print(planned: &Plan, silent: &[u64]) {
    if !planned.steps.is_empty() {
        let columns = [("shard", Align::Right), ("for", Align::Left), ("change", Align::Left), ("why", Align::Left)];
        let mut table = Table::new(&columns);
        for step in &planned.steps {
            let cells = [step.priority.to_string(), step.change.to_string(), step.reason.to_string()];
            table.row([step.shard.to_string()].into_iter().chain(cells));
        }
        table.print();
        println!();
    }
    print_stuck(planned, silent);
    let is_good = planned.blocked_shards == 0 && planned.waiting_shards == 0;
    match (planned.steps.len(), planned.has_more) {
        (0, false) if is_good => println!("Nothing to do."),
        (0, _) => println!("Nothing can be done now."),
        (steps, false) => println!("{steps} steps; nothing was done."),
        (steps, true) => println!("{steps} steps may be under way at a time, more follow (--whole); nothing was done."),
    }
}

/// What cannot be put right, or not yet.
pub(super) fn print_stuck(planned: &Plan, silent: &[u64]) {
    for Blocked { shard, reason } in &planned.blocked {
        println!("shard {shard} stays as it is: {reason}");
    }
    let unnamed = planned.blocked_shards - planned.blocked.len();
    if unnamed > 0 {
        println!("{unnamed} more shards stay as they are");
    }
    if planned.waiting_shards > 0 {
        let nodes = silent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        println!("{} shards wait for nodes that do not answer: {nodes}", planned.waiting_shards);
    }
}
