//! Simulated cells: how they are made, what happens to them, and what a step does when all goes well. For tests and `postrider bench plan`.

use std::collections::BTreeSet;

use postrider_api::id::{NodeId, ShardId};

use crate::cell::{Standing, seat};
use crate::step::{Change, Step};
use crate::view::{Capacity, Node, NodeState, Policy, PolicyNo, RegionNo, Running, Shard, Spread, View};

/// Regions of a cell that [`cell`] makes.
pub const REGIONS: u16 = 5;
/// Nodes of a rack.
pub const RACK_NODES: usize = 20;
/// What a shard has on the average.
const SHARD_BYTES: u64 = 8 << 30;
const SHARD_WRITES_PER_S: u64 = 12;
/// Nodes are made half full.
const HEADROOM: u64 = 2;

/// How large a cell is made.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Nodes, in racks of [`RACK_NODES`].
    pub nodes: usize,
    /// Mailbox shards.
    pub shards: usize,
}

/// Numbers that look random and are the same each time (splitmix64).
#[derive(Debug, Clone, Copy)]
pub struct Dice(pub u64);

impl Dice {
    /// Below `end`.
    pub fn roll(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }
}

/// A cell as it is after some years of quiet: shards from half to one and a half of the average, four kinds of policies, bytes even, leads
/// nearly so.
#[must_use]
pub fn cell(size: Size) -> View {
    let regions = (0..REGIONS).map(|region| format!("region-{region}")).collect();
    let policies = policies();
    // Of ten shards nine have three replicas and one has five.
    let replicas = size.shards as u64 * 32 / 10;
    let per_node = (replicas / (size.nodes as u64).max(1)).max(1);
    let capacity =
        Capacity { bytes: per_node * SHARD_BYTES * HEADROOM, writes_per_s: per_node * SHARD_WRITES_PER_S * HEADROOM };
    let mut view = View { regions, nodes: Vec::new(), policies, shards: Vec::new() };
    add_nodes(&mut view, size.nodes, capacity);
    add_shards(&mut view, size.shards);
    view
}

fn policies() -> Vec<Policy> {
    let everywhere: Vec<RegionNo> = (0..REGIONS).map(RegionNo).collect();
    let policy = |name: String, replicas, regions: &[RegionNo], home| Policy {
        name,
        replicas,
        regions: regions.to_vec(),
        spread: Spread::Regions,
        home,
    };
    let mut policies = vec![
        policy("world".to_owned(), 3, &everywhere, None),
        policy("five".to_owned(), 5, &everywhere, None),
        policy("three-regions".to_owned(), 3, &everywhere[..3], None),
    ];
    policies
        .extend(everywhere.iter().map(|region| policy(format!("home-{}", region.0), 3, &everywhere, Some(*region))));
    policies
}

/// Nodes are added, with racks of their own, to all regions in turn.
pub fn add_nodes(view: &mut View, count: usize, capacity: Capacity) {
    let first = view.nodes.last().map_or(1, |node| node.id.0 + 1);
    let regions = view.regions.len();
    for at in 0..count {
        let region = at % regions;
        let rack = at / regions / RACK_NODES;
        view.nodes.push(Node {
            id: NodeId(first + at as u64),
            region: RegionNo(u16::try_from(region).unwrap_or(0)),
            failure_domain: format!("rack-{first}-{region}-{rack}"),
            capacity,
            other_bytes: 0,
            state: NodeState::Up,
        });
    }
}

fn add_shards(view: &mut View, count: usize) {
    let mut dice = Dice(1);
    let mut bytes = vec![0_u64; view.nodes.len()];
    let mut leads = vec![0_u64; view.nodes.len()];
    let mut coldest = vec![BTreeSet::new(); view.regions.len()];
    for (at, node) in view.nodes.iter().enumerate() {
        coldest[usize::from(node.region.0)].insert((0, at));
    }
    for at in 0..count {
        let policy = match dice.roll(20) {
            0..10 => 0,
            10..12 => 1,
            12..14 => 2,
            other => 3 + other % u64::from(REGIONS),
        };
        let wanted = &view.policies[usize::try_from(policy).unwrap_or(0)];
        let size = SHARD_BYTES / 2 + dice.roll(SHARD_BYTES);
        let writes_per_s = SHARD_WRITES_PER_S / 2 + dice.roll(SHARD_WRITES_PER_S + 1);
        let mut regions: Vec<_> = wanted
            .regions
            .iter()
            .map(|region| (Some(*region) != wanted.home, coldest[usize::from(region.0)].first().copied(), *region))
            .collect();
        regions.sort_unstable();
        let mut members = Vec::new();
        for (_, _, region) in regions.into_iter().take(usize::from(wanted.replicas)) {
            if let Some((had, node)) = coldest[usize::from(region.0)].pop_first() {
                coldest[usize::from(region.0)].insert((had + size, node));
                bytes[node] += size;
                members.push(node);
            }
        }
        let at_home = |node: &&usize| wanted.home.is_none_or(|home| view.nodes[**node].region == home);
        let Some(lead) = members.iter().filter(at_home).min_by_key(|node| (leads[**node], **node)) else { continue };
        leads[*lead] += 1;
        view.shards.push(Shard {
            id: ShardId(ShardId::MAILBOX_FIRST.0 + u32::try_from(at).unwrap_or(0)),
            policy: PolicyNo(u16::try_from(policy).unwrap_or(0)),
            replicas: members.iter().map(|node| view.nodes[*node].id).collect(),
            lead: Some(view.nodes[*lead].id),
            home: view.nodes[*lead].region,
            epoch: 1,
            bytes: size,
            writes_per_s,
            running: None,
        });
    }
}

/// A rack loses its power and is given up.
///
/// # Panics
/// Never: a node names its rack.
pub fn kill_rack_of(view: &mut View, node: usize) {
    let rack = view.nodes[node].failure_domain.clone();
    for node in view.nodes.iter_mut().filter(|node| node.failure_domain == rack) {
        node.state = NodeState::Dead;
    }
}

/// What placement records when the step begins: the operation runs.
pub fn begin(view: &mut View, step: &Step) {
    let Ok(at) = view.shards.binary_search_by_key(&step.shard, |shard| shard.id) else { return };
    let region = match &step.change {
        Change::Replicas { replicas, .. } => {
            view.shards[at].running = Some(Running::Replicas(replicas.clone()));
            return;
        }
        Change::Home { region, .. } => view.regions.iter().position(|name| name == region),
    };
    if let Some(region) = region.and_then(|region| u16::try_from(region).ok()) {
        (view.shards[at].home, view.shards[at].running) = (RegionNo(region), Some(Running::Home));
    }
}

/// The operation of a shard that runs ends as it was wanted, and the lead is where it belongs.
pub fn end(view: &mut View, shard: ShardId) {
    let Ok(at) = view.shards.binary_search_by_key(&shard, |shard| shard.id) else { return };
    if let Some(Running::Replicas(replicas)) = view.shards[at].running.take() {
        view.shards[at].replicas = replicas;
        view.shards[at].epoch += 1;
    }
    let placed = &view.shards[at];
    let standing = |id: NodeId| {
        let node = view.place_of(id).map(|place| &view.nodes[place]);
        Standing {
            is_home: node.is_some_and(|node| node.region == placed.home),
            is_up: node.is_some_and(|node| node.state == NodeState::Up),
            is_live: node.is_some_and(|node| matches!(node.state, NodeState::Up | NodeState::Draining)),
        }
    };
    let lead = seat(placed.replicas.iter().copied(), standing, placed.lead);
    view.shards[at].lead = lead;
}
