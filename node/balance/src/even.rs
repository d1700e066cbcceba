//! Bytes, then writes, then leads that cannot change their home, are evened out, from the node that has most to the one that has least.
//!
//! Invariant: each step lowers the *unevenness* of the cell: the sum, over nodes and what they bear (bytes, writes, leads), of the square of
//! what is borne by what can be borne. It is reckoned in integers whose rounding is allowed for, so no sequence of steps comes back
//! to where it was, whatever the bands are. The bands only say what is worth a step.

use crate::cell::{Amounts, Cell, Dimension, load};
use crate::members::Spot;
use crate::place;
use crate::plan::Planner;
use crate::ranks::Ranks;
use crate::step::{Bearer, Measure, Priority, Reason};

/// Candidates that are compared, of those that may move.
const SHARDS_COMPARED: usize = 8;
/// Nodes that are tried of one region, the least loaded first.
const NODES_TRIED: usize = 16;
/// Moves of a node between two clearings of its list of what it could give.
const OFFERED_AGE_MAX: u32 = 32;
/// Fixed point of one term: what a node would bear more or less.
const TERM_BITS: u32 = 24;
/// Fixed point of a weight: so that a cell of exabytes has one.
const WEIGHT_BITS: u32 = 48;

/// The number that every step of evening out makes smaller.
#[derive(Debug)]
pub(crate) struct Unevenness {
    /// Of each dimension, so that all count alike.
    weights: [i128; 3],
    /// What rounding may hide.
    rounding: i128,
    /// All that is borne.
    totals: [u64; 2],
}

impl Unevenness {
    pub(crate) fn new(cell: &Cell) -> Self {
        let weight = |dimension| {
            let (amount, capacity) = cell.sums(dimension, None);
            let square = u128::from(amount) * u128::from(amount);
            let weight = (u128::from(capacity) << WEIGHT_BITS).checked_div(square).map_or(0, |weight| weight.max(1));
            i128::try_from(weight).unwrap_or(i128::MAX >> 80)
        };
        let weights = [Dimension::Bytes, Dimension::Writes, Dimension::Leads].map(weight);
        // Two terms of each dimension, each less than one off.
        let rounding = weights.iter().sum::<i128>() * 2;
        let totals = [Dimension::Bytes, Dimension::Writes].map(|dimension| cell.sums(dimension, None).0);
        Self { weights, rounding, totals }
    }

    /// What a replica is of all bytes and of all writes, added up.
    fn share(&self, amounts: Amounts) -> u64 {
        let shares = self.totals.iter().zip(amounts).map(|(total, amount)| load(amount, *total));
        shares.fold(0, u64::saturating_add)
    }

    /// How much smaller it is for certain once `moved` has gone from one node to another; not above 0: not for certain.
    pub(crate) fn gain(&self, cell: &Cell, from: Spot, to: Spot, moved: Amounts) -> i128 {
        let (from, to) = (cell.node(from), cell.node(to));
        let dimensions = self.weights.iter().zip(moved).enumerate().filter(|(_, (_, moved))| *moved > 0);
        let gain = dimensions.map(|(at, (weight, moved))| {
            let moved = i128::from(moved);
            let (has, will) = (i128::from(from.amounts[at]), i128::from(to.amounts[at]));
            let less = (((2 * has - moved) * moved) << TERM_BITS) / i128::from(from.capacity[at]);
            let more = (((2 * will + moved) * moved) << TERM_BITS) / i128::from(to.capacity[at]);
            weight.saturating_mul(less - more)
        });
        gain.fold(0_i128, i128::saturating_add).saturating_sub(self.rounding)
    }
}

/// What one node could give away.
enum Offer {
    Move { shard: usize, to: Spot },
    Later,
    Nothing,
}

