//! Where shards are at home: where their policy wants it, where they have a replica, and as evenly as that allows.
//!
//! A home is a region, and the lead goes there by itself. Changing it moves no bytes.

use crate::cell::{Cell, Dimension};
use crate::even::Unevenness;
use crate::members::Spot;
use crate::plan::Planner;
use crate::ranks::Ranks;
use crate::step::{Measure, Priority, Reason};

/// Shards of a node that are looked at for one that is worth its move, once there is one.
const SHARDS_COMPARED: usize = 128;

impl Planner<'_> {
    /// Homes that are wrong.
    pub(crate) fn settle_homes(&mut self) {
        for shard in 0..self.cell.shards.len() {
            let placed = self.cell.shard(shard);
            if placed.is_busy {
                continue;
            }
            let policy = self.cell.policy(shard);
            let is_empty = !self.cell.has_member_in(&placed.members, placed.home) || !policy.allows(placed.home);
            let is_elsewhere = policy.home.is_some_and(|home| home != placed.home);
            if !is_empty && !is_elsewhere {
                continue;
            }
            let Some(region) = self.better_home(shard, is_empty) else { continue };
            let reason = if is_empty {
                Reason::HomeEmpty { region: self.names.region(placed.home) }
            } else {
                Reason::HomePreferred { region: self.names.region(region), policy: self.names.policy(placed.policy) }
            };
            if !self.budget.has_home() {
                self.are_homes_held = true;
                return;
            }
            self.set_home(shard, region, Priority::Leads, reason);
        }
    }

    fn better_home(&self, shard: usize, is_empty: bool) -> Option<u16> {
        let (placed, policy) = (self.cell.shard(shard), self.cell.policy(shard));
        if !self.cell.has_quorum(&placed.members) {
            return None;
        }
        let can_lead = |spot: &Spot| {
            let node = self.cell.node(*spot);
            node.is_up() && node.region != placed.home && policy.allows(node.region)
        };
        let best = placed.members.iter().filter(can_lead).min_by_key(|spot| {
            let node = self.cell.node(*spot);
            (policy.home != Some(node.region), node.load(Dimension::Leads), *spot)
        })?;
        let region = self.cell.node(best).region;
        (is_empty || policy.home == Some(region)).then_some(region)
    }

    /// Homes that are as good elsewhere, where fewer are led.
    pub(crate) fn even_leads(&mut self) {
        if self.are_homes_held {
            return;
        }
        let unevenness = Unevenness::new(&self.cell);
        let mut ranks = Ranks::new(&self.cell, Dimension::Leads);
        let band = u64::from(self.limits.leads_band_permille);
        let band = ranks.mean() / 1000 * band;
        let mut led = led(&self.cell);
        let mut next = vec![0_usize; self.cell.nodes.len()];
        while let Some(from) = ranks.hottest() {
            let spot = from as usize;
            match self.best_lead(from, &led[spot], next[spot], band, &unevenness) {
                None => ranks.retire(from),
                Some(_) if !self.budget.has_home() => {
                    self.are_homes_held = true;
                    return;
                }
                Some((at, to)) => {
                    let shard = led[spot].swap_remove(at) as usize;
                    next[spot] = at;
                    let reason = Reason::Uneven {
                        measure: Measure::Leads,
                        from: self.bearer(Dimension::Leads, from),
                        to: self.bearer(Dimension::Leads, to),
                    };
                    let region = self.cell.node(to).region;
                    self.set_home(shard, region, Priority::Leads, reason);
                    ranks.file(&self.cell, from);
                    ranks.file(&self.cell, self.cell.shard(shard).leader);
                }
            }
        }
    }

    /// Of the shards that a node leads, one that another member had better lead, and that member.
    fn best_lead(
        &self,
        from: Spot,
        led: &[u32],
        first: usize,
        band: u64,
        unevenness: &Unevenness,
    ) -> Option<(usize, Spot)> {
        let hot = self.cell.node(from).load(Dimension::Leads);
        let mut best: Option<(i128, usize, Spot)> = None;
        let order = (first.min(led.len())..led.len()).chain(0..first.min(led.len()));
        for (seen, at) in order.enumerate() {
            if seen >= SHARDS_COMPARED && best.is_some() {
                break;
            }
            let placed = self.cell.shard(led[at] as usize);
            let others = placed.members.iter().filter(|spot| {
                let node = self.cell.node(*spot);
                // Of several in one region, the one that the lead would go to.
                let is_seat = self.cell.seat(&placed.members, node.region, None) == *spot;
                is_seat && node.region != placed.home && hot.saturating_sub(node.load(Dimension::Leads)) > band
            });
            for to in others {
                let gain = unevenness.gain(&self.cell, from, to, [0, 0, 1]);
                if gain > 0 && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, at, to));
                }
            }
        }
        best.map(|(_, at, to)| (at, to))
    }
}

/// Of each node, the shards that it leads and that could as well be at home elsewhere.
fn led(cell: &Cell) -> Vec<Vec<u32>> {
    let mut led = vec![Vec::new(); cell.nodes.len()];
    for (at, placed) in (0_u32..).zip(&cell.shards) {
        let is_free = placed.is_sound && !placed.is_busy && cell.policy(at as usize).home.is_none();
        if is_free && cell.node(placed.leader).region == placed.home {
            led[placed.leader as usize].push(at);
        }
    }
    led
}
