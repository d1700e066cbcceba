//! Where new shards go: their homes go round the regions by what these lead already, their replicas to the nodes that bear least.

use postrider_api::id::{NodeId, ShardId};
use thiserror::Error;

use crate::budget::Budget;
use crate::cell::{Cell, Dimension, load};
use crate::limits::Limits;
use crate::members::{Members, Spot};
use crate::place::{Found, Search};
use crate::ranks::Ranks;
use crate::view::{Policy, PolicyNo, RegionNo, Shard, View, ViewError};

/// The place of one new shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grown {
    /// The first is at home.
    pub replicas: Vec<NodeId>,
    /// Where its primary should be.
    pub home: RegionNo,
}

/// Why there are no places for as many shards as were wanted.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum GrowError {
    /// The view does not hang together.
    #[error(transparent)]
    View(#[from] ViewError),
    /// There are places for so many.
    #[error("there is room for {placed} more: policy {policy} wants {replicas} nodes that are up, apart and not full")]
    NoPlace {
        /// How many there are places for.
        placed: usize,
        /// The policy.
        policy: String,
        /// What it wants.
        replicas: u8,
    },
}

/// Places for `count` new shards that are held to `policy`, each expected to have so many bytes one day.
///
/// # Errors
/// When the view does not hang together, or there is no place for all of them.
pub fn grow(view: &View, policy: &Policy, bytes: u64, count: usize, limits: &Limits) -> Result<Vec<Grown>, GrowError> {
    let mut view = view.clone();
    let number = u16::try_from(view.policies.len()).unwrap_or(u16::MAX);
    view.policies.push(policy.clone());
    view.check()?;
    let first = view.shards.len();
    let last = view.shards.last().map_or(0, |shard| shard.id.0);
    let home = policy.regions.first().copied().unwrap_or(RegionNo(0));
    view.shards.extend((1..).take(count).map(|at| Shard {
        id: ShardId(last.saturating_add(at)),
        policy: PolicyNo(number),
        // None yet: only a cell knows such shards.
        replicas: Vec::new(),
        lead: None,
        home,
        epoch: 0,
        bytes,
        writes_per_s: 0,
        running: None,
    }));
    let mut cell = Cell::new(&view);
    let mut ranks = Ranks::new(&cell, Dimension::Bytes);
    let budget = Budget::new(&view, &cell, limits.unbounded());
    let mut grown = Vec::with_capacity(count);
    for shard in first..first + count {
        let homes = homes(&cell, shard);
        let found =
            homes.into_iter().find_map(|home| Some((home, places(&cell, &ranks, &budget, limits, shard, home)?)));
        let Some((home, members)) = found else {
            let (policy, replicas) = (policy.name.clone(), policy.replicas);
            return Err(GrowError::NoPlace { placed: grown.len(), policy, replicas });
        };
        cell.replace_home(shard, home);
        cell.replace_members(shard, members);
        members.iter().for_each(|spot: Spot| ranks.file(&cell, spot));
        grown.push(Grown { replicas: cell.ids(&members), home: RegionNo(home) });
    }
    Ok(grown)
}

/// The regions that a shard may be at home in, the one first that leads least by what it can bear.
fn homes(cell: &Cell, shard: usize) -> Vec<u16> {
    let policy = cell.policy(shard);
    if let Some(home) = policy.home {
        return vec![home];
    }
    let mut homes: Vec<(u64, u16)> = policy
        .regions
        .iter()
        .map(|region| {
            let (leads, capacity) = cell.sums(Dimension::Leads, Some(*region));
            (load(leads, capacity), *region)
        })
        .collect();
    homes.sort_unstable();
    homes.into_iter().map(|(_, region)| region).collect()
}

