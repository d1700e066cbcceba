//! What may still begin in this plan: places of nodes, links and the cluster, of which what runs has some.

use crate::cell::{Cell, NOBODY};
use crate::limits::Limits;
use crate::members::{Members, Spot};
use crate::view::{Running, View};

#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    incoming: Vec<u32>,
    outgoing: Vec<u32>,
    /// By region of the sender, then of the receiver.
    links: Vec<u32>,
    regions: usize,
    moves: u32,
    homes: u32,
}

impl Budget {
    pub(crate) fn new(view: &View, cell: &Cell, limits: Limits) -> Self {
        let nodes = cell.nodes.len();
        let regions = cell.regions;
        let links = vec![0; regions * regions];
        let mut budget =
            Self { limits, incoming: vec![0; nodes], outgoing: vec![0; nodes], links, regions, moves: 0, homes: 0 };
        for (at, shard) in view.shards.iter().enumerate() {
            match &shard.running {
                Some(Running::Home) => budget.homes = budget.homes.saturating_add(1),
                Some(Running::Replicas(_)) => {
                    let wanted = cell.shard(at).members;
                    let sender = shard.lead.and_then(|lead| view.place_of(lead));
                    let sender = sender.and_then(|place| Spot::try_from(place).ok()).unwrap_or(NOBODY);
                    for spot in wanted.iter().filter(|spot| !shard.replicas.contains(&cell.node(*spot).id)) {
                        budget.spend_move(cell, sender, spot);
                    }
                }
                None => {}
            }
        }
        budget
    }

    /// Who sends a shard's state to new replicas: its leader, or whoever answers.
    pub(crate) fn sender(cell: &Cell, shard: usize) -> Spot {
        let placed = cell.shard(shard);
        let leads = (placed.leader != NOBODY && cell.node(placed.leader).is_live()).then_some(placed.leader);
        leads.or_else(|| placed.members.iter().find(|spot| cell.node(*spot).is_live())).unwrap_or(NOBODY)
    }

    /// Whether the cluster may begin that many moves more. A change that is larger than the limit is one alone: it would never begin
    /// otherwise.
    pub(crate) fn has_moves(&self, count: usize) -> bool {
        let left = self.limits.moves_per_cluster.saturating_sub(self.moves);
        let is_alone = self.moves == 0 && left > 0;
        is_alone || usize::try_from(left).is_ok_and(|left| count <= left)
    }

    pub(crate) fn has_home(&self) -> bool {
        self.homes < self.limits.homes_per_cluster
    }

    pub(crate) fn may_send(&self, sender: Spot) -> bool {
        sender == NOBODY || self.outgoing[sender as usize] < self.limits.moves_per_node
    }

    pub(crate) fn may_go(&self, cell: &Cell, sender: Spot, to: Spot) -> bool {
        self.incoming[to as usize] < self.limits.moves_per_node
            && self.link(cell, sender, to).is_none_or(|link| self.links[link] < self.limits.moves_per_link)
    }

    pub(crate) fn spend(&mut self, cell: &Cell, sender: Spot, new: &Members) {
        // What moves nothing is a change all the same.
        self.moves = self.moves.saturating_add(u32::from(new.len() == 0));
        for spot in new.iter() {
            self.spend_move(cell, sender, spot);
        }
    }

    fn spend_move(&mut self, cell: &Cell, sender: Spot, to: Spot) {
        self.moves = self.moves.saturating_add(1);
        self.incoming[to as usize] += 1;
        if sender != NOBODY {
            self.outgoing[sender as usize] += 1;
        }
        if let Some(link) = self.link(cell, sender, to) {
            self.links[link] += 1;
        }
    }

    pub(crate) fn spend_home(&mut self) {
        self.homes = self.homes.saturating_add(1);
    }

    /// The link between two regions; none within one.
    fn link(&self, cell: &Cell, sender: Spot, to: Spot) -> Option<usize> {
        if sender == NOBODY {
            return None;
        }
        let (from, to) = (usize::from(cell.node(sender).region), usize::from(cell.node(to).region));
        (from != to && from < self.regions && to < self.regions).then(|| from * self.regions + to)
    }
}
