//! What placement wants of shards and nodes, and how that begins and ends.

use postrider_api::id::ShardId;
use postrider_api::limit::{LIVENESS_NODES_MAX, NODE_SILENT_MS_MIN};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::map_update::Update;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, NodeState, OperationState, OperationStep, Refusal};

use crate::harness::Machine;

const SHARD: u32 = 1000;
const REGIONS: [&str; 5] = ["seoul", "frankfurt", "virginia", "sydney", "lagos"];

fn set(replicas: &[u64]) -> Op {
    Op::SetReplicas(pb::SetReplicas { shard: SHARD, replicas: replicas.to_vec(), ..Default::default() })
}

fn home(region: &str) -> Op {
    Op::SetHome(pb::SetHome { shard: SHARD, region: region.to_owned(), ..Default::default() })
}

fn finish(id: u64, replicas: &[u64]) -> Op {
    Op::FinishOperation(pb::FinishOperation { id, replicas: replicas.to_vec() })
}

fn cancel(id: u64) -> Op {
    Op::CancelOperation(pb::CancelOperation { id, reason: "a test".to_owned() })
}

fn node(id: u64) -> Op {
    let region = REGIONS[(id as usize - 1) % REGIONS.len()].to_owned();
    let node = pb::Node { id, region, address: format!("127.0.1.{id}:7000"), ..Default::default() };
    Op::RegisterNode(pb::RegisterNode { node: Some(node) })
}

/// A zone of five regions with two nodes in each; one shard on the first three.
fn machine() -> Machine {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    for name in REGIONS {
        let region = pb::Region {
            name: name.to_owned(),
            zone: "world".to_owned(),
            store_address: "127.0.1.1:9000".to_owned(),
            ..Default::default()
        };
        machine.done(Op::RegisterRegion(pb::RegisterRegion { region: Some(region) }));
    }
    for id in 1..=10 {
        machine.done(node(id));
    }
    let shard = pb::Shard {
        id: SHARD,
        kind: pb::ShardKind::Mailbox.into(),
        replicas: vec![1, 2, 3],
        home_region: "seoul".to_owned(),
        ..Default::default()
    };
    machine.done(Op::PlaceShard(pb::PlaceShard { shard: Some(shard), ..Default::default() }));
    machine
}

fn map(machine: &Machine) -> pb::ShardMap {
    match machine.ask(Ask::GetShardMap(pb::GetShardMap { known_version: 0 })) {
        Answer::ShardMap(pb::MapUpdate { update: Some(Update::Whole(map)) }) => map,
        other => panic!("{other:?}"),
    }
}

fn placed(machine: &Machine) -> pb::Shard {
    map(machine).shards[0].clone()
}

fn begin(machine: &mut Machine, op: Op) -> u64 {
    match machine.apply(op) {
        Made::OperationBegun(begun) => begun.id,
        other => panic!("{other:?}"),
    }
}

fn operation(machine: &Machine, id: u64) -> pb::Operation {
    match machine.ask(Ask::GetOperation(pb::GetOperation { id })) {
        Answer::Operation(operation) => operation,
        other => panic!("{other:?}"),
    }
}

#[test]
fn replicas_change_when_whoever_carries_it_on_says_so() {
    let mut machine = machine();
    let id = begin(&mut machine, set(&[1, 2, 3, 4, 5]));
    assert_eq!(begin(&mut machine, set(&[5, 4, 3, 2, 1])), id, "the same again is the same operation");
    assert_eq!((placed(&machine).operation, placed(&machine).replicas), (id, vec![1, 2, 3]));
    assert_eq!(machine.refused(set(&[1, 2, 4])).0, Refusal::Conflict, "one at a time");
    assert_eq!(machine.refused(home("frankfurt")).0, Refusal::Conflict);
    machine.assert_verified();
    assert_eq!(machine.refused(finish(id, &[1, 2, 3])).0, Refusal::Conflict, "that is not what is wanted");
    machine.done(finish(id, &[5, 4, 3, 2, 1]));
    let after = placed(&machine);
    assert_eq!((after.replicas.as_slice(), after.epoch, after.operation), (&[1, 2, 3, 4, 5][..], 2, 0));
    assert!(map(&machine).operations.is_empty());
    assert_eq!(operation(&machine, id).state(), OperationState::Done);
    assert_eq!(machine.refused(finish(id, &[1, 2, 3, 4, 5])).0, Refusal::Conflict, "it has ended");
    let id = begin(&mut machine, set(&[3]));
    machine.done(finish(id, &[3]));
    assert_eq!(placed(&machine).replicas, [3]);
    machine.assert_verified();
}

