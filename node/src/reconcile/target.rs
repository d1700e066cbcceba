//! Where a replica goes that cannot stay.
//!
//! A simple rule, the same for whoever looks: a node of the shard's zone that may take replicas and holds none of the shard, in the
//! region that loses one if it can be, otherwise in one that has none; among those the one with the fewest replicas, then the one with
//! the smallest number.

use std::collections::{BTreeMap, HashMap};

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::{self, NodeState};

use crate::map::MapView;

/// Replicas of each node, as placement wants them.
pub(super) type Load = HashMap<u64, usize>;

pub(super) fn load(map: &MapView) -> Load {
    let mut load = Load::new();
    for placed in &map.map.shards {
        for node in &placed.replicas {
            *load.entry(*node).or_default() += 1;
        }
    }
    for operation in &map.map.operations {
        if let Some(pb::operation::Kind::SetReplicas(set)) = &operation.kind {
            for node in &set.replicas {
                *load.entry(*node).or_default() += 1;
            }
        }
    }
    load
}

/// The nodes that may take the replica of `placed` that `leaving` has, the best first.
pub(super) fn instead_of<'m>(map: &'m MapView, placed: &pb::Shard, leaving: NodeId, load: &Load) -> Vec<&'m pb::Node> {
    let zones: BTreeMap<&str, &str> =
        map.map.regions.iter().map(|region| (region.name.as_str(), region.zone.as_str())).collect();
    let left = map.node(leaving).map_or("", |node| node.region.as_str());
    let stay: Vec<&pb::Node> =
        placed.replicas.iter().filter(|id| **id != leaving.0).filter_map(|id| map.node(NodeId(*id))).collect();
    let may_take = |node: &&pb::Node| {
        node.state() == NodeState::Active
            && !placed.replicas.contains(&node.id)
            // Placement alone may be spread over zones.
            && (placed.id == ShardId::PLACEMENT.0 || zones.get(node.region.as_str()) == Some(&placed.zone.as_str()))
            && stay.iter().all(|other| node.failure_domain.is_empty() || other.failure_domain != node.failure_domain)
            && (node.region == left || stay.iter().all(|other| other.region != node.region))
    };
    let mut targets: Vec<_> = map.map.nodes.iter().filter(may_take).collect();
    targets.sort_by_key(|node| (node.region != left, load.get(&node.id).copied().unwrap_or(0), node.id));
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, region: &str) -> pb::Node {
        pb::Node { id, region: region.to_owned(), address: format!("n{id}:1"), ..Default::default() }
    }

    fn shard(id: u32, replicas: &[u64]) -> pb::Shard {
        pb::Shard { id, replicas: replicas.to_vec(), zone: "world".to_owned(), ..Default::default() }
    }

    fn map(nodes: Vec<pb::Node>, shards: Vec<pb::Shard>) -> MapView {
        let region =
            |name: &str, zone: &str| pb::Region { name: name.to_owned(), zone: zone.to_owned(), ..Default::default() };
        let regions = vec![region("a", "world"), region("b", "world"), region("c", "world"), region("x", "mars")];
        MapView::new(pb::ShardMap { version: 1, regions, nodes, shards, ..Default::default() })
    }

    fn chosen(map: &MapView, leaving: u64) -> Option<u64> {
        let placed = map.shard(ShardId(1000)).unwrap();
        instead_of(map, placed, NodeId(leaving), &load(map)).first().map(|node| node.id)
    }

    #[test]
    fn the_region_that_loses_a_replica_gets_one_on_its_least_loaded_node() {
        let nodes = vec![node(1, "a"), node(2, "b"), node(3, "b"), node(4, "a"), node(5, "a")];
        let shards = vec![shard(1000, &[1, 2]), shard(1001, &[4, 3])];
        assert_eq!(chosen(&map(nodes.clone(), shards), 1), Some(5));
        assert_eq!(chosen(&map(nodes, vec![shard(1000, &[1, 2])]), 1), Some(4), "the smaller number");
    }

    #[test]
    fn otherwise_another_region_of_the_zone_that_has_none() {
        let nodes = vec![node(1, "a"), node(2, "b"), node(3, "b"), node(4, "x"), node(5, "c")];
        assert_eq!(chosen(&map(nodes.clone(), vec![shard(1000, &[1, 2])]), 1), Some(5));
        let without = nodes.into_iter().filter(|node| node.id != 5).collect();
        assert_eq!(chosen(&map(without, vec![shard(1000, &[1, 2])]), 1), None);
    }

    #[test]
    fn a_node_that_is_being_emptied_takes_nothing() {
        let emptied = pb::Node { state: NodeState::Draining.into(), ..node(4, "a") };
        let nodes = vec![node(1, "a"), node(2, "b"), emptied, node(5, "a")];
        assert_eq!(chosen(&map(nodes, vec![shard(1000, &[1, 2])]), 1), Some(5));
    }
}
