//! Asks all nodes whether they are there, and what they hold.
//!
//! Whoever does not answer this node may answer others: a few of them, in other regions, are asked for their word before anybody counts as
//! silent (the indirect probe of SWIM).

use std::collections::{BTreeMap, BTreeSet};

use futures::stream::{self, StreamExt};
use postrider_api::id::NodeId;
use postrider_api::limit::PROBED_NODES_MAX;
use postrider_api::pb;
use postrider_balance::observed::Reports;

use crate::map::MapView;
use crate::peers::Peers;

/// Nodes that are asked at a time.
const ASKED_AT_A_TIME: usize = 64;
/// Nodes that are asked at a time for all that they hold: each answer has every replica.
const REPORTS_AT_A_TIME: usize = 8;
/// Nodes that are asked whether others answer them.
const WITNESSES_MAX: usize = 3;

/// Looks at all nodes.
#[derive(Clone)]
pub(crate) struct Lookout {
    pub(crate) node: NodeId,
    pub(crate) peers: Peers,
}

impl Lookout {
    /// The nodes that answer this one, or others. `turn` rises from look to look: not always the same are asked for others.
    pub(super) async fn answering(&self, map: &MapView, turn: usize) -> BTreeSet<NodeId> {
        let asked = map.map.nodes.iter().filter(|node| node.id != self.node.0);
        let answers: Vec<_> = asked.map(|node| self.answers(node)).collect();
        let answers = stream::iter(answers).buffer_unordered(ASKED_AT_A_TIME);
        let mut answering: BTreeSet<NodeId> = answers.filter_map(std::future::ready).collect().await;
        answering.insert(self.node);
        let witnessed = self.witnessed(map, &answering, turn).await;
        answering.extend(witnessed);
        answering
    }

    async fn answers(&self, node: &pb::Node) -> Option<NodeId> {
        let peer = self.peers.status(&node.address, true).await.ok()?;
        (peer.status.node == node.id).then_some(NodeId(node.id))
    }

    /// Of those that do not answer this node, the ones that answer others.
    async fn witnessed(&self, map: &MapView, answering: &BTreeSet<NodeId>, turn: usize) -> BTreeSet<NodeId> {
        let mut missing: Vec<&pb::Node> =
            map.map.nodes.iter().filter(|node| !answering.contains(&NodeId(node.id))).collect();
        // What becomes of those that are given up already is less urgent.
        missing.sort_by_key(|node| (node.given_up_ms != 0, node.id));
        let missing: Vec<u64> = missing.iter().map(|node| node.id).take(PROBED_NODES_MAX).collect();
        if missing.is_empty() {
            return BTreeSet::new();
        }
        let witnesses = witnesses(map, self.node, answering, turn);
        let words = witnesses.iter().map(|witness| self.peers.probe(&witness.address, missing.clone()));
        let words = futures::future::join_all(words).await;
        words.into_iter().flatten().flatten().map(NodeId).collect()
    }

    /// What these nodes hold. Whoever does not say so is left out.
    pub(super) async fn reports(&self, map: &MapView, answering: &BTreeSet<NodeId>) -> Reports {
        let asked = map.map.nodes.iter().filter(|node| answering.contains(&NodeId(node.id)));
        let answers: Vec<_> = asked.map(|node| self.peers.load(&node.address)).collect();
        let mut answers = stream::iter(answers).buffer_unordered(REPORTS_AT_A_TIME);
        let mut reports = Reports::default();
        while let Some(answer) = answers.next().await {
            if let Ok(load) = answer {
                reports.take(&load);
            }
        }
        reports
    }
}

/// Those who are asked for others: of as many regions as there are, this node's own last.
fn witnesses<'m>(map: &'m MapView, own: NodeId, answering: &BTreeSet<NodeId>, turn: usize) -> Vec<&'m pb::Node> {
    let own_region = map.node(own).map_or("", |node| node.region.as_str());
    let mut regions: BTreeMap<(bool, &str), Vec<&pb::Node>> = BTreeMap::new();
    for node in &map.map.nodes {
        if node.id != own.0 && answering.contains(&NodeId(node.id)) {
            regions.entry((node.region == own_region, node.region.as_str())).or_default().push(node);
        }
    }
    let rounds = regions.values().map(Vec::len).max().unwrap_or(0).min(WITNESSES_MAX);
    let in_turn = (0..rounds).flat_map(|round| {
        regions.values().filter(move |nodes| round < nodes.len()).map(move |nodes| nodes[(turn + round) % nodes.len()])
    });
    in_turn.take(WITNESSES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn witnesses_are_of_several_regions_and_take_turns() {
        let node = |id: u64, region: &str| pb::Node { id, region: region.to_owned(), ..Default::default() };
        let nodes = vec![node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b"), node(5, "c"), node(6, "d")];
        let map = MapView::new(pb::ShardMap { nodes, ..Default::default() });
        let chosen = |answering: &[u64], turn| {
            let answering = answering.iter().copied().map(NodeId).collect();
            witnesses(&map, NodeId(1), &answering, turn).iter().map(|node| node.id).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6], 0), [3, 5, 6]);
        assert_eq!(chosen(&[1, 2, 3, 4, 5, 6], 1), [4, 5, 6]);
        assert_eq!(chosen(&[1, 2, 3, 4], 0), [3, 2, 4], "its own region behind the others");
        assert_eq!(chosen(&[1], 0), [0; 0]);
    }
}
