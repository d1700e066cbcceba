//! What is wrong with a shard.

use crate::cell::Cell;
use crate::members::{Members, Spot, majority};
use crate::step::Priority;

/// Members by what they are good for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Census {
    pub(crate) live: usize,
    pub(crate) gone: usize,
    pub(crate) silent: usize,
    pub(crate) draining: usize,
}

/// One thing that is wrong; the first of these is put right first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    TooMany,
    Gone(Spot),
    TooFew,
    /// In a region that the policy does not allow.
    Forbidden(Spot),
    /// The first is the one to move.
    Together(Spot, Spot),
    NoneAtHome(u16),
    Draining(Spot),
}

pub(crate) fn census(cell: &Cell, members: &Members) -> Census {
    let mut census = Census::default();
    for spot in members.iter() {
        let node = cell.node(spot);
        if node.is_gone() {
            census.gone += 1;
        } else if !node.is_live() {
            census.silent += 1;
        } else {
            census.live += 1;
            census.draining += usize::from(!node.is_up());
        }
    }
    census
}

/// Everything that is wrong with a shard, in the order in which it is to be put right.
pub(crate) fn faults(cell: &Cell, shard: usize, census: Census) -> Vec<Fault> {
    let (placed, policy) = (cell.shard(shard), cell.policy(shard));
    let members = &placed.members;
    let mut faults = Vec::new();
    if members.len() > policy.replicas {
        faults.push(Fault::TooMany);
    }
    if census.gone > 0 {
        faults.extend(members.iter().filter(|spot| cell.node(*spot).is_gone()).map(Fault::Gone));
    }
    if members.len() < policy.replicas {
        faults.push(Fault::TooFew);
    }
    for spot in members.iter().filter(|spot| !cell.node(*spot).is_gone()) {
        if !policy.allows(cell.node(spot).region) {
            faults.push(Fault::Forbidden(spot));
        }
    }
    faults.extend(together(cell, shard, members));
    if let Some(home) = policy.home.filter(|home| !cell.has_member_in(members, *home)) {
        faults.push(Fault::NoneAtHome(home));
    }
    if census.draining > 0 {
        let draining = members.iter().filter(|spot| cell.node(*spot).is_live() && !cell.node(*spot).is_up());
        faults.extend(draining.map(Fault::Draining));
    }
    faults
}

/// Whether nothing is wrong with a shard: what most are, quickly.
pub(crate) fn is_sound(cell: &Cell, shard: usize) -> bool {
    let (members, policy) = (&cell.shard(shard).members, cell.policy(shard));
    let spots = members.as_slice();
    spots.len() == policy.replicas
        && spots.iter().all(|spot| cell.node(*spot).is_up() && policy.allows(cell.node(*spot).region))
        && policy.home.is_none_or(|home| cell.has_member_in(members, home))
        && spots.iter().enumerate().all(|(at, a)| spots[..at].iter().all(|b| !cell.are_together(policy.spread, *a, *b)))
}

/// Two that are where one may be; of those that can be moved, the one whose move costs least.
fn together(cell: &Cell, shard: usize, members: &Members) -> Option<Fault> {
    let (placed, policy) = (cell.shard(shard), cell.policy(shard));
    let mut by_cost: Vec<Spot> = members.iter().filter(|spot| !cell.node(*spot).is_gone()).collect();
    by_cost.sort_by_key(|spot| (cell.node(*spot).is_up(), placed.leader == *spot, std::cmp::Reverse(*spot)));
    by_cost.iter().find_map(|spot| {
        let other = members.iter().find(|other| *other != *spot && cell.are_together(policy.spread, *spot, *other))?;
        Some(Fault::Together(*spot, other))
    })
}

/// How soon a shard is to be looked at: what is nearest to losing its quorum first. The number: failures that are borne still.
pub(crate) fn urgency(census: Census, faults: &[Fault], members: usize) -> Option<(Priority, usize)> {
    let first = faults.first()?;
    let spare = census.live.saturating_sub(majority(members));
    Some(match first {
        _ if census.gone > 0 => (Priority::Danger, spare),
        Fault::Draining(_) => (Priority::Drain, spare),
        _ => (Priority::Policy, spare),
    })
}
