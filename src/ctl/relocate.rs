//! `ctl move`, `ctl replicas`, `ctl home`: where a shard is. Placement records what is wanted; this waits until it is so.

use anyhow::{Context as _, ensure};
use postrider_api::audit;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, command::Op};
use serde::Serialize;

use super::Verdict;
use super::operations;
use super::session::{DEADLINE, Session};
use super::table::join;

#[derive(Serialize)]
struct Placed {
    shard: u32,
    replicas: Vec<u64>,
    home_region: String,
    epoch: u64,
}

pub(super) async fn run_move(session: &Session, shard: u32, from: u64, to: u64) -> anyhow::Result<Verdict> {
    let place = session.shard(shard)?;
    ensure!(place.replicas.contains(&from), "shard {shard} has no replica on node {from}, but on {:?}", place.replicas);
    ensure!(!place.replicas.contains(&to), "shard {shard} has a replica on node {to} already");
    session.admin(to).context("find the node that shall have it")?;
    let replicas = place.replicas.iter().map(|node| if *node == from { to } else { *node }).collect();
    set_replicas(session, "shard.move", pb::SetReplicas { shard, replicas, epoch: place.epoch, ..Default::default() })
        .await
}

pub(super) async fn run_replicas(session: &Session, shard: u32, replicas: Vec<u64>) -> anyhow::Result<Verdict> {
    let place = session.shard(shard)?;
    set_replicas(
        session,
        "shard.replicas",
        pb::SetReplicas { shard, replicas, epoch: place.epoch, ..Default::default() },
    )
    .await
}

async fn set_replicas(session: &Session, action: &str, set: pb::SetReplicas) -> anyhow::Result<Verdict> {
    let (shard, wanted) = (set.shard, set.replicas.clone());
    let nodes = set.replicas.iter().map(|node| audit::node(NodeId(*node)));
    let targets: Vec<String> = [audit::shard(ShardId(shard))].into_iter().chain(nodes).collect();
    let verdict = operations::carry_out(session, action, targets, Op::SetReplicas(set)).await?;
    if verdict == Verdict::Bad {
        return Ok(verdict);
    }
    until_known(session, shard, |place| {
        place.replicas.len() == wanted.len() && wanted.iter().all(|node| place.replicas.contains(node))
    })
    .await
}

pub(super) async fn run_home(session: &Session, shard: u32, region: String) -> anyhow::Result<Verdict> {
    session.shard(shard)?;
    let set = pb::SetHome { shard, region: region.clone(), ..Default::default() };
    let targets = [audit::shard(ShardId(shard)), format!("region {region}")];
    let verdict = operations::carry_out(session, "shard.home", targets, Op::SetHome(set)).await?;
    if verdict == Verdict::Bad {
        return Ok(verdict);
    }
    until_known(session, shard, |place| place.home_region == region).await
}

/// It is over; the map that tells so is on its way here.
async fn until_known(session: &Session, shard: u32, is_so: impl Fn(&pb::Shard) -> bool) -> anyhow::Result<Verdict> {
    let mut changes = session.router.map_changes();
    let known = changes.wait_for(|map| map.shards.iter().any(|known| known.id == shard && is_so(known)));
    let arrived =
        tokio::time::timeout(DEADLINE, known).await.context("it is done, but the shard map does not say so yet")?;
    drop(arrived.context("follow the shard map")?);
    let place = session.shard(shard)?;
    let placed = Placed { shard, replicas: place.replicas, home_region: place.home_region, epoch: place.epoch };
    if session.json {
        session.print_json(&placed)?;
    } else {
        let Placed { replicas, home_region, epoch, .. } = &placed;
        println!("Shard {shard} has its replicas on {} and its home in {home_region} (epoch {epoch}).", join(replicas));
    }
    Ok(Verdict::Good)
}
