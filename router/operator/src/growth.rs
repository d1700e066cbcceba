//! More mailbox shards while the cluster serves.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use postrider_api::audit;
use postrider_api::env::{SystemEntropy, random};
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, OperationState, ShardKind, command::Op, outcome};
use postrider_balance::grow;
use postrider_balance::limits::Limits;
use postrider_balance::observed::{self, Observed, Reports};

use crate::operation::Tell;
use crate::session::Session;

/// Shards that are added at once.
pub const ADDED_MAX: u32 = 1024;
/// Replicas of a new shard that is held to no policy.
const REPLICAS: u32 = 3;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Growth {
    /// How many more.
    pub count: u32,
    /// What they are held to; without it they get three replicas in as many regions of the zone, and their homes go round its regions.
    pub policy: Option<String>,
    /// Their residency zone, where no policy says it; may be left out where there is one.
    pub zone: Option<String>,
}

/// Makes the shards and waits until they are there. Shards that another command makes meanwhile have other numbers.
///
/// # Errors
/// When they cannot be placed, or one was not made.
pub async fn add(session: &Session, growth: &Growth, tell: Tell<'_>) -> anyhow::Result<Vec<pb::Shard>> {
    ensure!((1..=ADDED_MAX).contains(&growth.count), "1 to {ADDED_MAX} shards are added at once");
    let map = session.newest_map().await?;
    let new = choose(session, &map, growth).await?;
    let mut running = Vec::new();
    for shard in &new {
        let (id, targets) = (shard.id, [audit::shard(ShardId(shard.id))]);
        let place = Op::PlaceShard(pb::PlaceShard { shard: Some(shard.clone()), make: true });
        match session.place("shards.add", targets, place).await? {
            outcome::Result::OperationBegun(begun) => running.push((id, begun.id)),
            made => bail!("placement gave an outcome of another kind for shard {id}: {made:?}"),
        }
    }
    for (shard, operation) in running {
        let ended = session.until_ended(operation, tell).await?;
        ensure!(ended.state() == OperationState::Done, "shard {shard} was not made: {}", ended.waits_for);
    }
    Ok(new)
}

/// Numbers, nodes and homes of the new shards, by what there is already.
async fn choose(session: &Session, map: &pb::ShardMap, growth: &Growth) -> anyhow::Result<Vec<pb::Shard>> {
    let record = match &growth.policy {
        Some(name) => {
            let found = map.policies.iter().find(|policy| policy.name == *name);
            found.cloned().with_context(|| format!("policy: there is no policy {name:?}"))?
        }
        None => {
            let zone = zone(map, growth.zone.as_deref())?;
            pb::Policy { name: format!("{zone}-{REPLICAS}"), zone, replicas: REPLICAS, ..Default::default() }
        }
    };
    let (policy, zone) = (observed::policy_of(&record, map), record.zone);
    let (loads, _) = session.router.loads().await;
    let reports: Reports = loads.iter().collect();
    let answering = loads.iter().map(|load| NodeId(load.node)).collect();
    let given_up = BTreeSet::new();
    let view = observed::view(Observed { map, reports: &reports, answering: &answering, given_up: &given_up });
    let is_like = |id: ShardId| map.shards.iter().any(|shard| shard.id == id.0 && shard.zone == zone);
    let alike = view.shards.iter().filter(|shard| shard.id.kind() == Some(ShardKind::Mailbox) && is_like(shard.id));
    let (count, sum) = alike.fold((0_u64, 0_u64), |(count, sum), shard| (count + 1, sum.saturating_add(shard.bytes)));
    // They come to be as large as the others are.
    let bytes = sum.checked_div(count).unwrap_or(0);
    let places = grow::grow(&view, &policy, bytes, growth.count as usize, &Limits::default())?;
    let last = map.shards.iter().map(|shard| shard.id).max().unwrap_or(0).max(ShardId::MAILBOX_FIRST.0 - 1);
    let shards = (1..).zip(places).map(|(at, place)| pb::Shard {
        id: last.saturating_add(at),
        kind: ShardKind::Mailbox.into(),
        replicas: place.replicas.iter().map(|node| node.0).collect(),
        home_region: map.regions[usize::from(place.home.0)].name.clone(),
        zone: zone.clone(),
        policy: growth.policy.clone().unwrap_or_default(),
        incarnation: u64::from_be_bytes(random(&SystemEntropy)).max(1),
        ..Default::default()
    });
    Ok(shards.collect())
}

/// The zone of this name; without a name the only one.
///
/// # Errors
/// When there is none, or more than one to choose from.
pub fn zone(map: &pb::ShardMap, wanted: Option<&str>) -> anyhow::Result<String> {
    match (wanted, &map.zones[..]) {
        (Some(zone), zones) if zones.iter().any(|known| known.name == *zone) => Ok(zone.to_owned()),
        (Some(zone), _) => bail!("zone: there is no zone {zone:?}"),
        (None, [only]) => Ok(only.name.clone()),
        (None, zones) => {
            let names: Vec<&str> = zones.iter().map(|zone| zone.name.as_str()).collect();
            bail!("zone: one of {}", names.join(", "))
        }
    }
}
