//! The shard map as this node knows it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::map_update::Update;
use postrider_api::{map, pb};
use prost::Message;
use tokio::sync::watch;

/// Changes of the map that are remembered, for those who follow this node's.
const DELTAS_MAX: usize = 1024;
/// The same, bytes.
const DELTAS_BYTES_MAX: usize = 4 << 20;

/// Whether a node gets no lead and no replica: it is being emptied, or was, or it is given up and has not been seen again.
pub(crate) fn takes_nothing(node: &pb::Node) -> bool {
    node.state() == pb::NodeState::Draining || node.given_up_ms != 0
}

/// One version of the shard map with the indexes that calls need. Never changed once it is made.
#[derive(Debug)]
pub(crate) struct MapView {
    pub(crate) map: pb::ShardMap,
    shards: HashMap<u32, usize>,
    nodes: HashMap<u64, usize>,
    operations: HashMap<u64, usize>,
}

impl MapView {
    pub(crate) fn new(map: pb::ShardMap) -> Self {
        let shards = map.shards.iter().enumerate().map(|(at, shard)| (shard.id, at)).collect();
        let nodes = map.nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let operations = map.operations.iter().enumerate().map(|(at, running)| (running.id, at)).collect();
        Self { map, shards, nodes, operations }
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<&pb::Shard> {
        self.shards.get(&shard.0).map(|&at| &self.map.shards[at])
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<&pb::Node> {
        self.nodes.get(&node.0).map(|&at| &self.map.nodes[at])
    }

    /// The operation of this number, if it has not ended.
    pub(crate) fn operation(&self, id: u64) -> Option<&pb::Operation> {
        self.operations.get(&id).map(|&at| &self.map.operations[at])
    }

    /// Whether an operation changes the shard.
    pub(crate) fn changes(&self, shard: ShardId) -> bool {
        self.shard(shard).is_some_and(|placed| placed.operation != 0)
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
    recent: Arc<Mutex<Recent>>,
}

/// What the newest versions have changed, for those who follow this node's map. Each begins where the one before it ends, and the last
/// ends with the newest map.
#[derive(Default)]
struct Recent {
    deltas: VecDeque<(pb::MapDelta, usize)>,
    bytes: usize,
}

impl Recent {
    fn push(&mut self, delta: pb::MapDelta) {
        let bytes = delta.encoded_len();
        self.bytes += bytes;
        self.deltas.push_back((delta, bytes));
        while self.deltas.len() > DELTAS_MAX || self.bytes > DELTAS_BYTES_MAX {
            let Some((_, bytes)) = self.deltas.pop_front() else { break };
            self.bytes -= bytes;
        }
    }

    /// What has changed since `known`, if all of it is remembered.
    fn since(&self, known: u64) -> Option<pb::MapDelta> {
        let end = |delta: &pb::MapDelta| delta.changed.as_ref().map_or(0, |changed| changed.version);
        let mut missing = self.deltas.iter().map(|(delta, _)| delta).skip_while(|delta| end(delta) <= known);
        let first = missing.next().filter(|first| first.from_version <= known)?.clone();
        missing.try_fold(first, |sum, next| map::merge(sum, next.clone()).ok())
    }
}

impl Map {
    pub(crate) fn new() -> Self {
        Self { newest: watch::Sender::new(None), recent: Arc::default() }
    }

    pub(crate) fn get(&self) -> Option<Arc<MapView>> {
        self.newest.borrow().clone()
    }

    /// The version that is known; 0: none.
    pub(crate) fn version(&self) -> u64 {
        self.newest.borrow().as_ref().map_or(0, |known| known.map.version)
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

    /// Takes in an update, unless what it brings is known. `false`: it begins behind what is known here, and the whole map is to be
    /// asked for.
    pub(crate) fn offer(&self, update: pb::MapUpdate) -> bool {
        // Held all the time, so that what is remembered leads from one version to the next. Nobody waits for it who only looks.
        let mut recent = self.recent.lock();
        let known = self.get();
        let known_version = known.as_ref().map_or(0, |known| known.map.version);
        // The first map may be one of a placement that knows nothing yet.
        if known.is_some() && map::version(&update) <= known_version {
            return true;
        }
        let newer = match update.update {
            Some(Update::Whole(mut whole)) => {
                map::sort(&mut whole);
                *recent = Recent::default();
                whole
            }
            Some(Update::Delta(delta)) => {
                let mut newer = known.map(|known| known.map.clone()).unwrap_or_default();
                if !map::apply(&mut newer, delta.clone()) {
                    return false;
                }
                recent.push(delta);
                newer
            }
            None => return true,
        };
        // The index is made outside the lock under which every call looks.
        self.newest.send_replace(Some(Arc::new(MapView::new(newer))));
        true
    }

    /// What has changed since `known`, or the whole; `None` while there is no map.
    pub(crate) fn update_since(&self, known: u64) -> Option<pb::MapUpdate> {
        let recent = self.recent.lock();
        let newest = self.get()?;
        let version = newest.map.version;
        let update = if known == version && known > 0 {
            let changed = pb::ShardMap { version, ..Default::default() };
            Update::Delta(pb::MapDelta { from_version: version, changed: Some(changed), ..Default::default() })
        } else if let Some(delta) = recent.since(known).filter(|_| known > 0) {
            Update::Delta(delta)
        } else {
            drop(recent);
            Update::Whole(newest.map.clone())
        };
        Some(pb::MapUpdate { update: Some(update) })
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
            shards: vec![pb::Shard { operation: 9, ..shard(1000, &[5, 7]) }, shard(ShardId::PLACEMENT.0, &[3, 9])],
            operations: vec![pb::Operation { id: 9, started_ms: 1, ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn everything_is_found_by_its_id() {
        let view = MapView::new(map(1));
        assert_eq!(view.shard(ShardId(1000)).unwrap().replicas, [5, 7]);
        assert_eq!(view.shard(ShardId(1001)), None);
        assert_eq!(view.node(NodeId(3)).unwrap().address, "n3:1");
        assert_eq!(view.operation(9).unwrap().started_ms, 1);
        assert_eq!(view.operation(8), None);
        assert!(view.changes(ShardId(1000)) && !view.changes(ShardId::PLACEMENT));
        let holders: Vec<_> = view.replicas(ShardId::PLACEMENT).map(|node| node.id).collect();
        assert_eq!(holders, [3], "a node that the map does not know has no address");
    }

    fn whole(map: pb::ShardMap) -> pb::MapUpdate {
        pb::MapUpdate { update: Some(Update::Whole(map)) }
    }

    /// From one version to the next; the change is one node's address.
    fn delta(from_version: u64) -> pb::MapUpdate {
        let node = pb::Node { id: 5, address: format!("v{}:1", from_version + 1), ..Default::default() };
        let changed = pb::ShardMap { version: from_version + 1, nodes: vec![node], ..Default::default() };
        let delta = pb::MapDelta { from_version, changed: Some(changed), ..Default::default() };
        pb::MapUpdate { update: Some(Update::Delta(delta)) }
    }

    #[test]
    fn an_older_map_is_not_taken() {
        let known = Map::new();
        let mut changes = known.changes();
        assert!(known.offer(whole(sorted(4))));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        assert!(known.offer(whole(sorted(4))));
        assert!(known.offer(whole(pb::ShardMap { shards: Vec::new(), ..sorted(3) })));
        assert!(!changes.has_changed().unwrap());
        assert!(known.get().unwrap().shard(ShardId(1000)).is_some());
        assert_eq!(known.placement(), ["n3:1"]);
    }

    fn sorted(version: u64) -> pb::ShardMap {
        let mut map = map(version);
        map::sort(&mut map);
        map
    }

    #[test]
    fn whoever_is_a_little_behind_gets_what_has_changed_and_comes_to_the_same_map() {
        let known = Map::new();
        assert!(known.update_since(0).is_none());
        known.offer(whole(sorted(10)));
        for version in 10..20 {
            assert!(known.offer(delta(version)));
        }
        assert!(!known.offer(delta(30)), "what is between is missing");
        let newest = known.get().unwrap().map.clone();
        assert_eq!(newest.version, 20);
        for behind in [10, 13, 19, 20] {
            let follower = Map::new();
            follower.offer(whole(sorted(10)));
            for version in 10..behind {
                follower.offer(delta(version));
            }
            let update = known.update_since(behind).unwrap();
            assert!(matches!(update.update, Some(Update::Delta(_))), "{behind}");
            assert!(follower.offer(update));
            assert_eq!(follower.get().unwrap().map, newest, "{behind}");
        }
        for stranger in [0, 9, 21] {
            let update = known.update_since(stranger).unwrap();
            assert_eq!(update.update, Some(Update::Whole(newest.clone())), "{stranger}");
        }
    }

    #[test]
    fn a_placement_that_knows_nothing_yet_has_a_map_all_the_same() {
        let known = Map::new();
        assert!(known.offer(whole(pb::ShardMap::default())));
        let update = known.update_since(0).unwrap();
        assert_eq!(update.update, Some(Update::Whole(pb::ShardMap::default())));
        assert!(known.offer(whole(sorted(1))));
        assert_eq!(known.version(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let known = Map::new();
        known.offer(whole(sorted(1)));
        for version in 1..2000 {
            known.offer(delta(version));
        }
        let recent = known.recent.lock();
        assert_eq!(recent.deltas.len(), DELTAS_MAX);
        assert_eq!(recent.bytes, recent.deltas.iter().map(|(_, bytes)| bytes).sum::<usize>());
    }
}
