//! `ctl shards`: all shards, and more of them.

use clap::{Args, Subcommand};
use postrider_operator::growth::{self, Growth};
use postrider_router::operate::{counters_of, primary_of, shard_kind};
use serde::Serialize;

use super::Verdict;
use super::operations;
use super::session::Session;
use super::table::{Align, Table, join, or_dash};

#[derive(Debug, Subcommand)]
pub(crate) enum ShardsCommand {
    /// Make more mailbox shards while the cluster serves, and wait until they are there. New accounts spread over them.
    Add(AddArguments),
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// How many.
    #[arg(long, value_name = "N")]
    count: u32,
    /// What they are held to. Without it they get three replicas in as many regions of the zone, and their homes go round its regions.
    #[arg(long, value_name = "POLICY", conflicts_with = "zone")]
    policy: Option<String>,
    /// Their residency zone; may be left out where there is one.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
}

#[derive(Serialize)]
struct Added {
    shard: u32,
    replicas: Vec<u64>,
    home_region: String,
}

/// One shard. A primary that is not known is null.
#[derive(Serialize)]
struct ShardLine {
    shard: u32,
    primary: Option<u64>,
    replicas: Vec<u64>,
    zone: String,
    home_region: String,
    epoch: u64,
    users: u64,
    bytes: u64,
}

pub(super) async fn run(session: &Session, command: Option<ShardsCommand>) -> anyhow::Result<Verdict> {
    match command {
        None => list(session).await,
        Some(ShardsCommand::Add(arguments)) => add(session, &arguments).await,
    }
}

async fn add(session: &Session, arguments: &AddArguments) -> anyhow::Result<Verdict> {
    let growth = Growth { count: arguments.count, policy: arguments.policy.clone(), zone: arguments.zone.clone() };
    let new = growth::add(session, &growth, &mut |look| operations::tell_of(session, &look)).await?;
    let added: Vec<Added> = new
        .into_iter()
        .map(|shard| Added { shard: shard.id, replicas: shard.replicas, home_region: shard.home_region })
        .collect();
    if session.json {
        session.print_json(&added)?;
    } else {
        for Added { shard, replicas, home_region } in &added {
            println!("Shard {shard} is on {}, at home in {home_region}.", join(replicas));
        }
    }
    Ok(Verdict::Good)
}

async fn list(session: &Session) -> anyhow::Result<Verdict> {
    let reports = session.reports().await;
    let map = session.map();
    let mut lines: Vec<ShardLine> = map
        .shards
        .iter()
        .map(|shard| {
            let primary = primary_of(shard.id, &reports);
            let replica = counters_of(shard.id, primary, &reports);
            ShardLine {
                shard: shard.id,
                primary,
                replicas: shard.replicas.clone(),
                zone: shard.zone.clone(),
                home_region: shard.home_region.clone(),
                epoch: shard.epoch,
                users: replica.map_or(0, |replica| replica.users),
                bytes: replica.map_or(0, |replica| replica.bytes),
            }
        })
        .collect();
    lines.sort_by_key(|line| line.shard);
    if session.json {
        session.print_json(&lines)?;
    } else {
        let mut table = Table::new(&[
            ("shard", Align::Right),
            ("kind", Align::Left),
            ("primary", Align::Right),
            ("replicas", Align::Left),
            ("zone", Align::Left),
            ("home", Align::Left),
            ("epoch", Align::Right),
            ("users", Align::Right),
            ("bytes", Align::Right),
        ]);
        for line in &lines {
            table.row([
                line.shard.to_string(),
                shard_kind(line.shard).into(),
                or_dash(line.primary),
                join(&line.replicas),
                line.zone.clone(),
                line.home_region.clone(),
                line.epoch.to_string(),
                line.users.to_string(),
                line.bytes.to_string(),
            ]);
        }
        table.print();
    }
    Ok(Verdict::Good)
}
