//! Random cells, however odd, and what happens to them.

use postrider_api::id::{NodeId, ShardId};
use postrider_balance::view::{Capacity, Node, NodeState, Policy, PolicyNo, RegionNo, Running, Shard, Spread, View};
use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

const MIB: u64 = 1 << 20;
const NODES_MAX: usize = 14;
const SHARDS_MAX: usize = 24;

/// Something that happens to a cell.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    State { node: Index, state: NodeState },
    Add { region: usize, domain: usize },
    Replicas { policy: usize, replicas: u8 },
    Regions { policy: usize, regions: Vec<u16> },
    Home { policy: usize, region: usize },
    Policy { shard: Index, policy: usize },
    Grow { shard: Index, by: u64 },
}

fn state() -> BoxedStrategy<NodeState> {
    prop_oneof![
        8 => Just(NodeState::Up),
        1 => Just(NodeState::Silent),
        1 => Just(NodeState::Draining),
        2 => Just(NodeState::Dead),
        1 => Just(NodeState::Removed),
    ]
    .boxed()
}

// Boxed, here and below: types that name every step of the way take minutes to compile.
pub(crate) fn event() -> BoxedStrategy<Event> {
    prop_oneof![
        4 => (any::<Index>(), state()).prop_map(|(node, state)| Event::State { node, state }),
        2 => (0..5_usize, 0..7_usize).prop_map(|(region, domain)| Event::Add { region, domain }),
        1 => (0..3_usize, prop::sample::select(vec![1_u8, 3, 5]))
            .prop_map(|(policy, replicas)| Event::Replicas { policy, replicas }),
        1 => (0..3_usize, subsequence(vec![0, 1, 2, 3, 4], 1..=5))
            .prop_map(|(policy, regions)| Event::Regions { policy, regions }),
        1 => (0..3_usize, 0..5_usize).prop_map(|(policy, region)| Event::Home { policy, region }),
        1 => (any::<Index>(), 0..3_usize).prop_map(|(shard, policy)| Event::Policy { shard, policy }),
        1 => (any::<Index>(), 1..400_u64).prop_map(|(shard, by)| Event::Grow { shard, by }),
    ]
    .boxed()
}

pub(crate) fn happen(view: &mut View, event: &Event) {
    let (regions, policies) = (view.regions.len(), view.policies.len());
    match event {
        Event::State { node, state } => {
            let node = node.index(view.nodes.len());
            view.nodes[node].state = *state;
        }
        Event::Add { region, domain } => {
            let id = view.nodes.last().map_or(1, |node| node.id.0 + 1);
            let region = RegionNo(u16::try_from(region % regions).unwrap());
            view.nodes.push(node(id, region, *domain, 2_000, NodeState::Up));
        }
        Event::Replicas { policy, replicas } => view.policies[policy % policies].replicas = *replicas,
        Event::Regions { policy, regions: allowed } => {
            let policy = &mut view.policies[policy % policies];
            policy.regions = allowed.iter().map(|region| RegionNo(region % u16::try_from(regions).unwrap())).collect();
            policy.home = policy.home.filter(|home| policy.regions.contains(home));
        }
        Event::Home { policy, region } => {
            let policy = &mut view.policies[policy % policies];
            policy.home = Some(policy.regions[region % policy.regions.len()]);
        }
        Event::Policy { shard, policy } if !view.shards.is_empty() => {
            let shard = shard.index(view.shards.len());
            view.shards[shard].policy = PolicyNo(u16::try_from(policy % policies).unwrap());
        }
        Event::Grow { shard, by } if !view.shards.is_empty() => {
            let shard = shard.index(view.shards.len());
            view.shards[shard].bytes += by * MIB;
        }
        Event::Policy { .. } | Event::Grow { .. } => {}
    }
}

fn node(id: u64, region: RegionNo, domain: usize, capacity: u64, state: NodeState) -> Node {
    // Domain 0 names none; 1 and 2 reach over regions; the others are a region's own.
    let failure_domain = match domain {
        0 => String::new(),
        1 | 2 => format!("shared-{domain}"),
        other => format!("rack-{}-{other}", region.0),
    };
    let capacity = Capacity { bytes: capacity * MIB, writes_per_s: capacity };
    Node { id: NodeId(id), region, failure_domain, capacity, other_bytes: 0, state }
}

fn nodes(regions: usize) -> BoxedStrategy<Vec<Node>> {
    let one = (0..regions, 0..7_usize, 400..4_000_u64, state());
    let drawn = prop::collection::vec(one, 1..=NODES_MAX);
    let made = drawn.prop_map(|drawn| {
        let made = drawn.into_iter().zip(1..).map(|((region, domain, capacity, state), id)| {
            node(id, RegionNo(u16::try_from(region).unwrap()), domain, capacity, state)
        });
        made.collect()
    });
    made.boxed()
}

