//! What is right, said from the policies' words.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::NodeId;
use postrider_balance::Plan;
use postrider_balance::limits::Limits;
use postrider_balance::step::{Change, Reason, Step};
use postrider_balance::view::{Node, NodeState, Policy, Running, Shard, Spread, View};
use proptest::prelude::*;

fn node(view: &View, id: NodeId) -> Option<&Node> {
    view.nodes.iter().find(|node| node.id == id)
}

fn is_live(view: &View, id: NodeId) -> bool {
    node(view, id).is_some_and(|node| matches!(node.state, NodeState::Up | NodeState::Draining))
}

fn is_up(view: &View, id: NodeId) -> bool {
    node(view, id).is_some_and(|node| node.state == NodeState::Up)
}

fn is_gone(view: &View, id: NodeId) -> bool {
    node(view, id).is_none_or(|node| matches!(node.state, NodeState::Dead | NodeState::Removed))
}

fn is_silent(view: &View, id: NodeId) -> bool {
    node(view, id).is_some_and(|node| node.state == NodeState::Silent)
}

fn has_quorum(view: &View, members: &[NodeId]) -> bool {
    members.iter().filter(|id| is_live(view, **id)).count() * 2 > members.len()
}

fn may_be_there(view: &View, policy: &Policy, id: NodeId) -> bool {
    node(view, id).is_some_and(|node| policy.regions.contains(&node.region))
}

/// Whether the policy wants at most one on these two.
fn are_together(view: &View, policy: &Policy, a: NodeId, b: NodeId) -> bool {
    let (Some(a), Some(b)) = (node(view, a), node(view, b)) else { return false };
    let share_domain = a.failure_domain == b.failure_domain && (!a.failure_domain.is_empty() || a.region == b.region);
    share_domain || (policy.spread == Spread::Regions && a.region == b.region)
}

fn is_apart(view: &View, policy: &Policy, members: &[NodeId], id: NodeId) -> bool {
    members.iter().all(|other| *other == id || !are_together(view, policy, *other, id))
}

/// Bytes on a node while what comes is there and what goes is there still.
fn peak_mib(view: &View, id: NodeId) -> u64 {
    let held = view.shards.iter().filter(|shard| {
        let comes = matches!(&shard.running, Some(Running::Replicas(wanted)) if wanted.contains(&id));
        comes || shard.replicas.contains(&id)
    });
    held.map(|shard| shard.bytes.div_ceil(1 << 20).max(1)).sum()
}

fn has_room(view: &View, limits: &Limits, shard: &Shard, id: NodeId) -> bool {
    let capacity = node(view, id).map_or(0, |node| node.capacity.bytes >> 20);
    let peak = peak_mib(view, id) + shard.bytes.div_ceil(1 << 20).max(1);
    peak * 1000 <= capacity * u64::from(limits.fill_permille_max)
}

fn shard(view: &View, step: &Step) -> Shard {
    view.shards.iter().find(|shard| shard.id == step.shard).unwrap().clone()
}

pub(crate) fn check_plan(view: &View, planned: &Plan, limits: &Limits) -> Result<(), TestCaseError> {
    let shards: BTreeSet<u32> = planned.steps.iter().map(|step| step.shard.0).collect();
    prop_assert_eq!(shards.len(), planned.steps.len(), "one step of a shard at a time");
    prop_assert!(planned.steps.is_sorted_by_key(|step| step.priority), "{:?}", planned.steps);
    let moves: usize = planned.steps.iter().map(Step::moves).sum();
    // A change of two is one alone where the limit is one.
    prop_assert!(moves as u64 <= u64::from(limits.moves_per_cluster.max(2)), "{moves} moves");
    let mut comes: BTreeMap<NodeId, u64> = BTreeMap::new();
    for step in &planned.steps {
        check_step(view, step)?;
        if let Change::Replicas { add, .. } = &step.change {
            for id in add {
                *comes.entry(*id).or_default() += shard(view, step).bytes.div_ceil(1 << 20).max(1);
            }
        }
    }
    for (id, more) in comes {
        let most = node(view, id).unwrap().capacity.bytes / (1 << 20) * u64::from(limits.fill_permille_max);
        prop_assert!((peak_mib(view, id) + more) * 1000 <= most, "node {id} has no room for {more} MiB");
    }
    Ok(())
}

