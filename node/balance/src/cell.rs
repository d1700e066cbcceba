//! The view as a plan works on it: places instead of names, sums of each node, and every planned step already counted.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::{NodeId, ShardId};

use crate::members::{Members, Spot, majority};
use crate::view::{NodeState, Running, Spread, View};

/// What a node bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Bytes,
    Writes,
    Leads,
}

/// One number for each dimension.
pub(crate) type Amounts = [u64; 3];

/// Nobody.
pub(crate) const NOBODY: Spot = Spot::MAX;
/// Of a node that the view does not know.
const NOWHERE: u16 = u16::MAX;
/// Bytes are reckoned with in MiB: a replica that has nothing still is one.
const MIB: u64 = 1 << 20;
/// Fixed point of what is borne by capacity.
const LOAD_BITS: u32 = 32;

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) region: u16,
    /// Two nodes of one domain fail at once.
    pub(crate) domain: u32,
    /// Its region and its domain: nodes of one class are alike to a policy.
    pub(crate) class: u32,
    pub(crate) state: NodeState,
    pub(crate) capacity: Amounts,
    /// Once all that runs or is planned has been done.
    pub(crate) amounts: Amounts,
    /// MiB on its disk while what comes is there and what goes is there still.
    pub(crate) peak: u64,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) members: Members,
    /// The member that leads when all is well: at home.
    pub(crate) leader: Spot,
    pub(crate) policy: u16,
    pub(crate) home: u16,
    /// An operation of it runs, or is planned: there is one at a time.
    pub(crate) is_busy: bool,
    /// Nothing is wrong with it.
    pub(crate) is_sound: bool,
    bytes: u32,
    writes: u32,
}

#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) replicas: usize,
    /// Rising.
    pub(crate) regions: Vec<u16>,
    allowed: Vec<bool>,
    pub(crate) spread: Spread,
    pub(crate) home: Option<u16>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) nodes: Vec<Node>,
    pub(crate) shards: Vec<Shard>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) regions: usize,
    pub(crate) classes: usize,
    /// Of each class, a node's.
    class_of: Vec<(u16, u32)>,
    /// Whether some failure domain is in several regions.
    pub(crate) has_shared_domains: bool,
}

impl Policy {
    pub(crate) fn allows(&self, region: u16) -> bool {
        self.allowed.get(usize::from(region)).copied().unwrap_or(false)
    }
}

impl Node {
    pub(crate) fn is_up(&self) -> bool {
        self.state == NodeState::Up
    }

    /// It votes.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, NodeState::Up | NodeState::Draining)
    }

    /// It will not come back with what it had.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.state, NodeState::Dead | NodeState::Removed)
    }

    /// What it bears by what it can bear, in units of 2^-32.
    pub(crate) fn load(&self, dimension: Dimension) -> u64 {
        load(self.amounts[dimension as usize], self.capacity[dimension as usize])
    }
}

/// What is borne by what can be borne, in units of 2^-32.
pub(crate) fn load(amount: u64, capacity: u64) -> u64 {
    let load = (u128::from(amount) << LOAD_BITS) / u128::from(capacity.max(1));
    u64::try_from(load).unwrap_or(u64::MAX)
}

impl Shard {
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.bytes)
    }

    /// What its replica on a node takes there.
    pub(crate) fn amounts_at(&self, spot: Spot) -> Amounts {
        [u64::from(self.bytes), u64::from(self.writes), u64::from(self.leader == spot)]
    }
}

impl Cell {
    /// Of a view that was checked.
    pub(crate) fn new(view: &View) -> Self {
        let mut cell = Self {
            nodes: Vec::with_capacity(view.nodes.len()),
            shards: Vec::with_capacity(view.shards.len()),
            policies: Vec::with_capacity(view.policies.len()),
            regions: view.regions.len(),
            classes: 0,
            class_of: Vec::new(),
            has_shared_domains: false,
        };
        cell.add_nodes(view);
        cell.add_policies(view);
        cell.add_shards(view);
        cell
    }

    fn add_nodes(&mut self, view: &View) {
        let mut domains = BTreeMap::new();
        let mut classes = BTreeMap::new();
        let mut regions_of = BTreeMap::<u32, u16>::new();
        for node in &view.nodes {
            // A region is the domain of those of its nodes that name none.
            let domain = match node.failure_domain.as_str() {
                "" => u32::from(node.region.0),
                name => {
                    let next = view.regions.len() + domains.len();
                    *domains.entry(name).or_insert(u32::try_from(next).unwrap_or(u32::MAX))
                }
            };
            self.has_shared_domains |= *regions_of.entry(domain).or_insert(node.region.0) != node.region.0;
            let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            let class = *classes.entry((node.region.0, domain)).or_insert(next);
            if class == next {
                self.class_of.push((node.region.0, domain));
            }
            let bytes = (node.capacity.bytes / MIB).max(1);
            let other = node.other_bytes.div_ceil(MIB);
            self.nodes.push(Node {
                id: node.id,
                region: node.region.0,
                domain,
                class,
                state: node.state,
                capacity: [bytes, node.capacity.writes_per_s, node.capacity.writes_per_s],
                amounts: [other, 0, 0],
                peak: other,
            });
        }
        self.classes = classes.len();
        self.add_unknown(view);
    }

