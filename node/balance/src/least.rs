//! The least number of moves that any plan needs: what this one's are held against.

use crate::cell::{Cell, Dimension, NOBODY, load};
use crate::members::Members;
use crate::view::{NodeState, View};

/// Mixtures of bytes and writes that are reckoned with.
const MIXTURES: u64 = 8;
/// Fixed point of what a replica is of all.
const SHARE_BITS: u32 = 40;

/// Replicas that have to be made, whoever plans, to come from one view to another that is as good as `after`: every shard with as many
/// replicas where they may be, and no node emptier than the emptiest of `after` or fuller than its fullest.
///
/// A bound from below: no plan can do with fewer; whether one can do with so few is not said. Both views have the same shards, and
/// nodes may have been added or have failed before `before`.
#[must_use]
pub fn moves(before: &View, after: &View) -> u64 {
    let (was, is) = (Cell::new(before), Cell::new(after));
    lost(&was, &is).max(received(&was, &is)).max(given(&was, &is))
}

/// A replica that is lost or forbidden has to be made elsewhere.
fn lost(was: &Cell, is: &Cell) -> u64 {
    let shards = 0..was.shards.len();
    let needed = shards.map(|shard| good(is, shard).saturating_sub(good(was, shard)));
    needed.map(|count| count as u64).sum()
}

/// At most so many of a shard's replicas can stay.
fn good(cell: &Cell, shard: usize) -> usize {
    let policy = cell.policy(shard);
    let mut apart = Members::default();
    for spot in cell.shard(shard).members.iter() {
        let node = cell.node(spot);
        // Of two that are together one can stay; which of them, a bound need not know.
        let is_alone = apart.iter().all(|other| cell.node(other).domain != node.domain);
        if node.state == NodeState::Up && policy.allows(node.region) && is_alone {
            apart.push(spot);
        }
    }
    apart.len().min(policy.replicas)
}

/// Nodes that have too little get the replicas that bring most: of bytes, of writes, and of mixtures of both, since one replica brings
/// both.
fn received(was: &Cell, is: &Cell) -> u64 {
    let dimensions = [Dimension::Bytes, Dimension::Writes];
    let totals = dimensions.map(|dimension| was.sums(dimension, None).0.max(1));
    let lacking = dimensions.map(|dimension| lacking(was, is, dimension));
    let mixtures = (0..=MIXTURES).map(|bytes| {
        let parts = [bytes, MIXTURES - bytes];
        let mixed = |of: [u128; 2]| -> u128 {
            (0..2).map(|at| ((of[at] * u128::from(parts[at])) << SHARE_BITS) / u128::from(totals[at])).sum()
        };
        let mut sizes: Vec<(u128, usize)> = was
            .shards
            .iter()
            .enumerate()
            .map(|(at, shard)| {
                let [bytes, writes, _] = shard.amounts_at(NOBODY);
                // Rounded up, where what is lacking is rounded down.
                (mixed([u128::from(bytes), u128::from(writes)]) + 2, was.policy(at).replicas)
            })
            .collect();
        sizes.sort_unstable();
        let largest = sizes.into_iter().rev().flat_map(|(size, replicas)| std::iter::repeat_n(size, replicas));
        fewest(largest, mixed(lacking))
    });
    mixtures.max().unwrap_or(0)
}

/// What has to be brought to nodes so that none has less, by what it can bear, than the one with least has in the end.
fn lacking(was: &Cell, is: &Cell, dimension: Dimension) -> u128 {
    let least = is.spots_up().map(|spot| is.node(spot).load(dimension)).min().unwrap_or(0);
    let lacks = was.spots_up().map(|spot| {
        let node = was.node(spot);
        let wanted = (u128::from(least) * u128::from(node.capacity[dimension as usize])) >> 32;
        wanted.saturating_sub(u128::from(node.amounts[dimension as usize]))
    });
    lacks.sum()
}

/// Nodes that have too much give the largest that they have.
fn given(was: &Cell, is: &Cell) -> u64 {
    let dimension = Dimension::Bytes as usize;
    let most = is.spots_up().map(|spot| is.node(spot)).map(|node| {
        // Rounded up: nothing that the node may keep is asked of it.
        load(node.amounts[dimension], node.capacity[dimension]).saturating_add(1)
    });
    let Some(most) = most.max() else { return 0 };
    let mut count = 0;
    for spot in was.spots_up() {
        let node = was.node(spot);
        let may_keep = (u128::from(most) * u128::from(node.capacity[dimension])) >> 32;
        let surplus = u128::from(node.amounts[dimension]).saturating_sub(may_keep + 1);
        if surplus == 0 {
            continue;
        }
        let held = was.shards.iter().filter(|shard| shard.members.contains(spot));
        let mut sizes: Vec<u64> = held.map(super::cell::Shard::bytes).collect();
        sizes.sort_unstable();
        count += fewest(sizes.into_iter().rev().map(u128::from), surplus);
    }
    count
}

/// How many of these, in this order, make up so much.
fn fewest(sizes: impl Iterator<Item = u128>, sum: u128) -> u64 {
    let mut left = sum;
    let mut count = 0;
    for size in sizes {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(size);
        count += 1;
    }
    count
}