impl Planner<'_> {
    pub(crate) fn even_out(&mut self) {
        let unevenness = Unevenness::new(&self.cell);
        let held = held(&self.cell);
        self.even(Dimension::Bytes, &held, &unevenness);
        if !self.is_held {
            self.even(Dimension::Writes, &held, &unevenness);
        }
        // The last resort: as long as anything else is under way, leads may still become even without moving bytes.
        if self.is_quiet() {
            self.even(Dimension::Leads, &held, &unevenness);
        }
    }

    fn even(&mut self, dimension: Dimension, held: &Held, unevenness: &Unevenness) {
        let mut ranks = Ranks::new(&self.cell, dimension);
        let mut offers: Vec<Option<(Vec<u32>, u32)>> = vec![None; self.cell.nodes.len()];
        while let Some(from) = ranks.hottest() {
            let spot = from as usize;
            let offered = match &mut offers[spot] {
                Some((offered, age)) => {
                    *age += 1;
                    // Those that have been planned since are passed over, and cleared away now and then.
                    if *age % OFFERED_AGE_MAX == 0 {
                        offered.retain(|shard| !self.cell.shard(*shard as usize).is_busy);
                    }
                    offered
                }
                none => &mut none.insert((self.offered(from, dimension, held, unevenness), 0)).0,
            };
            match self.offer(from, dimension, offered, &ranks, unevenness) {
                Offer::Nothing => ranks.retire(from),
                Offer::Later => {
                    self.is_held = true;
                    ranks.retire(from);
                }
                Offer::Move { shard, to } => {
                    let reason = self.uneven(dimension, from, to);
                    let members = self.cell.shard(shard).members.without(from).with(to);
                    self.set_replicas(shard, members, Priority::Balance, reason);
                    ranks.file(&self.cell, from);
                    ranks.file(&self.cell, to);
                }
            }
        }
    }

    /// What a node has that could go, first what takes most with it of all that is borne: fewest moves.
    fn offered(&self, from: Spot, dimension: Dimension, held: &Held, unevenness: &Unevenness) -> Vec<u32> {
        let amounts = |shard: u32| self.cell.shard(shard as usize).amounts_at(from);
        let offered = held.of(from).iter().copied().filter(|shard| amounts(*shard)[dimension as usize] > 0);
        let mut offered: Vec<(u64, u32)> = offered.map(|shard| (unevenness.share(amounts(shard)), shard)).collect();
        offered.sort_unstable_by_key(|(share, shard)| (std::cmp::Reverse(*share), *shard));
        offered.into_iter().map(|(_, shard)| shard).collect()
    }

    fn offer(
        &self,
        from: Spot,
        dimension: Dimension,
        offered: &[u32],
        ranks: &Ranks,
        unevenness: &Unevenness,
    ) -> Offer {
        let (region, hot) = (self.cell.node(from).region, ranks.load(from));
        let band = u64::from(match dimension {
            Dimension::Bytes => self.limits.bytes_band_permille,
            Dimension::Writes => self.limits.writes_band_permille,
            Dimension::Leads => self.limits.leads_band_permille,
        });
        let regions = u16::try_from(self.cell.regions).unwrap_or(u16::MAX);
        let mut others: Vec<(u64, u16)> = (0..regions)
            .filter(|other| *other != region && dimension != Dimension::Leads)
            .filter_map(|other| Some((ranks.least(other)?, other)))
            .collect();
        others.sort_unstable();
        let near = [(region, ranks.mean_of(region))].into_iter();
        let far = others.into_iter().map(|(_, other)| (other, ranks.mean()));
        let mut is_later = false;
        for (region, mean) in near.chain(far) {
            let band = mean / 1000 * band;
            // A class has its nodes in order; classes are alike but for what is apart from what.
            let nodes = ranks.classes(region).flat_map(|class| ranks.nodes(class).take(NODES_TRIED));
            for to in nodes.take(NODES_TRIED).filter(|to| hot.saturating_sub(ranks.load(*to)) > band) {
                match self.best_move(from, to, dimension, offered, unevenness) {
                    Offer::Nothing => {}
                    Offer::Later => is_later = true,
                    found @ Offer::Move { .. } => return found,
                }
            }
        }
        if is_later { Offer::Later } else { Offer::Nothing }
    }

    /// The best of the largest that do not make the one that gets it fuller than the one that gives it.
    fn best_move(&self, from: Spot, to: Spot, dimension: Dimension, offered: &[u32], unevenness: &Unevenness) -> Offer {
        let most = self.evening(from, to, dimension);
        let amounts = |shard: u32| self.cell.shard(shard as usize).amounts_at(from);
        let mut best: Option<(i128, usize)> = None;
        let mut compared = 0;
        let mut is_later = false;
        for shard in offered {
            if compared >= SHARDS_COMPARED {
                break;
            }
            let is_too_large = amounts(*shard)[dimension as usize] > most;
            if is_too_large || self.cell.shard(*shard as usize).is_busy {
                continue;
            }
            let gain = unevenness.gain(&self.cell, from, to, amounts(*shard));
            let shard = *shard as usize;
            if gain <= 0 || !self.may_move(shard, from, to) {
                continue;
            }
            if !self.may_begin(shard, to) {
                is_later = true;
                compared += 1;
                continue;
            }
            compared += 1;
            if best.is_none_or(|(most, _)| gain > most) {
                best = Some((gain, shard));
            }
        }
        match best {
            Some((_, shard)) => Offer::Move { shard, to },
            None if is_later => Offer::Later,
            None => Offer::Nothing,
        }
    }

    /// What makes two nodes even when it goes from one to the other.
    fn evening(&self, from: Spot, to: Spot, dimension: Dimension) -> u64 {
        let at = dimension as usize;
        let (from, to) = (self.cell.node(from), self.cell.node(to));
        let (has, will) = (u128::from(from.amounts[at]), u128::from(to.amounts[at]));
        let (from, to) = (u128::from(from.capacity[at]), u128::from(to.capacity[at]));
        let most = (has * to).saturating_sub(will * from).div_ceil(from + to);
        u64::try_from(most).unwrap_or(u64::MAX)
    }

    fn may_move(&self, shard: usize, from: Spot, to: Spot) -> bool {
        let (placed, policy) = (self.cell.shard(shard), self.cell.policy(shard));
        let (here, there) = (self.cell.node(from).region, self.cell.node(to).region);
        // A home keeps its replica. A lead stays in its region, and goes along where nobody else there could take it.
        let is_home = placed.home == here || policy.home == Some(here);
        let goes_along = || !self.cell.has_member_in(&placed.members.without(from), here);
        !placed.is_busy
            && !placed.members.contains(to)
            && policy.allows(there)
            && (here == there || !is_home)
            && (placed.leader != from || (here == there && goes_along()))
            && placed
                .members
                .iter()
                .filter(|other| *other != from)
                .all(|other| !self.cell.are_together(policy.spread, other, to))
            && place::has_room(&self.cell, self.limits, shard, to)
    }

    fn may_begin(&self, shard: usize, to: Spot) -> bool {
        let sender = crate::budget::Budget::sender(&self.cell, shard);
        self.budget.has_moves(1) && self.budget.may_send(sender) && self.budget.may_go(&self.cell, sender, to)
    }

    fn uneven(&self, dimension: Dimension, from: Spot, to: Spot) -> Reason {
        let measure = match dimension {
            Dimension::Bytes => Measure::Bytes,
            Dimension::Writes => Measure::Writes,
            Dimension::Leads => Measure::Leads,
        };
        Reason::Uneven { measure, from: self.bearer(dimension, from), to: self.bearer(dimension, to) }
    }

    pub(crate) fn bearer(&self, dimension: Dimension, spot: Spot) -> Bearer {
        let (node, at) = (self.cell.node(spot), dimension as usize);
        Bearer { node: node.id, amount: node.amounts[at], capacity: node.capacity[at] }
    }
}

/// Of each node, the shards that have a replica there and may move: nothing is wrong with them, and nothing changes them.
#[derive(Debug)]
struct Held {
    first: Vec<usize>,
    shards: Vec<u32>,
}

impl Held {
    fn of(&self, spot: Spot) -> &[u32] {
        &self.shards[self.first[spot as usize]..self.first[spot as usize + 1]]
    }
}

fn held(cell: &Cell) -> Held {
    let free = || (0_u32..).zip(&cell.shards).filter(|(_, placed)| placed.is_sound && !placed.is_busy);
    let mut first = vec![0; cell.nodes.len() + 1];
    for spot in free().flat_map(|(_, placed)| placed.members.iter()) {
        first[spot as usize + 1] += 1;
    }
    for at in 1..first.len() {
        first[at] += first[at - 1];
    }
    let mut next = first.clone();
    let mut shards = vec![0; first[cell.nodes.len()]];
    for (shard, placed) in free() {
        for spot in placed.members.iter() {
            shards[next[spot as usize]] = shard;
            next[spot as usize] += 1;
        }
    }
    Held { first, shards }
}