    /// Nodes that hold replicas by the view and are not in it were removed: they are alike to nobody.
    fn add_unknown(&mut self, view: &View) {
        let named = view.shards.iter().flat_map(|shard| match &shard.running {
            Some(Running::Replicas(wanted)) => shard.replicas.iter().chain(wanted.as_slice()),
            Some(Running::Home) | None => shard.replicas.iter().chain([].as_slice()),
        });
        let unknown: BTreeSet<NodeId> = named.copied().filter(|id| view.place_of(*id).is_none()).collect();
        for (at, id) in (0_u32..).zip(unknown) {
            self.nodes.push(Node {
                id,
                region: NOWHERE,
                domain: u32::MAX - at,
                class: u32::MAX,
                state: NodeState::Removed,
                capacity: [1; 3],
                amounts: [0; 3],
                peak: 0,
            });
        }
    }

    fn add_policies(&mut self, view: &View) {
        for policy in &view.policies {
            let regions: BTreeSet<u16> = policy.regions.iter().map(|region| region.0).collect();
            let mut allowed = vec![false; view.regions.len()];
            for region in &regions {
                allowed[usize::from(*region)] = true;
            }
            self.policies.push(Policy {
                replicas: usize::from(policy.replicas),
                regions: regions.into_iter().collect(),
                allowed,
                spread: policy.spread,
                home: policy.home.map(|region| region.0),
            });
        }
    }

    fn add_shards(&mut self, view: &View) {
        let known = view.nodes.len();
        let unknown: BTreeMap<NodeId, Spot> =
            (0..).zip(&self.nodes).skip(known).map(|(spot, node)| (node.id, spot)).collect();
        // Ids are mostly without gaps: a look at the place where one would be spares most searches.
        let first = view.nodes.first().map_or(0, |node| node.id.0);
        let spot = |id: &NodeId| {
            let guess = usize::try_from(id.0.wrapping_sub(first)).unwrap_or(usize::MAX);
            let at = match view.nodes.get(guess) {
                Some(node) if node.id == *id => Some(guess),
                _ => view.place_of(*id),
            };
            let at = at.and_then(|at| Spot::try_from(at).ok());
            at.or_else(|| unknown.get(id).copied()).unwrap_or(NOBODY)
        };
        for shard in &view.shards {
            let now: Members = shard.replicas.iter().map(spot).collect();
            let members = match &shard.running {
                Some(Running::Replicas(wanted)) => wanted.iter().map(spot).collect(),
                Some(Running::Home) | None => now,
            };
            let leader = self.seat(&members, shard.home.0, shard.lead.as_ref().map(spot));
            let bytes = shard.bytes.div_ceil(MIB).max(1);
            let placed = Shard {
                members,
                leader,
                policy: shard.policy.0,
                home: shard.home.0,
                is_busy: shard.running.is_some(),
                is_sound: false,
                bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
                writes: u32::try_from(shard.writes_per_s).unwrap_or(u32::MAX),
            };
            for spot in members.iter() {
                let node = &mut self.nodes[spot as usize];
                add(&mut node.amounts, placed.amounts_at(spot));
                node.peak += placed.bytes();
            }
            for spot in now.iter().filter(|spot| !members.contains(*spot)) {
                self.nodes[spot as usize].peak += placed.bytes();
            }
            self.shards.push(placed);
        }
    }

    pub(crate) fn node(&self, spot: Spot) -> &Node {
        &self.nodes[spot as usize]
    }

    pub(crate) fn shard(&self, shard: usize) -> &Shard {
        &self.shards[shard]
    }

    pub(crate) fn policy(&self, shard: usize) -> &Policy {
        &self.policies[usize::from(self.shards[shard].policy)]
    }

    pub(crate) fn ids(&self, members: &Members) -> Vec<NodeId> {
        members.iter().map(|spot| self.node(spot).id).collect()
    }

    pub(crate) fn class(&self, class: u32) -> (u16, u32) {
        self.class_of[class as usize]
    }

    pub(crate) fn seat(&self, members: &Members, home: u16, now: Option<Spot>) -> Spot {
        let standing = |spot: Spot| {
            let node = self.node(spot);
            Standing { is_home: node.region == home, is_up: node.is_up(), is_live: node.is_live() }
        };
        seat(members.iter(), standing, now).unwrap_or(NOBODY)
    }