/// A leader that carried it out and lost the lead says so late: it was cancelled since, and the replicas are the old ones.
#[test]
fn what_was_cancelled_ends_as_it_was_before() {
    let mut machine = machine();
    let id = begin(&mut machine, set(&[1, 2, 4]));
    machine.done(cancel(id));
    machine.done(cancel(id));
    assert_eq!(operation(&machine, id).state(), OperationState::Cancelling);
    assert_eq!(machine.refused(finish(id, &[1, 2, 4])).0, Refusal::Conflict);
    assert_eq!(machine.refused(set(&[1, 2, 4])).0, Refusal::Conflict, "it is on its way back");
    machine.done(finish(id, &[3, 2, 1]));
    let after = placed(&machine);
    assert_eq!((after.replicas.as_slice(), after.epoch, after.operation), (&[1, 2, 3][..], 1, 0));
    let ended = operation(&machine, id);
    assert_eq!((ended.state(), ended.waits_for.as_str()), (OperationState::Cancelled, "a test"));
    assert_eq!(machine.refused(cancel(id)).0, Refusal::Conflict);
    machine.assert_verified();
}

#[test]
fn a_home_changes_at_once_and_is_given_back() {
    let mut machine = machine();
    assert_eq!(machine.refused(home("lagos")).0, Refusal::Conflict, "there is no replica");
    let id = begin(&mut machine, home("frankfurt"));
    assert_eq!(placed(&machine).home_region, "frankfurt");
    machine.done(cancel(id));
    assert_eq!((placed(&machine).home_region.as_str(), placed(&machine).operation), ("seoul", 0));
    let id = begin(&mut machine, home("virginia"));
    machine.done(finish(id, &[]));
    assert_eq!((placed(&machine).home_region.as_str(), placed(&machine).operation), ("virginia", 0));
    assert_eq!(placed(&machine).epoch, 1);
    machine.assert_verified();
}

#[test]
fn a_node_is_emptied_and_removed_for_good() {
    let mut machine = machine();
    let remove = |id| Op::RemoveNode(pb::RemoveNode { node: id });
    let (refusal, detail) = machine.refused(remove(1));
    assert!(refusal == Refusal::Conflict && detail.contains("1000"), "{detail}");
    let drain = begin(&mut machine, Op::DrainNode(pb::DrainNode { node: 1 }));
    assert_eq!(begin(&mut machine, Op::DrainNode(pb::DrainNode { node: 1 })), drain);
    machine.done(node(1));
    assert_eq!(map(&machine).nodes[0].state(), NodeState::Draining, "it registers again, and is drained all the same");
    assert_eq!(machine.refused(finish(drain, &[])).0, Refusal::Conflict, "it has a replica still");
    assert_eq!(machine.refused(Op::ActivateNode(pb::ActivateNode { node: 1 })).0, Refusal::Conflict);
    let child = begin(
        &mut machine,
        Op::SetReplicas(pb::SetReplicas {
            shard: SHARD,
            replicas: vec![6, 2, 3],
            epoch: 1,
            parent: drain,
            ..Default::default()
        }),
    );
    assert_eq!(machine.refused(remove(6)).0, Refusal::Conflict, "an operation needs it");
    machine.assert_verified();
    machine.done(finish(child, &[6, 2, 3]));
    machine.done(finish(drain, &[]));
    assert_eq!(machine.refused(set(&[1, 2, 3])).0, Refusal::Conflict, "it was emptied");
    machine.done(Op::ActivateNode(pb::ActivateNode { node: 1 }));
    machine.done(remove(1));
    machine.done(remove(1));
    assert_eq!(machine.refused(node(1)).0, Refusal::NodeRemoved);
    assert_eq!(machine.refused(set(&[1, 2, 3])).0, Refusal::NodeRemoved);
    assert!(map(&machine).nodes.iter().all(|node| node.id != 1));
    machine.assert_verified();
}

