//! The view of a real cluster: what placement wants, and what nodes say of themselves.
//!
//! A shard that is held to no policy is held to what it is: as many replicas, in the regions of its zone, at home where it is at home.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState};

use crate::view::{CAPACITY_MAX, Capacity, Node, NodeState, Policy, PolicyNo, RegionNo, Running, Shard, Spread, View};

/// What counts for a node that has not said what it can take: it is not reckoned with.
const CAPACITY: Capacity = Capacity { bytes: 1, writes_per_s: 1 };
/// What `SetReplicas` takes at most.
const REPLICAS_MAX: usize = 7;

/// What is known of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'o> {
    /// What placement wants.
    pub map: &'o pb::ShardMap,
    /// What nodes said of their replicas, now or a while ago.
    pub reports: &'o Reports,
    /// The nodes that answer.
    pub answering: &'o BTreeSet<NodeId>,
    /// Nodes that are given up should they not answer, beside those that placement has given up.
    pub given_up: &'o BTreeSet<NodeId>,
}

/// What nodes said of what they bear and can bear, as much of it as plans need.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    nodes: BTreeMap<NodeId, (Capacity, u64)>,
    shards: BTreeMap<u32, Said>,
}

/// What is known of each shard, by what nodes said.
#[derive(Debug, Clone, Default)]
struct Said {
    bytes: u64,
    writes_per_s: u64,
    lead: Option<(u64, NodeId)>,
}

impl Reports {
    /// Takes in what one node said.
    pub fn take(&mut self, load: &pb::LoadReply) {
        let node = NodeId(load.node);
        let within = |amount: u64| amount.clamp(1, CAPACITY_MAX);
        let capacity =
            Capacity { bytes: within(load.capacity_bytes), writes_per_s: within(load.capacity_writes_per_s) };
        self.nodes.insert(node, (capacity, load.other_bytes.min(capacity.bytes)));
        for replica in &load.replicas {
            let said = self.shards.entry(replica.shard).or_default();
            // One that is being filled has less than the others, and has written faster.
            said.bytes = said.bytes.max(replica.bytes);
            let (term, writes_per_s) = (replica.leads_in_term, u64::from(replica.writes_per_s));
            // A leader that has been overtaken may not know it yet.
            if term > said.lead.map_or(0, |(term, _)| term) {
                said.lead = Some((term, node));
                said.writes_per_s = writes_per_s;
            } else if said.lead.is_none() {
                said.writes_per_s = said.writes_per_s.max(writes_per_s);
            }
        }
    }

    /// Whether a node has said what it bears.
    #[must_use]
    pub fn has(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }
}

impl<'r> FromIterator<&'r pb::LoadReply> for Reports {
    fn from_iter<I: IntoIterator<Item = &'r pb::LoadReply>>(loads: I) -> Self {
        let mut reports = Self::default();
        for load in loads {
            reports.take(load);
        }
        reports
    }
}

