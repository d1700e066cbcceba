//! The plan: what is wrong is put right in the order of its danger, then leads, then what is uneven.

use std::collections::BTreeMap;

use postrider_api::id::ShardId;

use crate::budget::Budget;
use crate::cell::{Cell, Names};
use crate::limits::Limits;
use crate::members::Members;
use crate::step::{Change, Priority, Reason, Step};
use crate::view::{View, ViewError};

/// Shards that stay as they are and are named with the reason, of each kind of reason.
pub(crate) const BLOCKED_NAMED_MAX: usize = 16;

/// What should be done now, and what cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In this order. Each is another shard's, so they may be carried out side by side. Empty and nothing waiting: all is as it should be,
    /// or as near as it can be.
    pub steps: Vec<Step>,
    /// What is wrong and stays so, the first few.
    pub blocked: Vec<Blocked>,
    /// How many shards that is.
    pub blocked_shards: usize,
    /// Shards that wait for a node that is silent: to come back, or to be given up.
    pub waiting_shards: usize,
    /// The limits have held something back: more follows once what is under way has ended.
    pub has_more: bool,
}

/// A shard that stays as it is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The shard.
    pub shard: ShardId,
    /// A sentence for operators.
    pub reason: Reason,
}

/// What should be done about a cluster, the most urgent first.
///
/// # Errors
/// When the view does not hang together.
pub fn plan(view: &View, limits: &Limits) -> Result<Plan, ViewError> {
    view.check()?;
    let mut planner = Planner::new(view, limits);
    planner.mend();
    planner.settle_homes();
    planner.even_leads();
    // What is to be put right first will change what nodes bear.
    if !planner.is_held {
        planner.even_out();
    }
    Ok(planner.finish())
}

/// A plan in the making.
#[derive(Debug)]
pub(crate) struct Planner<'v> {
    pub(crate) names: Names<'v>,
    pub(crate) limits: &'v Limits,
    pub(crate) cell: Cell,
    pub(crate) budget: Budget,
    /// Replicas that should be made wait for leave to begin.
    pub(crate) is_held: bool,
    /// The same for homes.
    pub(crate) are_homes_held: bool,
    /// As in the plan.
    pub(crate) waiting: usize,
    steps: Vec<Step>,
    blocked: Vec<Blocked>,
    /// By kind of reason, how many were named.
    named: BTreeMap<&'static str, usize>,
    blocked_shards: usize,
}

impl<'v> Planner<'v> {
    fn new(view: &'v View, limits: &'v Limits) -> Self {
        let cell = Cell::new(view);
        let budget = Budget::new(view, &cell, *limits);
        Self {
            names: Names(view),
            limits,
            cell,
            budget,
            is_held: false,
            are_homes_held: false,
            waiting: 0,
            steps: Vec::new(),
            blocked: Vec::new(),
            named: BTreeMap::new(),
            blocked_shards: 0,
        }
    }

    fn finish(self) -> Plan {
        Plan {
            steps: self.steps,
            blocked: self.blocked,
            blocked_shards: self.blocked_shards,
            waiting_shards: self.waiting,
            has_more: self.is_held || self.are_homes_held,
        }
    }

    /// Plans that a shard has these replicas.
    pub(crate) fn set_replicas(&mut self, shard: usize, members: Members, priority: Priority, reason: Reason) {
        let before = self.cell.shard(shard).members;
        let new: Members = members.iter().filter(|spot| !before.contains(*spot)).collect();
        let old: Members = before.iter().filter(|spot| !members.contains(*spot)).collect();
        let sender = Budget::sender(&self.cell, shard);
        self.budget.spend(&self.cell, sender, &new);
        let change = Change::Replicas {
            replicas: self.cell.ids(&members),
            add: self.cell.ids(&new),
            remove: self.cell.ids(&old),
        };
        self.cell.replace_members(shard, members);
        self.push(shard, change, priority, reason);
    }

    /// Plans that a shard is at home in another region.
    pub(crate) fn set_home(&mut self, shard: usize, region: u16, priority: Priority, reason: Reason) {
        self.budget.spend_home();
        self.cell.replace_home(shard, region);
        let lead = self.cell.node(self.cell.shard(shard).leader).id;
        self.push(shard, Change::Home { region: self.names.region(region), lead }, priority, reason);
    }

    fn push(&mut self, shard: usize, change: Change, priority: Priority, reason: Reason) {
        let (shard, epoch) = (self.names.shard(shard), self.names.epoch(shard));
        self.steps.push(Step { shard, change, epoch, priority, reason });
    }

    /// Nothing is planned, nothing is held back, nothing runs.
    pub(crate) fn is_quiet(&self) -> bool {
        let is_idle = self.steps.is_empty() && !self.is_held && !self.are_homes_held;
        is_idle && self.cell.shards.iter().all(|placed| !placed.is_busy)
    }

    /// Notes that a shard stays as it is.
    pub(crate) fn block(&mut self, shard: usize, reason: impl FnOnce(&Self) -> Reason) {
        self.blocked_shards += 1;
        let reason = reason(self);
        let kind = match &reason {
            Reason::QuorumLost { .. } => "quorum",
            _ => "place",
        };
        let named = self.named.entry(kind).or_default();
        if *named < BLOCKED_NAMED_MAX {
            *named += 1;
            self.blocked.push(Blocked { shard: self.names.shard(shard), reason });
        }
    }
}