#[test]
fn a_drain_that_is_cancelled_takes_its_moves_back() {
    let mut machine = machine();
    let drain = begin(&mut machine, Op::DrainNode(pb::DrainNode { node: 1 }));
    let child = begin(
        &mut machine,
        Op::SetReplicas(pb::SetReplicas {
            shard: SHARD,
            replicas: vec![6, 2, 3],
            epoch: 1,
            parent: drain,
            ..Default::default()
        }),
    );
    machine.done(cancel(drain));
    assert_eq!(operation(&machine, drain).state(), OperationState::Cancelled);
    assert_eq!(operation(&machine, child).state(), OperationState::Cancelling);
    assert_eq!(map(&machine).nodes[0].state(), NodeState::Active);
    machine.assert_verified();
}

#[test]
fn a_region_and_a_domain_go_when_nothing_needs_them() {
    let mut machine = machine();
    let remove = |region: &str| Op::RemoveRegion(pb::RemoveRegion { region: region.to_owned() });
    assert_eq!(machine.refused(remove("lagos")).0, Refusal::Conflict);
    for id in [5, 10] {
        machine.done(Op::RemoveNode(pb::RemoveNode { node: id }));
    }
    machine.done(remove("lagos"));
    machine.done(remove("lagos"));
    assert_eq!(map(&machine).regions.len(), 4);
    machine.assert_verified();
}

/// What came in while a shard moved may be in the old regions alone: a sweep that began after it has to have ended.
#[test]
fn a_region_stays_until_its_stores_are_swept_after_a_move() {
    let mut machine = machine();
    let zone = map(&machine).regions[0].zone.clone();
    let start = || Op::StartSweep(pb::StartSweep { zone: zone.clone(), reads: false });
    let end = |step| {
        let phase = pb::SweepPhase::Ended.into();
        Op::AdvanceSweep(pb::AdvanceSweep { zone: zone.clone(), step, phase, ..Default::default() })
    };
    let remove = || Op::RemoveRegion(pb::RemoveRegion { region: "lagos".to_owned() });
    machine.done(start());
    let moved = begin(&mut machine, set(&[1, 2, 4]));
    machine.done(finish(moved, &[1, 2, 4]));
    for id in [5, 10] {
        machine.done(Op::RemoveNode(pb::RemoveNode { node: id }));
    }
    machine.done(end(1));
    assert_eq!(machine.refused(remove()).0, Refusal::Conflict, "that sweep began before the move was over");
    machine.done(start());
    assert_eq!(machine.refused(remove()).0, Refusal::Conflict, "it has not ended");
    machine.done(end(3));
    machine.done(remove());
    machine.assert_verified();
}

#[test]
fn where_an_operation_stands_is_told_to_who_asks_and_is_no_change_of_the_map() {
    let mut machine = machine();
    let id = begin(&mut machine, set(&[1, 2, 4]));
    let before = map(&machine);
    let step =
        pb::RecordStep { id, step: OperationStep::CatchingUp.into(), waits_for: "node 4 does not answer".to_owned() };
    machine.done(Op::RecordStep(step));
    assert_eq!(map(&machine), before);
    let stands = operation(&machine, id);
    assert_eq!((stands.step(), stands.waits_for.as_str()), (OperationStep::CatchingUp, "node 4 does not answer"));
    let Answer::Operations(listed) = machine.ask(Ask::ListOperations(pb::ListOperations { limit: 0 })) else {
        panic!()
    };
    assert_eq!(listed.operations, [stands]);
}