fn check_step(view: &View, step: &Step) -> Result<(), TestCaseError> {
    let shard = shard(view, step);
    let policy = &view.policies[usize::from(shard.policy.0)];
    prop_assert!(shard.running.is_none(), "{step}: something else runs");
    prop_assert!(has_quorum(view, &shard.replicas), "{step}: nobody could agree on it");
    prop_assert_eq!(step.epoch, shard.epoch);
    match &step.change {
        Change::Home { region, lead } => {
            let there = &view.regions[usize::from(node(view, *lead).unwrap().region.0)];
            prop_assert_eq!(there, region);
            prop_assert!(shard.replicas.contains(lead) && is_up(view, *lead), "{step}");
            prop_assert!(may_be_there(view, policy, *lead), "{step}");
            prop_assert_ne!(region, &view.regions[usize::from(shard.home.0)]);
        }
        Change::Replicas { replicas, add, remove } => {
            let (was, wanted) = (shard.replicas.len(), usize::from(policy.replicas));
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), replicas.len());
            prop_assert_eq!(replicas.len() % 2, 1, "{}: placement takes odd numbers", step);
            prop_assert!(replicas.len().abs_diff(wanted) <= was.abs_diff(wanted), "{step}: further from the policy");
            prop_assert_eq!(was + add.len(), replicas.len() + remove.len());
            prop_assert!(has_quorum(view, replicas), "{step}: no quorum of the new ones");
            let live = |members: &[NodeId]| members.iter().filter(|id| is_live(view, **id)).count();
            prop_assert!(replicas.len() < was || live(replicas) >= live(&shard.replicas), "{step}: fewer answer");
            for id in add {
                prop_assert!(!shard.replicas.contains(id) && is_up(view, *id), "{step}: node {id} may get nothing");
                prop_assert!(may_be_there(view, policy, *id), "{step}: node {id} is where none may be");
                prop_assert!(is_apart(view, policy, replicas, *id), "{step}: node {id} is where another is");
            }
        }
    }
    Ok(())
}

/// What runs at once keeps to the limits of each node.
pub(crate) fn check_running(view: &View, limits: &Limits) -> Result<(), TestCaseError> {
    // What a cell begins with may be more; then nothing is added.
    let mut comes: BTreeMap<NodeId, u32> = BTreeMap::new();
    for shard in view.shards.iter().filter(|shard| shard.epoch > 1) {
        if let Some(Running::Replicas(wanted)) = &shard.running {
            for id in wanted.iter().filter(|id| !shard.replicas.contains(id)) {
                *comes.entry(*id).or_default() += 1;
            }
        }
    }
    prop_assert!(comes.values().all(|count| *count <= limits.moves_per_node), "{comes:?}");
    Ok(())
}

/// Nothing is planned and nothing runs: what is wrong still cannot be put right.
pub(crate) fn check_rest(view: &View, planned: &Plan, limits: &Limits) -> Result<(), TestCaseError> {
    prop_assert!(planned.steps.is_empty() && !planned.has_more, "{planned:?}");
    let mut wrong = 0;
    for shard in &view.shards {
        let policy = &view.policies[usize::from(shard.policy.0)];
        let members = &shard.replicas;
        let is_silent = members.iter().any(|id| is_silent(view, *id));
        let gone: Vec<NodeId> = members.iter().copied().filter(|id| is_gone(view, *id)).collect();
        let is_right = members.len() == usize::from(policy.replicas)
            && members
                .iter()
                .all(|id| is_up(view, *id) && may_be_there(view, policy, *id) && is_apart(view, policy, members, *id))
            && policy.home.is_none_or(|home| members.iter().any(|id| node(view, *id).unwrap().region == home));
        if is_right {
            let home = policy.home.unwrap_or(shard.home);
            prop_assert_eq!(shard.home, home, "shard {} is at home elsewhere", shard.id);
            prop_assert!(members.iter().any(|id| node(view, *id).unwrap().region == home), "an empty home");
            continue;
        }
        wrong += 1;
        if !has_quorum(view, members) || (is_silent && gone.is_empty()) {
            continue;
        }
        prop_assert!(members.len() <= usize::from(policy.replicas), "shard {}: some could go", shard.id);
        if members.len() % 2 == 0 {
            continue;
        }
        // Nobody could take the place of one that cannot stay.
        let cannot_stay = members.iter().filter(|id| {
            is_gone(view, **id) || (gone.is_empty() && (!is_up(view, **id) || !may_be_there(view, policy, **id)))
        });
        for leaves in cannot_stay {
            let stay: Vec<NodeId> = members.iter().copied().filter(|id| id != leaves).collect();
            let takes = view.nodes.iter().find(|node| {
                let id = node.id;
                let fits = is_up(view, id) && may_be_there(view, policy, id) && is_apart(view, policy, &stay, id);
                fits && !members.contains(&id) && has_room(view, limits, shard, id)
            });
            prop_assert!(takes.is_none(), "shard {}: {leaves} could be replaced by {takes:?}", shard.id);
        }
    }
    prop_assert_eq!(planned.blocked_shards + planned.waiting_shards, wrong);
    let named = planned.blocked.iter().filter(|blocked| matches!(blocked.reason, Reason::NoPlace { .. }));
    prop_assert!(named.count() <= planned.blocked_shards);
    Ok(())
}