fn policy(regions: usize) -> BoxedStrategy<Policy> {
    let all: Vec<u16> = (0..u16::try_from(regions).unwrap()).collect();
    let spread = prop::sample::select(vec![Spread::Regions, Spread::Regions, Spread::Domains]);
    let replicas = prop::sample::select(vec![1_u8, 3, 3, 5]);
    (replicas, subsequence(all, 1..=regions), spread, prop::option::of(any::<Index>()))
        .prop_map(|(replicas, regions, spread, home)| Policy {
            name: "drawn".to_owned(),
            replicas,
            home: home.map(|home| RegionNo(regions[home.index(regions.len())])),
            regions: regions.into_iter().map(RegionNo).collect(),
            spread,
        })
        .boxed()
}

fn shard(nodes: usize, regions: usize, policies: usize) -> BoxedStrategy<Shard> {
    // One that the view does not know may have a replica, too.
    let all: Vec<u64> = (1..=nodes as u64).chain([90]).collect();
    let most = all.len().min(6);
    let replicas =
        || subsequence(all.clone(), 1..=most).prop_map(|ids| ids.into_iter().map(NodeId).collect::<Vec<_>>());
    let running = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Running::Home)),
        1 => replicas().prop_map(|wanted| Some(Running::Replicas(wanted))),
    ];
    let fields = (replicas(), 0..regions, 0..policies, any::<Index>(), 0..300_u64, 0..300_u64, running);
    let made = fields.prop_map(|(replicas, home, policy, lead, bytes, writes_per_s, running)| Shard {
        id: ShardId(0),
        policy: PolicyNo(u16::try_from(policy).unwrap()),
        lead: Some(replicas[lead.index(replicas.len())]),
        replicas,
        home: RegionNo(u16::try_from(home).unwrap()),
        epoch: 1,
        bytes: bytes * MIB,
        writes_per_s,
        running,
    });
    made.boxed()
}

/// Any cell: most of what it has is wrong.
pub(crate) fn view() -> BoxedStrategy<View> {
    (1..=5_usize, 1..=3_usize)
        .prop_flat_map(|(regions, policies)| {
            (Just(regions), nodes(regions), prop::collection::vec(policy(regions), policies))
        })
        .prop_flat_map(|(regions, nodes, policies)| {
            let shards = prop::collection::vec(shard(nodes.len(), regions, policies.len()), 0..=SHARDS_MAX);
            (Just(regions), Just(nodes), Just(policies), shards)
        })
        .prop_map(|(regions, nodes, policies, mut shards)| {
            for (shard, id) in shards.iter_mut().zip(ShardId::MAILBOX_FIRST.0..) {
                shard.id = ShardId(id);
            }
            let regions = (0..regions).map(|region| format!("region-{region}")).collect();
            View { regions, nodes, policies, shards }
        })
        .boxed()
}

/// A cell as it should be: so many nodes in each region, each shard in as many regions as its policy wants replicas, homes in turn.
pub(crate) fn regular(regions: usize, nodes_per_region: usize, shards: usize, replicas: u8) -> View {
    let region = |at: usize| RegionNo(u16::try_from(at % regions).unwrap());
    let nodes = (0..regions * nodes_per_region).map(|at| node(at as u64 + 1, region(at), 0, 100_000, NodeState::Up));
    let policy = Policy {
        name: "regular".to_owned(),
        replicas,
        regions: (0..regions).map(region).collect(),
        spread: Spread::Regions,
        home: None,
    };
    let shards = (0..shards).map(|at| {
        // In each region another sequence, so that two nodes do not share all of their shards.
        let replica = |of: usize| {
            let nth = (at / regions + at * of) % nodes_per_region;
            NodeId((nth * regions + (at + of) % regions) as u64 + 1)
        };
        let replicas: Vec<NodeId> = (0..usize::from(replicas)).map(replica).collect();
        Shard {
            id: ShardId(ShardId::MAILBOX_FIRST.0 + u32::try_from(at).unwrap()),
            policy: PolicyNo(0),
            lead: Some(replicas[0]),
            home: region(at),
            replicas,
            epoch: 7,
            bytes: (100 + (at as u64 * 37) % 100) * MIB,
            writes_per_s: 10,
            running: None,
        }
    });
    View {
        regions: (0..regions).map(|at| format!("region-{at}")).collect(),
        nodes: nodes.collect(),
        policies: vec![policy],
        shards: shards.collect(),
    }
}