#[test]
fn those_that_have_ended_are_listed_for_a_while_only() {
    let mut machine = machine();
    let first = begin(&mut machine, home("frankfurt"));
    machine.done(finish(first, &[]));
    for turn in 0..300 {
        let id = begin(&mut machine, home(["seoul", "frankfurt"][turn % 2]));
        machine.done(finish(id, &[]));
    }
    let Answer::Operations(listed) = machine.ask(Ask::ListOperations(pb::ListOperations { limit: 0 })) else {
        panic!()
    };
    assert!(listed.operations.len() <= 200 && listed.operations.iter().all(|operation| operation.id != first));
    assert!(matches!(machine.ask(Ask::GetOperation(pb::GetOperation { id: first })), Answer::NotFound(_)));
    machine.assert_verified();
}

#[test]
fn refusals() {
    let mut machine = machine();
    assert_eq!(machine.refused(set(&[])).0, Refusal::Malformed);
    assert_eq!(machine.refused(set(&[1, 1, 2])).0, Refusal::Malformed);
    assert_eq!(machine.refused(set(&[1, 2])).0, Refusal::Malformed, "an even number");
    assert_eq!(machine.refused(set(&[1, 2, 99])).0, Refusal::UnknownNode);
    let unknown = Op::SetReplicas(pb::SetReplicas { shard: 1999, replicas: vec![1], ..Default::default() });
    assert_eq!(machine.refused(unknown).0, Refusal::UnknownShard);
    let late = pb::SetReplicas { shard: SHARD, replicas: vec![1, 2, 4], epoch: 7, ..Default::default() };
    assert_eq!(machine.refused(Op::SetReplicas(late)).0, Refusal::Conflict);
    assert!(matches!(machine.apply(set(&[3, 1, 2])), Made::Done(_)), "it is so already");
    assert_eq!(machine.refused(home("atlantis")).0, Refusal::Malformed);
    assert!(matches!(machine.apply(home("seoul")), Made::Done(_)));
    assert_eq!(machine.refused(finish(99, &[])).0, Refusal::UnknownOperation);
    assert_eq!(machine.refused(cancel(99)).0, Refusal::UnknownOperation);
    assert_eq!(machine.refused(Op::DrainNode(pb::DrainNode { node: 99 })).0, Refusal::UnknownNode);
    let id = begin(&mut machine, set(&[1, 2, 4]));
    let long = pb::RecordStep { id, waits_for: "x".repeat(2000), ..Default::default() };
    assert_eq!(machine.refused(Op::RecordStep(long)).0, Refusal::Malformed);
}

fn record(silent: &[u64], answering: &[u64]) -> Op {
    Op::RecordLiveness(pb::RecordLiveness { silent: silent.to_vec(), answering: answering.to_vec() })
}

fn give_up(node: u64, silent_since_ms: i64) -> Op {
    Op::GiveUpNode(pb::GiveUpNode { node, silent_since_ms, after_ms: NODE_SILENT_MS_MIN })
}

/// Whatever a leader remembers: how long a node has been silent is counted from the command that said so first.
#[test]
fn a_node_is_given_up_by_the_time_of_commands_alone() {
    let mut machine = machine();
    let silent = |machine: &Machine| map(machine).nodes[3].silent_since_ms;
    assert_eq!(machine.refused(give_up(4, 0)).0, Refusal::Conflict, "it answers");
    machine.done(record(&[4, 99], &[]));
    let since = silent(&machine);
    assert!(since > 0);
    machine.now += 1000;
    machine.done(record(&[4], &[]));
    assert_eq!(silent(&machine), since, "the first one counts");
    assert_eq!(machine.refused(give_up(4, since)).0, Refusal::Conflict, "not for that long");
    machine.now += NODE_SILENT_MS_MIN;
    assert_eq!(machine.refused(give_up(4, since - 1)).0, Refusal::Conflict, "another silence");
    machine.done(node(4));
    assert_eq!(silent(&machine), since, "that it registers is no answer");
    machine.done(give_up(4, since));
    let version = map(&machine).version;
    machine.done(give_up(4, since));
    assert_eq!(map(&machine).version, version);
    assert!(map(&machine).nodes[3].given_up_ms >= since + NODE_SILENT_MS_MIN);
    assert_eq!(machine.refused(set(&[1, 2, 4])).0, Refusal::Conflict, "it gets nothing");
    machine.done(record(&[], &[4]));
    let back = &map(&machine).nodes[3];
    assert_eq!((back.silent_since_ms, back.given_up_ms), (0, 0));
    assert_eq!(machine.refused(give_up(4, since)).0, Refusal::Conflict, "a leader that is late");
    begin(&mut machine, set(&[1, 2, 4]));
    machine.assert_verified();
    assert_eq!(machine.refused(record(&[1], &[1])).0, Refusal::Malformed);
    assert_eq!(machine.refused(record(&vec![1; LIVENESS_NODES_MAX + 1], &[])).0, Refusal::Malformed);
    let at_once = pb::GiveUpNode { node: 1, silent_since_ms: 1, after_ms: 0 };
    assert_eq!(machine.refused(Op::GiveUpNode(at_once)).0, Refusal::Malformed);
}

