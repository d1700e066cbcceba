//! Keeps the shard map fresh by stream, and measures how far the regions are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::map_stream::MapUpdates;
use postrider_api::pb;
use tonic::Status;

use crate::backoff::Backoff;
use crate::peer::Peer;
use crate::router::Core;

/// How long a node may take to send its first map.
const FIRST_MAP: Duration = Duration::from_secs(3);
/// How long a probe waits.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// The least time between two streams, however often a caller asks for a fresh map.
const STREAM_GAP: Duration = Duration::from_millis(200);

/// Follows the map at one node after the other, the nearest first, for ever.
pub(crate) async fn follow(core: Arc<Core>) {
    let timings = core.options.timings.clone();
    let mut backoff = Backoff::new(timings.backoff_min * 4, timings.backoff_max * 4);
    let mut last: Option<Arc<str>> = None;
    loop {
        let mut any = false;
        for peer in sources(&core, last.as_deref()) {
            last = Some(peer.address.clone());
            match follow_one(&core, &peer).await {
                Ok(()) => {
                    any = true;
                    break;
                }
                Err(status) => {
                    tracing::debug!(node = %peer.address, %status, "no shard map from this node");
                    *core.map_trouble.write() = format!("{}: {}", peer.address, status.message());
                    core.failed(&peer);
                }
            }
        }
        if any {
            backoff.reset();
            tokio::time::sleep(STREAM_GAP).await;
        } else {
            tokio::time::sleep(backoff.next(&*core.options.entropy)).await;
        }
    }
}

/// Whom to ask: those that hold placement, then the seeds, the nearest first; those behind whoever was asked last come before
/// it, so that each has its turn: the two nearest may both be cut off.
fn sources(core: &Core, last: Option<&str>) -> Vec<Arc<Peer>> {
    let view = core.view();
    let holders: Vec<_> =
        view.replicas(ShardId::PLACEMENT).iter().filter_map(|node| core.peer(&node.address)).collect();
    let seeds: Vec<_> = core.options.nodes.iter().filter_map(|address| core.peer(address)).collect();
    let mut seen = BTreeSet::new();
    let mut sources: Vec<_> = core
        .nearest(holders)
        .into_iter()
        .chain(core.nearest(seeds))
        .filter(|peer| seen.insert(peer.address.clone()))
        .collect();
    in_turn(&mut sources, |peer| last == Some(&*peer.address));
    sources.sort_by_key(|peer| core.is_suspect(peer));
    sources
}

/// Begins behind the one that was last.
fn in_turn<T>(sources: &mut [T], is_last: impl Fn(&T) -> bool) {
    if let Some(at) = sources.iter().position(is_last) {
        sources.rotate_left(at + 1);
    }
}

/// Follows one node's stream until it ends. `Ok` when it gave at least one map.
async fn follow_one(core: &Core, peer: &Peer) -> Result<(), Status> {
    let known_version = core.view().map.version;
    let mut service = peer.map_service();
    let opening = service.watch_map(pb::WatchMapRequest { known_version });
    let stream = tokio::time::timeout(FIRST_MAP, opening)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??
        .into_inner();
    let mut updates = MapUpdates::new(stream);
    let first = tokio::time::timeout(FIRST_MAP, updates.next())
        .await
        .map_err(|_| Status::deadline_exceeded("no map in time"))??;
    if !take(core, first.ok_or_else(|| Status::unavailable("the node has no map"))?, &mut updates) {
        return Err(Status::out_of_range("it does not know the version that is known here"));
    }
    peer.suspicion.answered();

    let age = tokio::time::sleep(core.options.timings.map_stream);
    tokio::pin!(age);
    loop {
        tokio::select! {
            update = updates.next() => match update {
                // Behind another node's map: the next stream begins with what is missing.
                Ok(Some(update)) => if !take(core, update, &mut updates) { return Ok(()) },
                Ok(None) => return Ok(()),
                Err(status) => {
                    tracing::debug!(node = %peer.address, %status, "map stream ended");
                    core.failed(peer);
                    return Ok(());
                }
            },
            () = &mut age => return Ok(()),
            () = core.refresh.notified() => return Ok(()),
        }
    }
}

/// `false`: the update begins behind what is known here.
fn take(core: &Core, update: pb::MapUpdate, updates: &mut MapUpdates) -> bool {
    let began = core.now();
    let taken = core.receive(update);
    updates.took(core.now().saturating_sub(began));
    taken
}

/// Measures the round trip to one node of each region, another one each time.
pub(crate) async fn probe(core: Arc<Core>) {
    let mut round = 0usize;
    loop {
        let mut regions: BTreeMap<String, Vec<Arc<Peer>>> = BTreeMap::new();
        for node in &core.view().map.nodes {
            if let Some(peer) = core.peer(&node.address) {
                regions.entry(node.region.clone()).or_default().push(peer);
            }
        }
        let chosen = regions.into_values().filter_map(|peers| peers.get(round % peers.len().max(1)).cloned());
        futures::future::join_all(chosen.map(|peer| probe_one(&core, peer))).await;
        round = round.wrapping_add(1);
        tokio::time::sleep(core.options.timings.probe).await;
    }
}

/// Asks for a map version that is known already: the shortest answer there is. A refusal is a round trip as well.
async fn probe_one(core: &Core, peer: Arc<Peer>) {
    let query = pb::GetShardMap { known_version: core.view().map.version };
    let request = pb::QueryRequest {
        shard: ShardId::PLACEMENT.0,
        mode: pb::ReadMode::Stale.into(),
        query: Some(pb::Query { query: Some(pb::query::Query::GetShardMap(query)) }),
        ..Default::default()
    };
    let began = core.now();
    let mut service = peer.shard_service();
    match tokio::time::timeout(PROBE_TIMEOUT, service.query(request)).await {
        Ok(Ok(_)) => {
            peer.latency.record(core.now().saturating_sub(began));
            peer.suspicion.answered();
        }
        Ok(Err(status)) => {
            tracing::debug!(node = %peer.address, %status, "probe failed");
            core.failed(&peer);
        }
        Err(_) => core.failed(&peer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_its_turn() {
        let mut last = None;
        let mut turns = Vec::new();
        for _ in 0..4 {
            let mut sources = ["a", "b", "c"];
            in_turn(&mut sources, |source| last == Some(*source));
            turns.push(sources[0]);
            last = Some(sources[0]);
        }
        assert_eq!(turns, ["a", "b", "c", "a"]);
    }
}