fn places(cell: &Cell, ranks: &Ranks, budget: &Budget, limits: &Limits, shard: usize, home: u16) -> Option<Members> {
    let search = |only| Search { cell, ranks, budget, limits, shard, near: None, only };
    let Found::At(first) = search(Some(home)).find(&Members::default(), 1) else { return None };
    match search(None).find(&first, cell.policy(shard).replicas - 1) {
        Found::At(others) => Some(first.iter().chain(others.iter()).collect()),
        Found::Later | Found::Nowhere => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{Capacity, Node, NodeState, Spread};

    fn view(nodes_per_region: u64) -> View {
        let node = |id: u64| Node {
            id: NodeId(id),
            region: RegionNo(u16::try_from(id % 4).unwrap()),
            failure_domain: String::new(),
            capacity: Capacity { bytes: 100 << 20, writes_per_s: 1000 },
            other_bytes: 0,
            state: NodeState::Up,
        };
        let regions = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        View { regions, nodes: (0..4 * nodes_per_region).map(node).collect(), policies: Vec::new(), shards: Vec::new() }
    }

    fn policy() -> Policy {
        Policy {
            name: "three".to_owned(),
            replicas: 3,
            regions: vec![RegionNo(0), RegionNo(1), RegionNo(2)],
            spread: Spread::Regions,
            home: None,
        }
    }

    #[test]
    fn new_shards_are_shared_out_evenly_within_their_policy() {
        let grown = grow(&view(2), &policy(), 1 << 20, 12, &Limits::default()).unwrap();
        assert_eq!(grown.len(), 12);
        for region in 0..3 {
            assert_eq!(grown.iter().filter(|shard| shard.home == RegionNo(region)).count(), 4);
        }
        for id in 0..8 {
            let held = grown.iter().filter(|shard| shard.replicas.contains(&NodeId(id))).count();
            assert_eq!(held, if id % 4 == 3 { 0 } else { 6 }, "node {id}");
        }
        for shard in &grown {
            assert_eq!(shard.replicas[0].0 % 4, u64::from(shard.home.0), "{shard:?}");
            let mut regions: Vec<u64> = shard.replicas.iter().map(|node| node.0 % 4).collect();
            regions.sort_unstable();
            assert_eq!(regions, [0, 1, 2], "{shard:?}");
        }
        assert_eq!(grow(&view(2), &policy(), 1 << 20, 12, &Limits::default()).unwrap(), grown, "the same again");
    }

    #[test]
    fn what_there_is_already_counts() {
        let mut view = view(2);
        let first = grow(&view, &policy(), 1 << 20, 3, &Limits::default()).unwrap();
        view.policies.push(policy());
        view.shards.extend((1000..).zip(&first).map(|(id, grown)| Shard {
            id: ShardId(id),
            policy: PolicyNo(0),
            replicas: grown.replicas.clone(),
            lead: None,
            home: grown.home,
            epoch: 1,
            bytes: 1 << 20,
            writes_per_s: 0,
            running: None,
        }));
        view.nodes[0].state = NodeState::Draining;
        let more = grow(&view, &policy(), 1 << 20, 3, &Limits::default()).unwrap();
        assert!(more.iter().all(|shard| !shard.replicas.contains(&NodeId(0))));
        let held = |id: u64| {
            let all = first.iter().chain(&more);
            all.filter(|shard| shard.replicas.contains(&NodeId(id))).count()
        };
        assert_eq!([held(1), held(5), held(2), held(6)], [3; 4], "{more:?}");
    }

    #[test]
    fn a_full_cell_says_how_many_fit() {
        let error = grow(&view(1), &policy(), 40 << 20, 5, &Limits::default()).unwrap_err();
        assert_eq!(error, GrowError::NoPlace { placed: 2, policy: "three".to_owned(), replicas: 3 });
        assert!(error.to_string().starts_with("there is room for 2 more"), "{error}");
        let narrow = Policy { regions: vec![RegionNo(0), RegionNo(1)], ..policy() };
        assert!(matches!(grow(&view(1), &narrow, 1, 1, &Limits::default()), Err(GrowError::NoPlace { placed: 0, .. })));
    }
}
