//! `ctl move`: a replica goes to another node.

use anyhow::{Context as _, ensure};
use postrider_api::audit;
use postrider_api::id::{NodeId, ShardId};
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::join;

#[derive(Serialize)]
struct Moved {
    shard: u32,
    replicas: Vec<u64>,
    epoch: u64,
}

pub(super) async fn run(session: &Session, shard: u32, from: u64, to: u64) -> anyhow::Result<Verdict> {
    let place = session.shard(shard)?;
    ensure!(place.replicas.contains(&from), "shard {shard} has no replica on node {from}, but on {:?}", place.replicas);
    ensure!(!place.replicas.contains(&to), "shard {shard} has a replica on node {to} already");
    session.admin(to).context("find the node that shall have it")?;
    let mut changes = session.router.map_changes();
    let primary = session.primary(shard).await?;
    let client = session.admin(primary.0)?;
    let targets = [audit::shard(ShardId(shard)), audit::node(NodeId(from)), audit::node(NodeId(to))];
    let relocate =
        async { client.move_replica(ShardId(shard), NodeId(from), NodeId(to)).await.context("move the replica") };
    session.audited("shard.move", targets, relocate).await?;
    // The move is over; the map that tells so is on its way here.
    let known = tokio::time::timeout(
        DEADLINE,
        changes.wait_for(|map| {
            let shard = map.shards.iter().find(|known| known.id == shard);
            shard.is_some_and(|shard| shard.replicas.contains(&to) && !shard.replicas.contains(&from))
        }),
    );
    let arrived = known.await.context("the replica has moved, but the shard map does not say so yet")?;
    drop(arrived.context("follow the shard map")?);
    let place = session.shard(shard)?;
    let moved = Moved { shard, replicas: place.replicas, epoch: place.epoch };
    if session.json {
        session.print_json(&moved)?;
    } else {
        println!("Shard {shard} has its replicas on {} (epoch {}).", join(&moved.replicas), moved.epoch);
    }
    Ok(Verdict::Good)
}
