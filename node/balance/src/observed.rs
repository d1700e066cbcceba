//! The view of a real cluster: what placement wants, and what nodes say of themselves.
//!
//! Placement has no policies yet. Until it has, each shard is held to what it is: as many replicas, in the regions of its zone, at home
//! where it is at home.

use std::collections::{BTreeMap, BTreeSet};

use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState, ReplicaRole};

use crate::view::{Capacity, Node, NodeState, Policy, PolicyNo, RegionNo, Running, Shard, Spread, View};

/// Nodes do not say what they can take: all count as equally large, and none as full.
const CAPACITY: Capacity = Capacity { bytes: 1 << 50, writes_per_s: 1 << 20 };
/// What `SetReplicas` takes at most.
const REPLICAS_MAX: usize = 7;

/// What is known of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'o> {
    /// What placement wants.
    pub map: &'o pb::ShardMap,
    /// What the nodes that answered said, with their replicas.
    pub statuses: &'o [pb::StatusReply],
    /// Nodes that are given up should they not have answered.
    pub given_up: &'o BTreeSet<NodeId>,
}

/// What each replica's bytes and leader are, by what nodes said.
#[derive(Debug, Default)]
struct Said {
    bytes: u64,
    lead: Option<(u64, NodeId)>,
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
            Some(Node { id, region, failure_domain, capacity: CAPACITY, other_bytes: 0, state })
        })
        .collect();
    nodes.sort_by_key(|node| node.id);
    let said = said(observed.statuses);
    let mut policies = Policies::default();
    let mut shards: Vec<Shard> = map
        .shards
        .iter()
        .filter_map(|placed| {
            let home = number(&placed.home_region)?;
            let policy = policies.of(placed, home, map, number)?;
            let said = said.get(&placed.id);
            Some(Shard {
                id: ShardId(placed.id),
                policy,
                replicas: placed.replicas.iter().copied().map(NodeId).collect(),
                lead: said.and_then(|said| said.lead).map(|(_, node)| node),
                home,
                epoch: placed.epoch,
                bytes: said.map_or(0, |said| said.bytes),
                writes_per_s: 0,
                running: running(placed, map),
            })
        })
        .collect();
    shards.sort_by_key(|shard| shard.id);
    View { regions, nodes, policies: policies.made, shards }
}

fn state(observed: Observed<'_>, node: &pb::Node) -> NodeState {
    let answered = observed.statuses.iter().any(|status| status.node == node.id);
    match node.state() {
        _ if !answered && observed.given_up.contains(&NodeId(node.id)) => NodeState::Dead,
        _ if !answered => NodeState::Silent,
        pb::NodeState::Draining => NodeState::Draining,
        pb::NodeState::Active => NodeState::Up,
    }
}

fn said(statuses: &[pb::StatusReply]) -> BTreeMap<u32, Said> {
    let mut all = BTreeMap::<u32, Said>::new();
    for status in statuses {
        for replica in &status.replicas {
            let said = all.entry(replica.shard).or_default();
            // One that is being filled has less than the others.
            said.bytes = said.bytes.max(replica.bytes);
            // A leader that has been overtaken may not know it yet.
            let leads = replica.role() == ReplicaRole::Leader;
            if leads && said.lead.is_none_or(|(term, _)| replica.term > term) {
                said.lead = Some((replica.term, NodeId(status.node)));
            }
        }
    }
    all
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
        Some((_, Kind::SetHome(_) | Kind::DrainNode(_))) | None => Running::Home,
    })
}

/// One for all shards that are held to the same.
#[derive(Debug, Default)]
struct Policies {
    made: Vec<Policy>,
    known: BTreeMap<(String, u8, RegionNo), PolicyNo>,
}

impl Policies {
    fn of(
        &mut self,
        placed: &pb::Shard,
        home: RegionNo,
        map: &pb::ShardMap,
        number: impl Fn(&str) -> Option<RegionNo>,
    ) -> Option<PolicyNo> {
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

    fn status(node: u64) -> pb::StatusReply {
        let role = if node == 1 { ReplicaRole::Leader } else { ReplicaRole::Follower };
        let replica =
            |shard| pb::ReplicaStatus { shard, role: role.into(), term: 3, bytes: node << 20, ..Default::default() };
        let replicas = if node == 4 { Vec::new() } else { vec![replica(1), replica(1000)] };
        pb::StatusReply { node, replicas, ..Default::default() }
    }

    #[test]
    fn a_silent_node_is_waited_for_until_it_is_given_up() {
        let (map, mut statuses) = (map(), vec![status(2), status(3), status(4)]);
        let nobody = BTreeSet::new();
        let observed = view(Observed { map: &map, statuses: &statuses, given_up: &nobody });
        observed.check().unwrap();
        assert_eq!(observed.nodes[0].state, NodeState::Silent);
        assert_eq!(observed.shards[1].bytes, 3 << 20, "the largest");
        let waits = plan(&observed, &Limits::default()).unwrap();
        assert!(waits.steps.is_empty() && waits.waiting_shards == 2, "{waits:?}");
        let given_up = BTreeSet::from([NodeId(1)]);
        let planned = plan(&view(Observed { map: &map, statuses: &statuses, given_up: &given_up }), &Limits::default());
        let steps = planned.unwrap().steps;
        assert_eq!(steps.iter().map(|step| step.shard.0).collect::<Vec<_>>(), [1, 1000]);
        let becomes = Change::Replicas {
            replicas: vec![NodeId(2), NodeId(3), NodeId(4)],
            add: vec![NodeId(4)],
            remove: vec![NodeId(1)],
        };
        assert_eq!(steps[0].change, becomes);
        // Whoever answers is not given up, whatever somebody says.
        statuses.push(status(1));
        let observed = view(Observed { map: &map, statuses: &statuses, given_up: &given_up });
        assert_eq!((observed.nodes[0].state, observed.shards[0].lead), (NodeState::Up, Some(NodeId(1))));
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
                parent: 0,
            })),
            ..Default::default()
        }];
        let statuses: Vec<_> = (1..=4).map(status).collect();
        let observed = view(Observed { map: &map, statuses: &statuses, given_up: &nobody });
        let planned = plan(&observed, &Limits::default()).unwrap();
        assert_eq!(planned.steps.len(), 1, "{planned:?}");
        assert_eq!(planned.steps[0].shard, ShardId::PLACEMENT);
        assert_eq!(planned.steps[0].reason, Reason::Draining { node: NodeId(1) });
    }
}
