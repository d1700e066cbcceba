//! Whose clocks this node compares its own with.
//!
//! Invariant: who is asked is found among those that are there, however many others are not: a node that did not answer makes
//! room for one that was not asked for longer, so the verdict never depends on which nodes the shard map lists first.

use std::collections::{BTreeMap, VecDeque};

use postrider_api::id::{NodeId, ShardId};

use crate::map::{Map, MapView};
use crate::replicas::Replicas;

/// Peers whose clocks are asked at a time.
pub(crate) const JUDGES_MAX: usize = 16;

/// A node that may be asked for the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Judge {
    pub(crate) address: String,
    pub(crate) region: String,
}

/// Which judges did not answer, and when they were asked last. As many as there are candidates at most.
#[derive(Debug, Default)]
pub(crate) struct Judges {
    round: u64,
    silent: BTreeMap<NodeId, u64>,
}

impl Judges {
    /// At most [`JUDGES_MAX`] of `candidates`, the regions in turn; in each those that answered when they were last asked or were
    /// not asked yet, then those whose silence is the longest ago.
    pub(crate) fn choose(&mut self, candidates: BTreeMap<NodeId, Judge>) -> Vec<(NodeId, Judge)> {
        self.round += 1;
        self.silent.retain(|node, _| candidates.contains_key(node));
        let mut by_region: BTreeMap<String, Vec<(u64, NodeId, Judge)>> = BTreeMap::new();
        for (node, judge) in candidates {
            let silent = self.silent.get(&node).copied().unwrap_or(0);
            by_region.entry(judge.region.clone()).or_default().push((silent, node, judge));
        }
        let mut lines: VecDeque<_> = by_region
            .into_values()
            .map(|mut line| {
                line.sort_unstable_by_key(|(silent, node, _)| (*silent, *node));
                VecDeque::from(line)
            })
            .collect();
        let mut chosen = Vec::new();
        while let Some(mut line) = lines.pop_front() {
            let Some((_, node, judge)) = line.pop_front() else { continue };
            chosen.push((node, judge));
            if chosen.len() == JUDGES_MAX {
                break;
            }
            lines.push_back(line);
        }
        chosen
    }

    /// Takes in whether one that was chosen has answered.
    pub(crate) fn heard(&mut self, node: NodeId, answered: bool) {
        if answered {
            self.silent.remove(&node);
        } else {
            self.silent.insert(node, self.round);
        }
    }
}

/// The nodes that share a group with this one: they are the ones to whom its stamps matter, and that it reaches if anybody. A node
/// that shares none stamps nothing; it may ask anybody.
pub(crate) fn candidates(own: NodeId, replicas: &Replicas, map: &Map) -> BTreeMap<NodeId, Judge> {
    let map = map.get();
    let mut candidates = BTreeMap::new();
    for group in replicas.host.groups() {
        let placed = map.iter().flat_map(|map| map.replicas(ShardId(group.0)));
        candidates.extend(placed.map(|node| (NodeId(node.id), of_node(node))));
        // Before there is a map, and for groups that are not in it (yet), by the membership; the map knows newer addresses.
        for (id, member) in replicas.status(ShardId(group.0)).into_iter().flat_map(|status| status.voters) {
            let (node, region) = (NodeId(id.0), member.region);
            candidates.entry(node).or_insert_with(|| match map.as_ref().and_then(|map| map.node(node)) {
                Some(known) => of_node(known),
                None => Judge { address: member.address, region },
            });
        }
    }
    candidates.remove(&own);
    if candidates.is_empty() {
        candidates = map.as_deref().map(everybody).unwrap_or_default();
        candidates.remove(&own);
    }
    candidates
}

fn everybody(map: &MapView) -> BTreeMap<NodeId, Judge> {
    map.map.nodes.iter().map(|node| (NodeId(node.id), of_node(node))).collect()
}

fn of_node(node: &postrider_api::pb::Node) -> Judge {
    Judge { address: node.address.clone(), region: node.region.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `nodes` nodes, the regions in turn.
    fn candidates(nodes: u64, regions: u64) -> BTreeMap<NodeId, Judge> {
        let judge = |id: u64| Judge { address: format!("n{id}:1"), region: format!("region-{}", id % regions) };
        (1..=nodes).map(|id| (NodeId(id), judge(id))).collect()
    }

    fn ask(judges: &mut Judges, candidates: &BTreeMap<NodeId, Judge>, is_there: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut answered = Vec::new();
        for (node, _) in judges.choose(candidates.clone()) {
            judges.heard(node, is_there(node.0));
            answered.extend(is_there(node.0).then_some(node.0));
        }
        answered
    }

    #[test]
    fn those_who_are_gone_make_room_wherever_they_stand() {
        for gone in [1..=16, 25..=40, 10..=30] {
            let (candidates, mut judges) = (candidates(40, 4), Judges::default());
            let mut answered = Vec::new();
            // A region of ten is gone through in three rounds at most, four at a time beside those who answer.
            for _ in 0..6 {
                answered = ask(&mut judges, &candidates, |id| !gone.contains(&id));
            }
            assert_eq!(answered.len(), JUDGES_MAX, "{gone:?}: {answered:?}");
        }
    }

    #[test]
    fn a_single_one_that_is_left_is_found_and_kept() {
        let (candidates, mut judges) = (candidates(200, 3), Judges::default());
        let rounds = 200usize.div_ceil(JUDGES_MAX) + 3;
        let found = (0..rounds).position(|_| ask(&mut judges, &candidates, |id| id == 200) == [200]);
        assert!(found.is_some(), "not within {rounds} rounds");
        assert_eq!(ask(&mut judges, &candidates, |id| id == 200), [200]);
    }

    #[test]
    fn every_region_is_asked_and_who_answers_is_asked_again() {
        let (candidates, mut judges) = (candidates(60, 5), Judges::default());
        let first = judges.choose(candidates.clone());
        assert_eq!(first.len(), JUDGES_MAX);
        for region in 0..5 {
            let here = first.iter().filter(|(node, _)| node.0 % 5 == region).count();
            assert!((3..=4).contains(&here), "{here} of region {region}");
        }
        first.iter().for_each(|(node, _)| judges.heard(*node, true));
        assert_eq!(judges.choose(candidates), first);
    }

    #[test]
    fn what_is_remembered_goes_with_the_node() {
        let mut judges = Judges::default();
        ask(&mut judges, &candidates(5, 1), |_| false);
        assert_eq!(judges.silent.len(), 5);
        ask(&mut judges, &candidates(2, 1), |_| true);
        assert!(judges.silent.is_empty());
    }
}
