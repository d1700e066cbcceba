//! Who may be raised to which version: nodes report, the operator asks, placement records.

use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::harness::Machine;
use crate::placement::{machine, map, place, shard};

fn report(node: u64, version_max: u32) -> Op {
    Op::ReportBuild(pb::ReportBuild { node, version_max, build: format!("0.{version_max}.0") })
}

fn set(version: u32) -> Op {
    Op::SetVersion(pb::SetVersion { version })
}

fn replicas(replicas: &[u64]) -> Op {
    Op::SetReplicas(pb::SetReplicas { shard: 1000, replicas: replicas.to_vec(), ..Default::default() })
}

fn raise(version: u32) -> Op {
    Op::RecordVersion(pb::RecordVersion { shard: 1000, version })
}

/// Four nodes, a shard on the first three of them.
fn placed() -> Machine {
    let mut machine = machine();
    machine.done(place(shard(1000, &[1, 2, 3])));
    machine
}

#[test]
fn a_shard_is_raised_once_all_of_its_nodes_know_the_version() {
    let mut machine = placed();
    // Nobody knows it: a mistake in typing.
    assert_eq!(machine.refused(set(2)).0, Refusal::VersionNotEnabled);
    machine.done(report(1, 2));
    machine.done(report(2, 2));
    // The operator has not asked for it.
    assert_eq!(machine.refused(raise(2)).0, Refusal::VersionNotEnabled);
    machine.done(set(2));
    assert_eq!(map(&machine).target_version, 2);
    // Node 3 has not said anything.
    let (refusal, detail) = machine.refused(raise(2));
    assert!(refusal == Refusal::VersionNotEnabled && detail.contains("node 3"), "{detail}");
    machine.done(report(3, 2));
    machine.done(raise(2));
    let raised = map(&machine);
    assert_eq!((raised.shards[0].version, raised.shards[0].epoch), (2, 1));
    // Again: nothing changes. Back: never.
    machine.done(raise(2));
    assert_eq!(map(&machine).version, raised.version);
    assert_eq!(machine.refused(raise(1)).0, Refusal::Conflict);
    assert_eq!(machine.refused(set(1)).0, Refusal::Conflict);
    machine.assert_verified();
}

#[test]
fn no_older_build_becomes_a_member_of_what_was_raised() {
    let mut machine = placed();
    for node in 1..=3 {
        machine.done(report(node, 2));
    }
    machine.done(set(2));
    machine.done(raise(2));
    let (refusal, detail) = machine.refused(replicas(&[1, 2, 4]));
    assert!(refusal == Refusal::VersionNotEnabled && detail.contains("node 4"), "{detail}");
    // Rolled back: it may not pass for one that knows.
    let (refusal, detail) = machine.refused(report(3, 1));
    assert!(refusal == Refusal::Conflict && detail.contains("1000"), "{detail}");
    machine.done(report(4, 2));
    assert!(!matches!(machine.apply(replicas(&[1, 2, 4])), Made::Refused(_)));
    // Registered again, at another address: the node knows what it knew.
    assert_eq!(map(&machine).nodes[3].version_max, 2);
    machine.assert_verified();
}

#[test]
fn a_replica_that_is_on_its_way_counts_as_a_member() {
    let mut machine = placed();
    for node in 1..=3 {
        machine.done(report(node, 2));
    }
    machine.done(set(2));
    assert!(!matches!(machine.apply(replicas(&[1, 2, 4])), Made::Refused(_)));
    assert_eq!(machine.refused(raise(2)).0, Refusal::VersionNotEnabled);
    machine.done(report(4, 2));
    machine.done(raise(2));
    machine.assert_verified();
}

#[test]
fn a_wish_that_nobody_has_followed_is_taken_back() {
    let mut machine = placed();
    machine.done(report(1, 2));
    machine.done(set(2));
    let version = map(&machine).version;
    machine.done(set(2));
    assert_eq!(map(&machine).version, version);
    machine.done(set(1));
    assert_eq!(map(&machine).target_version, 1);
    for nonsense in [set(0), report(1, 0)] {
        assert_eq!(machine.refused(nonsense).0, Refusal::Malformed);
    }
    assert_eq!(machine.refused(report(9, 1)).0, Refusal::UnknownNode);
}
