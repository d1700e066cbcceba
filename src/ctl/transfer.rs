//! `ctl transfer`: another replica leads.

use anyhow::{Context as _, ensure};
use postrider_api::audit;
use postrider_api::id::{NodeId, ShardId};
use serde::Serialize;

use super::Verdict;
use super::session::Session;

#[derive(Serialize)]
struct Transferred {
    shard: u32,
    from: u64,
    primary: u64,
}

pub(super) async fn run(session: &Session, shard: u32, node: u64) -> anyhow::Result<Verdict> {
    let place = session.shard(shard)?;
    ensure!(place.replicas.contains(&node), "shard {shard} has no replica on node {node}, but on {:?}", place.replicas);
    let from = session.primary(shard).await?;
    if from != NodeId(node) {
        let client = session.admin(from.0)?;
        let targets = [audit::shard(ShardId(shard)), audit::node(NodeId(node))];
        let transfer = async { client.transfer(ShardId(shard), NodeId(node)).await.context("transfer the lead") };
        session.audited("shard.transfer", targets, transfer).await?;
    }
    let transferred = Transferred { shard, from: from.0, primary: node };
    if session.json {
        session.print_json(&transferred)?;
    } else if from == NodeId(node) {
        println!("Node {node} leads shard {shard} already.");
    } else {
        println!("Node {node} leads shard {shard}; before, node {from} did.");
    }
    Ok(Verdict::Good)
}