    /// Members that answer.
    pub(crate) fn live(&self, members: &Members) -> usize {
        members.iter().filter(|spot| self.node(*spot).is_live()).count()
    }

    pub(crate) fn has_quorum(&self, members: &Members) -> bool {
        self.live(members) >= majority(members.len())
    }

    /// Whether a policy forbids two replicas of a shard on these.
    pub(crate) fn are_together(&self, spread: Spread, a: Spot, b: Spot) -> bool {
        let (a, b) = (self.node(a), self.node(b));
        a.domain == b.domain || (spread == Spread::Regions && a.region == b.region && a.region != NOWHERE)
    }

    pub(crate) fn has_member_in(&self, members: &Members, region: u16) -> bool {
        members.iter().any(|spot| self.node(spot).region == region)
    }

    /// Counts a planned change of a shard's replicas.
    pub(crate) fn replace_members(&mut self, shard: usize, members: Members) {
        let placed = &self.shards[shard];
        let leader = self.seat(&members, placed.home, (placed.leader != NOBODY).then_some(placed.leader));
        for spot in placed.members.iter() {
            take(&mut self.nodes[spot as usize].amounts, placed.amounts_at(spot));
        }
        for spot in members.iter().filter(|spot| !placed.members.contains(*spot)) {
            self.nodes[spot as usize].peak += placed.bytes();
        }
        let placed = &mut self.shards[shard];
        (placed.members, placed.leader, placed.is_busy) = (members, leader, true);
        for spot in members.iter() {
            add(&mut self.nodes[spot as usize].amounts, placed.amounts_at(spot));
        }
    }

    /// Counts a planned change of a shard's home.
    pub(crate) fn replace_home(&mut self, shard: usize, home: u16) {
        let placed = &self.shards[shard];
        let leader = self.seat(&placed.members, home, None);
        let leads = Dimension::Leads as usize;
        if placed.leader != NOBODY {
            self.nodes[placed.leader as usize].amounts[leads] -= 1;
        }
        if leader != NOBODY {
            self.nodes[leader as usize].amounts[leads] += 1;
        }
        let placed = &mut self.shards[shard];
        (placed.home, placed.leader, placed.is_busy) = (home, leader, true);
    }

    /// What the nodes that take part bear and can bear, together: all regions, or one.
    pub(crate) fn sums(&self, dimension: Dimension, region: Option<u16>) -> (u64, u64) {
        let counts = |node: &&Node| node.is_up() && region.is_none_or(|region| node.region == region);
        self.nodes.iter().filter(counts).fold((0, 0), |(amount, capacity), node| {
            (amount + node.amounts[dimension as usize], capacity + node.capacity[dimension as usize])
        })
    }

    pub(crate) fn spots_up(&self) -> impl Iterator<Item = Spot> + '_ {
        (0..).zip(&self.nodes).filter(|(_, node)| node.is_up()).map(|(spot, _)| spot)
    }
}

/// What counts of a member when its shard's lead is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    pub(crate) is_home: bool,
    pub(crate) is_up: bool,
    pub(crate) is_live: bool,
}

/// The member that leads when all is well: in the home region, where nodes bring the lead by themselves (ADR 033); otherwise who
/// leads now, or whoever answers.
pub(crate) fn seat<T: Copy + Ord>(
    members: impl Iterator<Item = T> + Clone,
    standing: impl Fn(T) -> Standing,
    now: Option<T>,
) -> Option<T> {
    let now = now.filter(|now| members.clone().any(|member| member == *now));
    if let Some(now) = now.filter(|now| standing(*now).is_home) {
        return Some(now);
    }
    let at_home = members.clone().filter(|member| standing(*member).is_home);
    let at_home = at_home.min_by_key(|member| (!standing(*member).is_up, *member));
    at_home.or(now).or_else(|| members.clone().filter(|member| standing(*member).is_live).min())
}

fn add(to: &mut Amounts, more: Amounts) {
    to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
}

fn take(from: &mut Amounts, less: Amounts) {
    from.iter_mut().zip(less).for_each(|(from, less)| *from -= less);
}

/// Names of what the view names, for reasons.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'v>(pub(crate) &'v View);

impl Names<'_> {
    pub(crate) fn region(self, region: u16) -> String {
        self.0.regions.get(usize::from(region)).cloned().unwrap_or_default()
    }

    pub(crate) fn policy(self, policy: u16) -> String {
        self.0.policies.get(usize::from(policy)).map(|policy| policy.name.clone()).unwrap_or_default()
    }

    pub(crate) fn shard(self, shard: usize) -> ShardId {
        self.0.shards[shard].id
    }

    pub(crate) fn epoch(self, shard: usize) -> u64 {
        self.0.shards[shard].epoch
    }

    pub(crate) fn domain(self, spot: Spot) -> String {
        self.0.nodes.get(spot as usize).map(|node| node.failure_domain.clone()).unwrap_or_default()
    }
}