#[test]
fn the_cluster_is_balanced_by_one_operation_at_a_time_that_ends_behind_its_steps() {
    let mut machine = machine();
    let balance = || Op::Balance(pb::Balance {});
    let id = begin(&mut machine, balance());
    assert_eq!(begin(&mut machine, balance()), id);
    let reason = "node 1 is gone for good".to_owned();
    let step = pb::SetReplicas { shard: SHARD, replicas: vec![6, 2, 3], epoch: 1, parent: id, reason: reason.clone() };
    let child = begin(&mut machine, Op::SetReplicas(step));
    assert!(matches!(operation(&machine, child).kind, Some(Kind::SetReplicas(set)) if set.reason == reason));
    machine.assert_verified();
    assert_eq!(machine.refused(finish(id, &[])).0, Refusal::Conflict, "a step of it runs");
    machine.done(finish(child, &[6, 2, 3]));
    machine.done(finish(id, &[]));
    let next = begin(&mut machine, balance());
    assert_ne!(next, id);
    let home = pb::SetHome { shard: SHARD, region: "virginia".to_owned(), parent: next, ..Default::default() };
    let child = begin(&mut machine, Op::SetHome(home));
    machine.done(cancel(next));
    assert_eq!(operation(&machine, next).state(), OperationState::Cancelled);
    assert_eq!(operation(&machine, child).state(), OperationState::Running, "it comes to its end by itself");
    machine.assert_verified();
    let long = pb::SetHome { shard: SHARD, region: "seoul".to_owned(), reason: "x".repeat(2000), ..Default::default() };
    assert_eq!(machine.refused(Op::SetHome(long)).0, Refusal::Malformed);
}

#[test]
fn a_new_shard_is_placed_before_its_group_is_made() {
    let mut machine = machine();
    let shard = pb::Shard {
        id: 1001,
        kind: pb::ShardKind::Mailbox.into(),
        replicas: vec![4, 5, 6],
        home_region: "seoul".to_owned(),
        incarnation: 7,
        ..Default::default()
    };
    let place = |shard: &pb::Shard| Op::PlaceShard(pb::PlaceShard { shard: Some(shard.clone()), make: true });
    let without = pb::Shard { incarnation: 0, ..shard.clone() };
    assert_eq!(machine.refused(place(&without)).0, Refusal::Malformed);
    let id = begin(&mut machine, place(&shard));
    assert_eq!(begin(&mut machine, place(&shard)), id, "the same again");
    let other = pb::Shard { incarnation: 8, ..shard.clone() };
    assert_eq!(machine.refused(place(&other)).0, Refusal::Conflict);
    let placed = map(&machine).shards[1].clone();
    assert_eq!((placed.operation, placed.making, placed.incarnation), (id, true, 7));
    machine.assert_verified();
    assert_eq!(machine.refused(cancel(id)).0, Refusal::Conflict);
    assert_eq!(machine.refused(finish(id, &[4, 5])).0, Refusal::Conflict);
    machine.done(finish(id, &[6, 5, 4]));
    let placed = map(&machine).shards[1].clone();
    assert_eq!((placed.operation, placed.making, placed.epoch), (0, false, 1));
    machine.done(place(&shard));
    machine.assert_verified();
}
