//! What is wrong with shards is put right: lost replicas, then policies, then nodes that are being emptied.
//!
//! Invariant: a step leaves a shard with fewer faults and brings no new one; its number of replicas is odd; a quorum of the old members
//! and of the new ones answers.

use crate::cell::Dimension;
use crate::judge::{self, Census, Fault};
use crate::members::{Members, Spot};
use crate::place::{Found, Search};
use crate::plan::Planner;
use crate::ranks::Ranks;
use crate::step::{Priority, Reason};
use crate::view::Spread;

/// What came of one fault.
enum Mended {
    Planned,
    Later,
    Impossible,
}

impl Planner<'_> {
    pub(crate) fn mend(&mut self) {
        let mut faulty = Vec::new();
        for shard in 0..self.cell.shards.len() {
            let is_sound = judge::is_sound(&self.cell, shard);
            self.cell.shards[shard].is_sound = is_sound;
            if is_sound || self.cell.shard(shard).is_busy {
                continue;
            }
            let members = self.cell.shard(shard).members;
            let census = judge::census(&self.cell, &members);
            if !self.cell.has_quorum(&members) {
                self.block(shard, |_| Reason::QuorumLost { live: census.live, of: members.len() });
                continue;
            }
            let faults = judge::faults(&self.cell, shard, census);
            match judge::urgency(census, &faults, members.len()) {
                // Who is silent may be back in a moment; what is lost already is made anew meanwhile.
                _ if census.silent > 0 && census.gone == 0 => self.waiting += 1,
                Some((priority, spare)) => faulty.push((priority, spare, shard)),
                None => {}
            }
        }
        faulty.sort_unstable();
        let mut ranks = Ranks::new(&self.cell, Dimension::Bytes);
        for (priority, _, shard) in faulty {
            self.mend_shard(shard, priority, &mut ranks);
        }
    }

    fn mend_shard(&mut self, shard: usize, priority: Priority, ranks: &mut Ranks) {
        let members = self.cell.shard(shard).members;
        let census = judge::census(&self.cell, &members);
        let mut faults = judge::faults(&self.cell, shard, census);
        if members.len().is_multiple_of(2) {
            // Placement takes odd numbers only: the number first, and nothing else before it.
            faults.retain(|fault| matches!(fault, Fault::TooMany | Fault::TooFew));
        }
        if census.silent > 0 {
            faults.retain(|fault| matches!(fault, Fault::TooMany | Fault::Gone(_)));
        }
        for fault in &faults {
            match self.mend_fault(shard, *fault, census, priority, ranks) {
                Mended::Planned => {
                    let now = self.cell.shard(shard).members;
                    now.iter().chain(members.iter()).for_each(|spot| ranks.file(&self.cell, spot));
                    return;
                }
                Mended::Later => {
                    self.is_held = true;
                    return;
                }
                Mended::Impossible => {}
            }
        }
        if let Some(fault) = faults.first() {
            self.block(shard, |planner| Reason::NoPlace { wanted: Box::new(planner.reason(shard, *fault, census)) });
        }
    }

    fn mend_fault(&mut self, shard: usize, fault: Fault, census: Census, priority: Priority, ranks: &Ranks) -> Mended {
        let members = self.cell.shard(shard).members;
        let found = match fault {
            Fault::TooMany => self.fewer(shard, ranks),
            Fault::TooFew => {
                let count = if members.len().is_multiple_of(2) { 1 } else { 2 };
                self.search(shard, ranks).find(&members, count).beside(&members)
            }
            Fault::Gone(spot) | Fault::Forbidden(spot) | Fault::Together(spot, _) | Fault::Draining(spot) => {
                self.instead_of(shard, spot, ranks)
            }
            Fault::NoneAtHome(home) => self.at_home(shard, home, ranks),
        };
        match found {
            Found::At(members) if self.cell.has_quorum(&members) => {
                let reason = self.reason(shard, fault, census);
                self.set_replicas(shard, members, priority, reason);
                Mended::Planned
            }
            Found::At(_) | Found::Nowhere => Mended::Impossible,
            Found::Later => Mended::Later,
        }
    }

    fn search<'s>(&'s self, shard: usize, ranks: &'s Ranks) -> Search<'s> {
        let (cell, budget, limits) = (&self.cell, &self.budget, self.limits);
        Search { cell, ranks, budget, limits, shard, near: None, only: None }
    }

    /// One or two go, those that are worth least first.
    fn fewer(&self, shard: usize, ranks: &Ranks) -> Found {
        // A change that moves nothing is one all the same.
        if !self.budget.has_moves(1) {
            return Found::Later;
        }
        let wanted = self.cell.policy(shard).replicas;
        let mut members = self.cell.shard(shard).members;
        let before = members.len();
        let target = if before.is_multiple_of(2) { before - 1 } else { before - 2 }.max(wanted);
        while members.len() > target {
            let Some(least) = members.iter().min_by_key(|spot| self.worth(shard, &members, *spot, ranks)) else {
                break;
            };
            members = members.without(least);
        }
        Found::At(members)
    }

    fn worth(
        &self,
        shard: usize,
        members: &Members,
        spot: Spot,
        ranks: &Ranks,
    ) -> (u8, bool, bool, std::cmp::Reverse<u64>, Spot) {
        let (policy, node) = (self.cell.policy(shard), self.cell.node(spot));
        let others = members.without(spot);
        let is_together = others.iter().any(|other| self.cell.are_together(policy.spread, spot, other));
        let good = match () {
            () if node.is_gone() => 0,
            () if !policy.allows(node.region) => 1,
            () if is_together => 2,
            () if !node.is_live() => 3,
            () if !node.is_up() => 4,
            () => 5,
        };
        let is_preferred = policy.home == Some(node.region) && !self.cell.has_member_in(&others, node.region);
        let leads = self.cell.shard(shard).leader == spot;
        (good, is_preferred, leads, std::cmp::Reverse(ranks.load(spot)), spot)
    }

    /// Another node has one's replica.
    fn instead_of(&self, shard: usize, leaves: Spot, ranks: &Ranks) -> Found {
        let stay = self.cell.shard(shard).members.without(leaves);
        let near = Some(self.cell.node(leaves).region);
        let search = Search { near, ..self.search(shard, ranks) };
        let found = search.find(&stay, 1);
        let can_shift = self.cell.has_shared_domains && self.cell.policy(shard).spread == Spread::Regions;
        if found != Found::Nowhere || !can_shift {
            return found.beside(&stay);
        }
        // Where domains reach over regions, one that stays may be in the only place that is left: it goes to another one.
        let shifts = stay.iter().filter(|spot| self.cell.node(*spot).is_live());
        let mut shifted = shifts.map(|spot| {
            let rest = stay.without(spot);
            search.find(&rest, 2).beside(&rest)
        });
        shifted.find(|found| *found != Found::Nowhere).unwrap_or(Found::Nowhere)
    }

    /// One that is not at home gives its replica to a node that is.
    fn at_home(&self, shard: usize, home: u16, ranks: &Ranks) -> Found {
        let members = self.cell.shard(shard).members;
        let mut leave: Vec<Spot> = members.iter().collect();
        leave.sort_by_key(|spot| self.worth(shard, &members, *spot, ranks));
        let search = Search { only: Some(home), ..self.search(shard, ranks) };
        let mut found = leave.into_iter().map(|spot| {
            let stay = members.without(spot);
            search.find(&stay, 1).beside(&stay)
        });
        found.find(|found| *found != Found::Nowhere).unwrap_or(Found::Nowhere)
    }

    fn reason(&self, shard: usize, fault: Fault, census: Census) -> Reason {
        let placed = self.cell.shard(shard);
        let members = placed.members.len();
        let id = |spot: Spot| self.cell.node(spot).id;
        let policy = || self.names.policy(placed.policy);
        let wanted = self.cell.policy(shard).replicas;
        match fault {
            Fault::TooMany => Reason::TooMany { found: members, wanted, policy: policy() },
            Fault::TooFew => Reason::TooFew { found: members, wanted, policy: policy() },
            Fault::Gone(spot) => {
                let spare = census.live.saturating_sub(crate::members::majority(members));
                Reason::Gone { node: id(spot), live: census.live, of: members, spare }
            }
            Fault::Forbidden(spot) => Reason::Forbidden {
                node: id(spot),
                region: self.names.region(self.cell.node(spot).region),
                policy: policy(),
            },
            Fault::Together(spot, other) => {
                Reason::Together { node: id(spot), other: id(other), domain: self.shared(spot, other) }
            }
            Fault::NoneAtHome(home) => Reason::NoneAtHome { region: self.names.region(home), policy: policy() },
            Fault::Draining(spot) => Reason::Draining { node: id(spot) },
        }
    }

    fn shared(&self, spot: Spot, other: Spot) -> String {
        let (a, b) = (self.cell.node(spot), self.cell.node(other));
        match self.names.domain(spot) {
            domain if a.domain == b.domain && !domain.is_empty() => format!("failure domain {domain}"),
            _ => format!("region {}", self.names.region(a.region)),
        }
    }
}

impl Found {
    /// What was found, together with what stays.
    fn beside(self, stay: &Members) -> Self {
        match self {
            Self::At(new) => Self::At(stay.iter().chain(new.iter()).collect()),
            other => other,
        }
    }
}
