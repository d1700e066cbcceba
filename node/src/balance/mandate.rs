//! What of a plan may begin, and on whose behalf.

use std::collections::BTreeMap;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::OperationState;
use postrider_api::pb::operation::Kind;
use postrider_balance::step::{Priority, Step};

use crate::map::MapView;
use crate::options::BalanceOptions;

/// By whose word steps begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mandate {
    /// The operation by which an operator has asked for all that should be done.
    pub(super) balancing: Option<u64>,
    /// Nodes that are being emptied, each with its operation.
    pub(super) drains: BTreeMap<NodeId, u64>,
    /// Shards that are being made, each with its operation.
    pub(super) making: BTreeMap<ShardId, u64>,
    /// What nodes have that are given up is made elsewhere.
    heals: bool,
    /// The rest is done by itself as well.
    automatic: bool,
}

impl Mandate {
    pub(super) fn of(map: &MapView, options: &BalanceOptions) -> Self {
        let mut mandate =
            Self { heals: options.dead_after.is_some(), automatic: options.automatic, ..Default::default() };
        let running = map.map.operations.iter().filter(|operation| operation.state() == OperationState::Running);
        for operation in running {
            match &operation.kind {
                Some(Kind::Balance(_)) => mandate.balancing = Some(operation.id),
                Some(Kind::DrainNode(drain)) => drop(mandate.drains.insert(NodeId(drain.node), operation.id)),
                Some(Kind::MakeShard(make)) => drop(mandate.making.insert(ShardId(make.shard), operation.id)),
                Some(Kind::SetReplicas(_) | Kind::SetHome(_)) | None => {}
            }
        }
        mandate
    }

    /// Nothing may begin.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_told() && !self.heals && !self.automatic
    }

    /// Somebody waits to hear how it goes.
    pub(super) fn is_told(&self) -> bool {
        self.balancing.is_some() || !self.drains.is_empty() || !self.making.is_empty()
    }

    /// The operation on whose behalf the step begins, 0: of none; `None`: it does not begin. `is_calm`: no node is silent. While one is,
    /// nothing is evened out by itself: a rack that starts again is no reason to move what it has.
    pub(super) fn parent_of(&self, step: &Step, map: &MapView, is_calm: bool) -> Option<u64> {
        let by_itself = match step.priority {
            Priority::Danger => self.heals || self.automatic,
            // Whatever else is wrong with a shard is put right before it leaves a node.
            Priority::Policy | Priority::Drain => {
                let held = map.shard(step.shard).map(|placed| placed.replicas.as_slice()).unwrap_or_default();
                let drain = held.iter().find_map(|node| self.drains.get(&NodeId(*node)));
                if let Some(drain) = drain {
                    return Some(*drain);
                }
                self.automatic
            }
            Priority::Leads | Priority::Balance => self.automatic && is_calm,
        };
        self.balancing.or(by_itself.then_some(0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use postrider_api::pb;
    use postrider_balance::step::{Change, Reason};

    fn map(operations: Vec<pb::Operation>) -> MapView {
        let shards = vec![pb::Shard { id: 1000, replicas: vec![1, 2, 3], ..Default::default() }];
        MapView::new(pb::ShardMap { shards, operations, ..Default::default() })
    }

    fn operation(id: u64, kind: Kind) -> pb::Operation {
        pb::Operation { id, kind: Some(kind), state: OperationState::Running.into(), ..Default::default() }
    }

    fn step(priority: Priority) -> Step {
        Step {
            shard: ShardId(1000),
            change: Change::Replicas { replicas: Vec::new(), add: Vec::new(), remove: Vec::new() },
            epoch: 1,
            priority,
            reason: Reason::Draining { node: NodeId(2) },
        }
    }

    fn begun(map: &MapView, options: &BalanceOptions, is_calm: bool) -> [Option<u64>; 5] {
        let mandate = Mandate::of(map, options);
        [Priority::Danger, Priority::Policy, Priority::Drain, Priority::Leads, Priority::Balance]
            .map(|priority| mandate.parent_of(&step(priority), map, is_calm))
    }

    #[test]
    fn what_nobody_has_asked_for_does_not_begin() {
        let never = BalanceOptions { dead_after: None, automatic: false, ..Default::default() };
        let heals = BalanceOptions { dead_after: Some(Duration::from_secs(600)), ..never.clone() };
        let automatic = BalanceOptions { automatic: true, ..never.clone() };
        assert!(Mandate::of(&map(Vec::new()), &never).is_empty());
        assert_eq!(begun(&map(Vec::new()), &never, true), [None; 5]);
        assert_eq!(begun(&map(Vec::new()), &heals, true), [Some(0), None, None, None, None]);
        assert_eq!(begun(&map(Vec::new()), &automatic, true), [Some(0); 5]);
        assert_eq!(begun(&map(Vec::new()), &automatic, false), [Some(0), Some(0), Some(0), None, None]);
        let asked = map(vec![operation(7, Kind::Balance(pb::Balance {}))]);
        assert_eq!(begun(&asked, &never, false), [Some(7); 5]);
        let drained = map(vec![operation(8, Kind::DrainNode(pb::DrainNode { node: 2 }))]);
        assert_eq!(begun(&drained, &never, true), [None, Some(8), Some(8), None, None]);
        let elsewhere = map(vec![operation(8, Kind::DrainNode(pb::DrainNode { node: 9 }))]);
        assert_eq!(begun(&elsewhere, &never, true), [None; 5]);
    }
}