/// The view that plans are made from. Shards of which placement knows too little are left out: nothing is planned for them.
#[must_use]
pub fn view(observed: Observed<'_>) -> View {
    let map = observed.map;
    let regions: Vec<String> = map.regions.iter().map(|region| region.name.clone()).collect();
    let number = |name: &str| {
        let at = regions.iter().position(|region| region == name)?;
        u16::try_from(at).ok().map(RegionNo)
    };
    let mut nodes: Vec<Node> = map
        .nodes
        .iter()
        .filter_map(|node| {
            let region = number(&node.region)?;
            let state = state(observed, node);
            let (id, failure_domain) = (NodeId(node.id), node.failure_domain.clone());
            let (capacity, other_bytes) = observed.reports.nodes.get(&id).copied().unwrap_or((CAPACITY, 0));
            Some(Node { id, region, failure_domain, capacity, other_bytes, state })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    let mut policies = Policies::default();
    let mut shards: Vec<Shard> = map
        .shards
        .iter()
        .filter_map(|placed| {
            let home = number(&placed.home_region)?;
            let policy = policies.of(placed, home, map, number)?;
            let said = observed.reports.shards.get(&placed.id);
            Some(Shard {
                id: ShardId(placed.id),
                policy,
                replicas: placed.replicas.iter().copied().map(NodeId).collect(),
                lead: said.and_then(|said| said.lead).map(|(_, node)| node),
                home,
                epoch: placed.epoch,
                bytes: said.map_or(0, |said| said.bytes),
                writes_per_s: said.map_or(0, |said| said.writes_per_s),
                running: running(placed, map),
            })
        })
        .collect();
    shards.sort_by_key(|shard| shard.id);
    View { regions, nodes, policies: policies.made, shards }
}

fn state(observed: Observed<'_>, node: &pb::Node) -> NodeState {
    let id = NodeId(node.id);
    let is_given_up = node.given_up_ms != 0 || observed.given_up.contains(&id);
    // What it bears is not known of one that answers and has not said so yet.
    let is_known = observed.answering.contains(&id) && observed.reports.has(id);
    match (is_known, node.state()) {
        (false, _) if is_given_up && !observed.answering.contains(&id) => NodeState::Dead,
        (false, _) => NodeState::Silent,
        (true, pb::NodeState::Draining) => NodeState::Draining,
        (true, pb::NodeState::Active) => NodeState::Up,
    }
}

fn running(placed: &pb::Shard, map: &pb::ShardMap) -> Option<Running> {
    if placed.operation == 0 {
        return None;
    }
    let operation = map.operations.iter().find(|operation| operation.id == placed.operation);
    Some(match operation.and_then(|operation| Some((operation.state(), operation.kind.as_ref()?))) {
        Some((OperationState::Running, Kind::SetReplicas(set))) => {
            Running::Replicas(set.replicas.iter().copied().map(NodeId).collect())
        }
        // On its way back.
        Some((_, Kind::SetReplicas(_))) => Running::Replicas(placed.replicas.iter().copied().map(NodeId).collect()),
        // Whatever else it is, it is changing the shard.
        Some((_, Kind::SetHome(_) | Kind::MakeShard(_) | Kind::DrainNode(_) | Kind::Balance(_))) | None => {
            Running::Home
        }
    })
}

/// One for all shards that are held to the same.
#[derive(Debug, Default)]
struct Policies {
    made: Vec<Policy>,
    known: BTreeMap<(String, u8, RegionNo), PolicyNo>,
    named: BTreeMap<String, PolicyNo>,
}

impl Policies {
    fn of(
        &mut self,
        placed: &pb::Shard,
        home: RegionNo,
        map: &pb::ShardMap,
        number: impl Fn(&str) -> Option<RegionNo>,
    ) -> Option<PolicyNo> {
        if let Some(record) =
            map.policies.iter().find(|policy| policy.name == placed.policy && !placed.policy.is_empty())
        {
            return self.named(record, map);
        }
        // An even number is never wanted: of four no more may fail than of three.
        let wanted = (placed.replicas.len() | 1).min(REPLICAS_MAX);
        let replicas = u8::try_from(wanted).ok()?;
        // Placement alone, which knows no person and no mail, may be spread over zones.
        let is_placement = placed.id == ShardId::PLACEMENT.0;
        let zone = if is_placement { String::new() } else { placed.zone.clone() };
        let key = (zone, replicas, home);
        if let Some(policy) = self.known.get(&key) {
            return Some(*policy);
        }
        let allowed = map.regions.iter().filter(|region| is_placement || region.zone == placed.zone);
        let regions: Vec<RegionNo> = allowed.filter_map(|region| number(&region.name)).collect();
        let policy = PolicyNo(u16::try_from(self.made.len()).ok()?);
        let named = if is_placement { "placement".to_owned() } else { placed.zone.clone() };
        self.made.push(Policy {
            name: format!("{named}-{replicas}"),
            replicas,
            home: regions.contains(&home).then_some(home),
            regions,
            spread: Spread::Regions,
        });
        self.known.insert(key, policy);
        Some(policy)
    }

    fn named(&mut self, record: &pb::Policy, map: &pb::ShardMap) -> Option<PolicyNo> {
        if let Some(policy) = self.named.get(&record.name) {
            return Some(*policy);
        }
        let policy = PolicyNo(u16::try_from(self.made.len()).ok()?);
        self.made.push(policy_of(record, map));
        self.named.insert(record.name.clone(), policy);
        Some(policy)
    }
}

/// A policy of placement's, as plans know it.
pub fn policy_of(record: &pb::Policy, map: &pb::ShardMap) -> Policy {
    let is_allowed = |region: &pb::Region| {
        region.zone == record.zone && (record.regions.is_empty() || record.regions.contains(&region.name))
    };
    let allowed = (0..).zip(&map.regions).filter(|(_, region)| is_allowed(region));
    let regions: Vec<RegionNo> = allowed.map(|(at, _)| RegionNo(at)).collect();
    let home = map.regions.iter().position(|region| region.name == record.home).and_then(|at| u16::try_from(at).ok());
    Policy {
        name: record.name.clone(),
        // What placement takes.
        replicas: u8::try_from(record.replicas).unwrap_or(1),
        home: home.map(RegionNo).filter(|home| regions.contains(home)),
        regions,
        spread: match record.spread() {
            pb::Spread::Regions => Spread::Regions,
            pb::Spread::Domains => Spread::Domains,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::plan;
    use crate::step::{Change, Reason};

    fn map() -> pb::ShardMap {
        let region = |name: &str| pb::Region { name: name.to_owned(), zone: "world".to_owned(), ..Default::default() };
        let node = |id: u64, region: &str| pb::Node { id, region: region.to_owned(), ..Default::default() };
        let shard = |id: u32| pb::Shard {
            id,
            replicas: vec![1, 2, 3],
            home_region: "a".to_owned(),
            zone: "world".to_owned(),
            epoch: 4,
            ..Default::default()
        };
        pb::ShardMap {
            regions: vec![region("a"), region("b"), region("c")],
            nodes: vec![node(4, "a"), node(1, "a"), node(2, "b"), node(3, "c")],
            shards: vec![shard(1000), shard(1)],
            ..Default::default()
        }
    }

    fn load(node: u64) -> pb::LoadReply {
        let replica = |shard| pb::ReplicaLoad {
            shard,
            bytes: node << 20,
            writes_per_s: 10 * u32::try_from(node).unwrap(),
            leads_in_term: if node == 1 { 3 } else { 0 },
        };
        let replicas = if node == 4 { Vec::new() } else { vec![replica(1), replica(1000)] };
        pb::LoadReply { node, capacity_bytes: 1 << 40, capacity_writes_per_s: 1000, other_bytes: 0, replicas }
    }

    fn seen(map: &pb::ShardMap, loads: &[pb::LoadReply], given_up: &BTreeSet<NodeId>) -> View {
        let reports = loads.iter().collect();
        let answering = loads.iter().map(|load| NodeId(load.node)).collect();
        view(Observed { map, reports: &reports, answering: &answering, given_up })
    }

    #[test]
    fn a_silent_node_is_waited_for_until_it_is_given_up() {
        let (map, mut loads) = (map(), vec![load(2), load(3), load(4)]);
        let nobody = BTreeSet::new();
        let observed = seen(&map, &loads, &nobody);
        observed.check().unwrap();
        assert_eq!(observed.nodes[0].state, NodeState::Silent);
        assert_eq!(observed.shards[1].bytes, 3 << 20, "the largest");
        let waits = plan(&observed, &Limits::default()).unwrap();
        assert!(waits.steps.is_empty() && waits.waiting_shards == 2, "{waits:?}");
        let given_up = BTreeSet::from([NodeId(1)]);
        let planned = plan(&seen(&map, &loads, &given_up), &Limits::default());
        let steps = planned.unwrap().steps;
        assert_eq!(steps.iter().map(|step| step.shard.0).collect::<Vec<_>>(), [1, 1000]);
        let becomes = Change::Replicas {
            replicas: vec![NodeId(2), NodeId(3), NodeId(4)],
            add: vec![NodeId(4)],
            remove: vec![NodeId(1)],
        };
        assert_eq!(steps[0].change, becomes);
        // What placement has recorded counts alike.
        let mut recorded = map.clone();
        recorded.nodes[1].given_up_ms = 1;
        assert_eq!(plan(&seen(&recorded, &loads, &nobody), &Limits::default()).unwrap().steps, steps);
        // Whoever answers is not given up, whatever somebody says.
        loads.push(load(1));
        let observed = seen(&map, &loads, &given_up);
        assert_eq!((observed.nodes[0].state, observed.shards[0].lead), (NodeState::Up, Some(NodeId(1))));
        assert_eq!(observed.shards[0].writes_per_s, 10, "as its leader says");
        // One that has not said what it bears is not reckoned with.
        let reports = loads[..3].iter().collect();
        let answering = (1..=4).map(NodeId).collect();
        let observed = view(Observed { map: &map, reports: &reports, answering: &answering, given_up: &given_up });
        assert_eq!(observed.nodes[0].state, NodeState::Silent);
        observed.check().unwrap();
    }

    #[test]
    fn a_shard_is_held_to_its_policy() {
        let mut map = map();
        let loads: Vec<_> = (1..=4).map(load).collect();
        map.policies = vec![pb::Policy {
            name: "near".to_owned(),
            zone: "world".to_owned(),
            replicas: 3,
            spread: pb::Spread::Domains.into(),
            regions: vec!["a".to_owned(), "b".to_owned()],
            home: "b".to_owned(),
        }];
        map.shards[0].policy = "near".to_owned();
        let observed = seen(&map, &loads, &BTreeSet::new());
        observed.check().unwrap();
        let held = |at: usize| &observed.policies[usize::from(observed.shards[at].policy.0)];
        assert_eq!(held(0).name, "placement-3");
        let expected = (vec![RegionNo(0), RegionNo(1)], Spread::Domains, Some(RegionNo(1)));
        assert_eq!((held(1).regions.clone(), held(1).spread, held(1).home), expected);
        let planned = plan(&observed, &Limits::default()).unwrap();
        assert!(matches!(planned.blocked[0].reason, Reason::NoPlace { .. }), "two nodes are one domain: {planned:?}");
        map.nodes[0].failure_domain = "rack-2".to_owned();
        let planned = plan(&seen(&map, &loads, &BTreeSet::new()), &Limits::default()).unwrap();
        assert_eq!(planned.steps[0].to_string(), "shard 1000: replace node 3 by node 4");
    }

    #[test]
    fn what_runs_counts_and_is_left_alone() {
        let (mut map, nobody) = (map(), BTreeSet::new());
        map.nodes[1].state = pb::NodeState::Draining.into();
        map.shards[0].operation = 9;
        map.operations = vec![pb::Operation {
            id: 9,
            state: OperationState::Running.into(),
            kind: Some(Kind::SetReplicas(pb::SetReplicas {
                shard: 1000,
                replicas: vec![4, 2, 3],
                epoch: 4,
                ..Default::default()
            })),
            ..Default::default()
        }];
        let loads: Vec<_> = (1..=4).map(load).collect();
        let observed = seen(&map, &loads, &nobody);
        let planned = plan(&observed, &Limits::default()).unwrap();
        assert_eq!(planned.steps.len(), 1, "{planned:?}");
        assert_eq!(planned.steps[0].shard, ShardId::PLACEMENT);
        assert_eq!(planned.steps[0].reason, Reason::Draining { node: NodeId(1) });
    }
}
