//! The shard map as this node knows it.

use std::collections::HashMap;
use std::sync::Arc;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use tokio::sync::watch;

/// One version of the shard map with the indexes that calls need. Never changed once it is made.
#[derive(Debug)]
pub(crate) struct MapView {
    pub(crate) map: pb::ShardMap,
    shards: HashMap<u32, usize>,
    nodes: HashMap<u64, usize>,
    moves: HashMap<u32, usize>,
}

impl MapView {
    fn new(map: pb::ShardMap) -> Self {
        let shards = map.shards.iter().enumerate().map(|(at, shard)| (shard.id, at)).collect();
        let nodes = map.nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let moves = map.moves.iter().enumerate().map(|(at, running)| (running.shard, at)).collect();
        Self { map, shards, nodes, moves }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&pb::Shard> {
        self.shards.get(&shard.0).map(|&at| &self.map.shards[at])
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<&pb::Node> {
        self.nodes.get(&node.0).map(|&at| &self.map.nodes[at])
    }

    /// The shard's running move.
    pub(crate) fn running(&self, shard: ShardId) -> Option<&pb::Move> {
        self.moves.get(&shard.0).map(|&at| &self.map.moves[at])
    }

    /// The nodes that hold a replica of the shard.
    pub(crate) fn replicas(&self, shard: ShardId) -> impl Iterator<Item = &pb::Node> {
        let ids = self.shard(shard).map(|placed| placed.replicas.as_slice()).unwrap_or_default();
        ids.iter().filter_map(|id| self.node(NodeId(*id)))
    }
}

/// The newest map known here; `None` until there is one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Map {
    newest: watch::Sender<Option<Arc<MapView>>>,
}

impl Map {
    pub(crate) fn new() -> Self {
        Self { newest: watch::Sender::new(None) }
    }

    pub(crate) fn get(&self) -> Option<Arc<MapView>> {
        self.newest.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Option<Arc<MapView>>> {
        self.newest.subscribe()
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<pb::Node> {
        self.get()?.node(node).cloned()
    }

    /// Addresses of the nodes that hold a placement replica.
    pub(crate) fn placement(&self) -> Vec<String> {
        let Some(map) = self.get() else { return Vec::new() };
        map.replicas(ShardId::PLACEMENT).map(|node| node.address.clone()).collect()
    }

    /// Takes in a map, unless it is older than the one that is known.
    pub(crate) fn offer(&self, map: pb::ShardMap) {
        let is_newer =
            |newest: &Option<Arc<MapView>>| newest.as_ref().is_none_or(|known| known.map.version < map.version);
        // The index is made outside the lock, under which every call looks.
        if !is_newer(&self.newest.borrow()) {
            return;
        }
        let version = map.version;
        let view = Arc::new(MapView::new(map));
        self.newest.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|known| known.map.version < version);
            if newer {
                *newest = Some(view);
            }
            newer
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(version: u64) -> pb::ShardMap {
        let node = |id: u64| pb::Node { id, address: format!("n{id}:1"), ..Default::default() };
        let shard = |id: u32, replicas: &[u64]| pb::Shard { id, replicas: replicas.to_vec(), ..Default::default() };
        pb::ShardMap {
            version,
            nodes: vec![node(7), node(3), node(5)],
            shards: vec![shard(1000, &[5, 7]), shard(ShardId::PLACEMENT.0, &[3, 9])],
            moves: vec![pb::Move { shard: 1000, from: 5, to: 3, started_ms: 1 }],
            ..Default::default()
        }
    }

    #[test]
    fn everything_is_found_by_its_id() {
        let view = MapView::new(map(1));
        assert_eq!(view.shard(ShardId(1000)).unwrap().replicas, [5, 7]);
        assert_eq!(view.shard(ShardId(1001)), None);
        assert_eq!(view.node(NodeId(3)).unwrap().address, "n3:1");
        assert_eq!(view.running(ShardId(1000)).unwrap().to, 3);
        assert_eq!(view.running(ShardId::PLACEMENT), None);
        let holders: Vec<_> = view.replicas(ShardId::PLACEMENT).map(|node| node.id).collect();
        assert_eq!(holders, [3], "a node that the map does not know has no address");
    }

    #[test]
    fn an_older_map_is_not_taken() {
        let known = Map::new();
        let mut changes = known.changes();
        known.offer(map(4));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        known.offer(map(4));
        known.offer(pb::ShardMap { shards: Vec::new(), ..map(3) });
        assert!(!changes.has_changed().unwrap());
        assert!(known.get().unwrap().shard(ShardId(1000)).is_some());
        assert_eq!(known.placement(), ["n3:1"]);
    }
}
