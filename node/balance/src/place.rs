//! Where new replicas of a shard go: a node that is up, that the policy allows, apart from those that stay, with room; the least loaded, and
//! in the region that loses one unless another is emptier by more than half a band.

use crate::budget::Budget;
use crate::cell::{Cell, Dimension};
use crate::limits::Limits;
use crate::members::{Members, Spot};
use crate::ranks::Ranks;
use crate::view::Spread;

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    At(Members),
    /// There is a place, and no leave to begin now.
    Later,
    Nowhere,
}

/// One search for places of one shard.
#[derive(Debug)]
pub(crate) struct Search<'s> {
    pub(crate) cell: &'s Cell,
    pub(crate) ranks: &'s Ranks,
    pub(crate) budget: &'s Budget,
    pub(crate) limits: &'s Limits,
    pub(crate) shard: usize,
    /// The region that loses a replica.
    pub(crate) near: Option<u16>,
    /// The only region that will do.
    pub(crate) only: Option<u16>,
}

impl Search<'_> {
    /// Places for so many replicas beside those that stay.
    pub(crate) fn find(&self, stay: &Members, count: usize) -> Found {
        let sender = Budget::sender(self.cell, self.shard);
        let may_begin = self.budget.has_moves(count) && self.budget.may_send(sender);
        let mut is_later = false;
        let found = self.choose(stay, count, may_begin.then_some(sender), &mut is_later);
        match found {
            Some(new) if may_begin => Found::At(new),
            Some(_) => Found::Later,
            None if is_later => Found::Later,
            None => Found::Nowhere,
        }
    }

    fn choose(&self, stay: &Members, count: usize, sender: Option<Spot>, is_later: &mut bool) -> Option<Members> {
        if count == 0 {
            return Some(Members::default());
        }
        let mut options = self.options(stay, sender, is_later);
        let first = options.next()?;
        // Whichever is taken, the others that are apart from it remain; only domains that reach over regions can make the first one a
        // wrong turn.
        let is_exact = !self.cell.has_shared_domains || count == 1;
        let others = options.take_while(|_| !is_exact);
        let all: Vec<Spot> = [first].into_iter().chain(others).collect();
        all.into_iter().find_map(|spot| {
            let rest = self.choose(&stay.with(spot), count - 1, sender, is_later)?;
            Some(Members::default().with(spot).iter().chain(rest.iter()).collect())
        })
    }

    /// The best node of each class, in order.
    fn options<'o>(
        &'o self,
        stay: &'o Members,
        sender: Option<Spot>,
        is_later: &'o mut bool,
    ) -> impl Iterator<Item = Spot> + 'o {
        let classes = self.regions(stay).into_iter().flat_map(|region| self.ranks.classes(region));
        classes.filter(|class| self.is_apart(*class, stay)).filter_map(move |class| {
            for spot in self.ranks.nodes(class).filter(|spot| self.has_room(*spot)) {
                match sender {
                    // Only whether there is a place at all is asked.
                    None => return Some(spot),
                    Some(sender) if self.budget.may_go(self.cell, sender, spot) => return Some(spot),
                    Some(_) => *is_later = true,
                }
            }
            None
        })
    }

    fn regions(&self, stay: &Members) -> Vec<u16> {
        let policy = self.cell.policy(self.shard);
        // Half a band: what is near is then still even with what is far.
        let band = u64::from(self.limits.bytes_band_permille);
        let band = self.ranks.mean() / 2000 * band;
        let mut order: Vec<_> = policy
            .regions
            .iter()
            .filter(|region| self.only.is_none_or(|only| only == **region))
            .filter(|region| policy.spread != Spread::Regions || !self.cell.has_member_in(stay, **region))
            .filter_map(|region| {
                let least = self.ranks.least(*region)?;
                let is_missing_home = policy.home == Some(*region) && !self.cell.has_member_in(stay, *region);
                let is_near = self.near == Some(*region);
                let least = if is_near { least } else { least.saturating_add(band) };
                Some((!is_missing_home, least, *region))
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, region)| region).collect()
    }

    fn is_apart(&self, class: u32, stay: &Members) -> bool {
        let (region, domain) = self.cell.class(class);
        let spread = self.cell.policy(self.shard).spread;
        stay.iter().all(|spot| {
            let node = self.cell.node(spot);
            node.domain != domain && (spread != Spread::Regions || node.region != region)
        })
    }

    fn has_room(&self, spot: Spot) -> bool {
        let placed = self.cell.shard(self.shard);
        !placed.members.contains(spot) && has_room(self.cell, self.limits, self.shard, spot)
    }
}

/// Whether a node has room for a replica while all that goes is there still.
pub(crate) fn has_room(cell: &Cell, limits: &Limits, shard: usize, spot: Spot) -> bool {
    let node = cell.node(spot);
    let capacity = u128::from(node.capacity[Dimension::Bytes as usize]);
    let peak = u128::from(node.peak + cell.shard(shard).bytes());
    peak * 1000 <= capacity * u128::from(limits.fill_permille_max)
}
