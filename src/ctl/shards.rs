//! `ctl shards`: all shards, and more of them.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, OperationState, ShardKind, command::Op, outcome};
use postrider_balance::grow;
use postrider_balance::limits::Limits;
use postrider_balance::observed::{self, Observed, Reports};
use serde::Serialize;

use super::Verdict;
use super::operations;
use super::session::{Session, primary_of, replicas_of};
use super::table::{Align, Table, join, or_dash};

/// Shards that are added by one command.
const ADDED_MAX: u32 = 1024;
/// Replicas of a new shard that is held to no policy.
const REPLICAS: u32 = 3;

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
    ensure!((1..=ADDED_MAX).contains(&arguments.count), "--count: 1 to {ADDED_MAX}");
    let map = session.map();
    let new = choose(session, &map, arguments).await?;
    let mut running = Vec::new();
    for shard in &new {
        let (id, targets) = (shard.id, [postrider_api::audit::shard(ShardId(shard.id))]);
        let place = Op::PlaceShard(pb::PlaceShard { shard: Some(shard.clone()), make: true });
        match session.place("shards.add", targets, place).await? {
            outcome::Result::OperationBegun(begun) => running.push((id, begun.id)),
            made => bail!("placement gave an outcome of another kind for shard {id}: {made:?}"),
        }
    }
    for (shard, operation) in running {
        let ended = operations::until_ended(session, operation).await?;
        ensure!(ended.state() == OperationState::Done, "shard {shard} was not made: {}", ended.waits_for);
    }
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

/// Numbers, nodes and homes of the new shards, by what there is already.
async fn choose(session: &Session, map: &pb::ShardMap, arguments: &AddArguments) -> anyhow::Result<Vec<pb::Shard>> {
    let record = match &arguments.policy {
        Some(name) => {
            let found = map.policies.iter().find(|policy| policy.name == *name);
            found.cloned().with_context(|| format!("--policy: there is no policy {name:?}"))?
        }
        None => {
            let zone = zone(map, arguments.zone.as_deref())?;
            pb::Policy { name: format!("{zone}-{REPLICAS}"), zone, replicas: REPLICAS, ..Default::default() }
        }
    };
    let (policy, zone) = (observed::policy_of(&record, map), record.zone);
    let (loads, _) = session.loads().await;
    let reports: Reports = loads.iter().collect();
    let answering = loads.iter().map(|load| postrider_api::id::NodeId(load.node)).collect();
    let given_up = BTreeSet::new();
    let view = observed::view(Observed { map, reports: &reports, answering: &answering, given_up: &given_up });
    let is_like = |id: ShardId| map.shards.iter().any(|shard| shard.id == id.0 && shard.zone == zone);
    let alike = view.shards.iter().filter(|shard| shard.id.kind() == Some(ShardKind::Mailbox) && is_like(shard.id));
    let (count, sum) = alike.fold((0_u64, 0_u64), |(count, sum), shard| (count + 1, sum.saturating_add(shard.bytes)));
    // They come to be as large as the others are.
    let bytes = sum.checked_div(count).unwrap_or(0);
    let places = grow::grow(&view, &policy, bytes, arguments.count as usize, &Limits::default())?;
    let last = map.shards.iter().map(|shard| shard.id).max().unwrap_or(0).max(ShardId::MAILBOX_FIRST.0 - 1);
    let shards = (1..).zip(places).map(|(at, place)| pb::Shard {
        id: last.saturating_add(at),
        kind: ShardKind::Mailbox.into(),
        replicas: place.replicas.iter().map(|node| node.0).collect(),
        home_region: map.regions[usize::from(place.home.0)].name.clone(),
        zone: zone.clone(),
        policy: arguments.policy.clone().unwrap_or_default(),
        incarnation: u64::from_be_bytes(random(&SystemEntropy)).max(1),
        ..Default::default()
    });
    Ok(shards.collect())
}

fn zone(map: &pb::ShardMap, wanted: Option<&str>) -> anyhow::Result<String> {
    match (wanted, &map.zones[..]) {
        (Some(zone), zones) if zones.iter().any(|known| known.name == *zone) => Ok(zone.to_owned()),
        (Some(zone), _) => bail!("--zone: there is no zone {zone:?}"),
        (None, [only]) => Ok(only.name.clone()),
        (None, zones) => {
            let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
            bail!("--zone: one of {}", names.join(", "))
        }
    }
}

async fn list(session: &Session) -> anyhow::Result<Verdict> {
    let reports = session.reports().await;
    let map = session.map();
    let mut lines: Vec<ShardLine> = map
        .shards
        .iter()
        .map(|shard| {
            let primary = primary_of(shard.id, &reports);
            // The primary's counters; without one, those of the replica that has applied most.
            let replica = replicas_of(shard.id, &reports)
                .max_by_key(|(node, replica)| (Some(*node) == primary, replica.applied))
                .map(|(_, replica)| replica);
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
                kind_name(line.shard).into(),
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

fn kind_name(shard: u32) -> &'static str {
    match ShardId(shard).kind() {
        Some(ShardKind::Placement) => "placement",
        Some(ShardKind::Directory) => "directory",
        Some(ShardKind::Mailbox) => "mailbox",
        Some(ShardKind::Unspecified) | None => "-",
    }
}
