//! The shard map.

use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::map_update::Update;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal, ShardKind, SweepPhase};

use crate::harness::Machine;

pub(crate) fn region(name: &str, zone: &str) -> Op {
    let region = pb::Region {
        name: name.to_owned(),
        zone: zone.to_owned(),
        store_address: "127.0.1.1:9000".to_owned(),
        ..Default::default()
    };
    Op::RegisterRegion(pb::RegisterRegion { region: Some(region) })
}

pub(crate) fn node(id: u64, region: &str) -> Op {
    let address = format!("127.0.1.{id}:7000");
    let node = pb::Node { id, region: region.to_owned(), address, ..Default::default() };
    Op::RegisterNode(pb::RegisterNode { node: Some(node) })
}

/// The node of Seoul at another address.
fn at(id: u64, address: &str) -> Op {
    let node = pb::Node { id, region: "seoul".to_owned(), address: address.to_owned(), ..Default::default() };
    Op::RegisterNode(pb::RegisterNode { node: Some(node) })
}

pub(crate) fn shard(id: u32, replicas: &[u64]) -> pb::Shard {
    pb::Shard {
        id,
        kind: ShardId(id).kind().unwrap().into(),
        replicas: replicas.to_vec(),
        home_region: "seoul".to_owned(),
        ..Default::default()
    }
}

pub(crate) fn place(shard: pb::Shard) -> Op {
    Op::PlaceShard(pb::PlaceShard { shard: Some(shard), ..Default::default() })
}

fn directory(id: u32, slot_first: u32, slot_last: u32) -> pb::Shard {
    pb::Shard { slot_first, slot_last, ..shard(id, &[1]) }
}

fn domain(name: &str, zone: &str) -> Op {
    Op::AddDomain(pb::AddDomain { domain: name.to_owned(), zone: zone.to_owned() })
}

pub(crate) fn map(machine: &Machine) -> pb::ShardMap {
    match machine.ask(Ask::GetShardMap(pb::GetShardMap { known_version: 0 })) {
        Answer::ShardMap(pb::MapUpdate { update: Some(Update::Whole(map)) }) => map,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn machine() -> Machine {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    for name in ["virginia", "seoul", "frankfurt"] {
        machine.done(region(name, "world"));
    }
    for (id, region) in [(1, "seoul"), (2, "frankfurt"), (3, "virginia"), (4, "virginia")] {
        machine.done(node(id, region));
    }
    machine
}

#[test]
fn the_version_rises_with_every_change_and_with_nothing_else() {
    let mut machine = machine();
    // Three regions, their zone, four nodes.
    assert_eq!(map(&machine).version, 8);
    let add = domain("test.example", "world");
    let command = machine.command(add.clone());
    assert!(machine.run(command).map_changed);
    for again in [region("seoul", "world"), node(1, "seoul"), add] {
        let command = machine.command(again);
        assert!(!machine.run(command).map_changed);
    }
    let map = map(&machine);
    assert_eq!(map.version, 9);
    assert_eq!(
        map.domains,
        [pb::Domain { name: "test.example".to_owned(), zone: "world".to_owned(), ..Default::default() }]
    );
    assert_eq!(map.zones, [pb::Zone { name: "world".to_owned(), id: 1 }]);
    let names: Vec<&str> = map.regions.iter().map(|region| region.name.as_str()).collect();
    assert_eq!(names, ["frankfurt", "seoul", "virginia"]);
    machine.assert_verified();
}

#[test]
fn what_clients_are_told_of_a_region_outlives_its_registration() {
    let mut machine = machine();
    let update = |api_url: Option<&str>, weight| {
        Op::UpdateRegion(pb::UpdateRegion { region: "seoul".to_owned(), api_url: api_url.map(str::to_owned), weight })
    };
    let seoul = |machine: &Machine| {
        let region = map(machine).regions.into_iter().find(|region| region.name == "seoul").unwrap();
        (region.api_url, region.weight)
    };
    let version = map(&machine).version;
    assert_eq!(seoul(&machine), (String::new(), None));
    machine.done(update(None, Some(0)));
    machine.done(update(Some("https://seoul.example.com:8443"), None));
    assert_eq!(map(&machine).version, version + 2);
    machine.done(region("seoul", "world"));
    assert_eq!(seoul(&machine), ("https://seoul.example.com:8443".to_owned(), Some(0)));
    assert_eq!(map(&machine).version, version + 2, "a node's region that is registered again changes nothing");
    for bad in [
        update(Some("seoul.example.com"), None),
        update(Some("https://seoul.example.com/v1"), None),
        update(Some("https://"), None),
        update(None, Some(10_001)),
        Op::UpdateRegion(pb::UpdateRegion { region: "atlantis".to_owned(), ..Default::default() }),
    ] {
        assert_eq!(machine.refused(bad).0, Refusal::Malformed);
    }
    machine.done(update(Some(""), None));
    assert_eq!(seoul(&machine), (String::new(), Some(0)));
    machine.assert_verified();
}

#[test]
fn a_shard_is_placed_once() {
    let mut machine = machine();
    machine.done(place(shard(1000, &[1, 2, 3])));
    let version = map(&machine).version;
    machine.done(place(shard(1000, &[1, 2, 3])));
    assert_eq!(map(&machine).version, version, "the same again changes nothing");
    let elsewhere = pb::Shard { home_region: "virginia".to_owned(), ..shard(1000, &[1, 2, 3]) };
    for other in [shard(1000, &[1, 2, 4]), elsewhere] {
        assert_eq!(machine.refused(place(other)).0, Refusal::Conflict);
    }
    let placed = &map(&machine).shards[0];
    assert_eq!((placed.epoch, placed.zone.as_str(), placed.replicas.as_slice()), (1, "world", &[1, 2, 3][..]));
}

/// Its accounts are in its zone still.
#[test]
fn a_domain_that_was_removed_comes_back_in_its_own_zone_alone() {
    let mut machine = machine();
    machine.done(region("osaka", "other"));
    machine.done(domain("test.example", "world"));
    let remove = || Op::RemoveDomain(pb::RemoveDomain { domain: "test.example".to_owned() });
    machine.done(remove());
    let version = map(&machine).version;
    machine.done(remove());
    assert_eq!((map(&machine).version, map(&machine).domains.len()), (version, 0));
    assert_eq!(machine.refused(domain("test.example", "other")).0, Refusal::Conflict);
    machine.done(domain("test.example", "world"));
    assert_eq!(map(&machine).domains.len(), 1);
    machine.assert_verified();
}

/// Whatever version somebody knows, what has changed since brings the map of now.
#[test]
fn whoever_knows_a_version_gets_what_has_changed_since() {
    let mut machine = machine();
    let ask = |machine: &Machine, known_version| match machine.ask(Ask::GetShardMap(pb::GetShardMap { known_version }))
    {
        Answer::ShardMap(update) => update.update.unwrap(),
        other => panic!("{other:?}"),
    };
    let mut known = vec![map(&machine)];
    let steps = [
        place(shard(1000, &[1, 2, 3])),
        at(1, "elsewhere:1"),
        domain("test.example", "world"),
        region("tokyo", "world"),
        Op::SetReplicas(pb::SetReplicas { shard: 1000, replicas: vec![1, 2, 4], ..Default::default() }),
        Op::RemoveDomain(pb::RemoveDomain { domain: "test.example".to_owned() }),
        Op::RemoveRegion(pb::RemoveRegion { region: "tokyo".to_owned() }),
        node(5, "seoul"),
        Op::RemoveNode(pb::RemoveNode { node: 5 }),
    ];
    for step in steps {
        machine.apply(step);
        known.push(map(&machine));
    }
    let operation = known.last().unwrap().operations[0].id;
    machine.done(Op::FinishOperation(pb::FinishOperation { id: operation, replicas: vec![1, 2, 4] }));
    let newest = map(&machine);
    assert!(newest.domains.is_empty() && newest.operations.is_empty() && newest.regions.len() == 3);
    for mut older in known {
        let Update::Delta(delta) = ask(&machine, older.version) else { panic!("version {}", older.version) };
        assert!(postrider_api::map::apply(&mut older, delta));
        assert_eq!(older, newest);
    }
    let Update::Delta(nothing) = ask(&machine, newest.version) else { panic!() };
    assert_eq!(nothing.changed, Some(pb::ShardMap { version: newest.version, ..Default::default() }));
    // One that this replica has not seen is not taken for one that it has.
    assert_eq!(ask(&machine, newest.version + 1), Update::Whole(newest));
    machine.assert_verified();
}

#[test]
fn whoever_is_far_behind_gets_the_whole_map() {
    let mut machine = machine();
    machine.done(place(shard(1000, &[1, 2, 3])));
    let old = map(&machine).version;
    for turn in 0..5000 {
        machine.done(at(1, ["here:1", "there:1"][turn % 2]));
    }
    let newest = map(&machine);
    for (known_version, is_whole) in [(old, true), (newest.version - 4096, false), (newest.version - 4097, true)] {
        let Answer::ShardMap(update) = machine.ask(Ask::GetShardMap(pb::GetShardMap { known_version })) else {
            panic!()
        };
        assert_eq!(matches!(update.update, Some(Update::Whole(_))), is_whole, "{known_version}");
    }
    machine.assert_verified();
}

#[test]
fn refusals() {
    let mut machine = machine();
    machine.done(place(shard(1000, &[1, 2, 3])));
    assert_eq!(machine.refused(region("", "world")).0, Refusal::Malformed);
    assert_eq!(machine.refused(region("a b", "world")).0, Refusal::Malformed);
    assert_eq!(machine.refused(node(0, "seoul")).0, Refusal::Malformed);
    assert_eq!(machine.refused(node(9, "atlantis")).0, Refusal::Malformed);
    assert_eq!(machine.refused(place(shard(1001, &[9]))).0, Refusal::UnknownNode);
    assert_eq!(machine.refused(place(shard(1001, &[]))).0, Refusal::Malformed);
    assert_eq!(machine.refused(place(shard(1001, &[1, 1]))).0, Refusal::Malformed);
    let wrong_kind = pb::Shard { kind: ShardKind::Directory.into(), ..shard(1001, &[1]) };
    assert_eq!(machine.refused(place(wrong_kind)).0, Refusal::Malformed);
    let wrong_zone = pb::Shard { zone: "mars".to_owned(), ..shard(1001, &[1]) };
    assert_eq!(machine.refused(place(wrong_zone)).0, Refusal::Malformed);
    let slots = pb::Shard { slot_last: 5, ..shard(1001, &[1]) };
    assert_eq!(machine.refused(place(slots)).0, Refusal::Malformed);
    for name in ["", "Test.example", "a..b", "a b"] {
        assert_eq!(machine.refused(domain(name, "world")).0, Refusal::Malformed, "{name:?}");
    }
}

#[test]
fn a_slot_belongs_to_one_directory_shard() {
    let mut machine = machine();
    machine.done(place(directory(2, 0, 32_767)));
    machine.done(place(directory(3, 32_768, 65_535)));
    assert_eq!(machine.refused(place(directory(3, 32_767, 65_535))).0, Refusal::Conflict);
    assert_eq!(machine.refused(place(directory(4, 5, 4))).0, Refusal::Malformed);
    assert_eq!(machine.refused(place(directory(4, 0, 65_536))).0, Refusal::Malformed);
}

#[test]
fn zones_have_numbers_for_ever_and_nothing_changes_its_zone() {
    let mut machine = machine();
    machine.done(region("tharsis", "mars"));
    machine.done(region("olympus", "mars"));
    machine.done(region("darkside", "moon"));
    let numbered: Vec<(String, u32)> = map(&machine).zones.into_iter().map(|zone| (zone.name, zone.id)).collect();
    assert_eq!(numbered, [("world".to_owned(), 1), ("mars".to_owned(), 2), ("moon".to_owned(), 3)]);
    machine.done(domain("a.example", "mars"));
    for wrong in [region("tharsis", "world"), domain("a.example", "world"), domain("b.example", "venus")] {
        let (refusal, detail) = machine.refused(wrong);
        assert!(refusal == Refusal::Conflict && detail.contains("zone"), "{detail}");
    }
    machine.done(node(5, "tharsis"));
    machine.done(place(shard(1000, &[1])));
    let elsewhere = pb::Shard { home_region: "tharsis".to_owned(), ..shard(1000, &[5]) };
    assert_eq!(machine.refused(place(elsewhere)).0, Refusal::Conflict);
    // Each zone has all slots.
    machine.done(place(directory(2, 0, 65_535)));
    machine.done(place(pb::Shard { slot_last: 65_535, home_region: "tharsis".to_owned(), ..shard(3, &[5]) }));
    assert_eq!(map(&machine).shards[1].zone, "mars");
    machine.assert_verified();
}

#[test]
fn replicas_are_in_the_zone_and_no_two_fail_together() {
    let mut machine = machine();
    machine.done(region("tharsis", "mars"));
    machine.done(node(5, "tharsis"));
    let refused = |machine: &mut Machine, op: Op, words: &str| {
        let (refusal, detail) = machine.refused(op);
        assert!(refusal == Refusal::Conflict && detail.contains(words), "{detail}");
    };
    refused(&mut machine, place(shard(1000, &[1, 2, 5])), "zone");
    refused(&mut machine, place(shard(1000, &[1, 3, 4])), "both in region \"virginia\"");
    machine.done(place(shard(1000, &[1, 2, 3])));
    let set = |replicas: &[u64]| {
        Op::SetReplicas(pb::SetReplicas { shard: 1000, replicas: replicas.to_vec(), ..Default::default() })
    };
    refused(&mut machine, set(&[1, 2, 5]), "zone");
    refused(&mut machine, set(&[1, 4, 3]), "region");
    // Placement knows no mail, and may be anywhere.
    machine.done(place(shard(1, &[1, 2, 5])));
    // Two regions of one building.
    let within = |id: u64, region: &str, failure_domain: &str| {
        let address = format!("127.0.1.{id}:7000");
        let node = pb::Node {
            id,
            region: region.to_owned(),
            address,
            failure_domain: failure_domain.to_owned(),
            ..Default::default()
        };
        Op::RegisterNode(pb::RegisterNode { node: Some(node) })
    };
    machine.done(within(1, "seoul", "building"));
    refused(&mut machine, within(2, "frankfurt", "building"), "shard 1");
    machine.done(within(4, "virginia", "building"));
    refused(&mut machine, place(shard(1001, &[1, 2, 4])), "failure domain \"building\"");
    machine.done(place(shard(1001, &[1, 2, 3])));
    // A node stays in its region.
    refused(&mut machine, node(4, "seoul"), "stays");
    machine.assert_verified();
}

// --- sweeps ---

fn sweep(machine: &Machine) -> pb::Sweep {
    match machine.ask(Ask::ListSweeps(pb::ListSweeps {})) {
        Answer::Sweeps(sweeps) => sweeps.sweeps.into_iter().next().unwrap_or_default(),
        other => panic!("{other:?}"),
    }
}

fn advance(machine: &Machine, phase: SweepPhase) -> pb::AdvanceSweep {
    let cursor = Bytes::from_static(&[0x80; 32]);
    pb::AdvanceSweep {
        zone: "earth".to_owned(),
        step: sweep(machine).step,
        phase: phase.into(),
        cursor,
        ..Default::default()
    }
}

#[test]
fn a_sweep_goes_from_step_to_step() {
    let mut machine = Machine::new(ShardId::PLACEMENT);
    let start = || Op::StartSweep(pb::StartSweep { zone: "earth".to_owned(), reads: true });
    assert_eq!(machine.refused(start()).0, Refusal::Malformed, "no region is in that zone");
    machine.done(region("seoul", "earth"));
    machine.done(node(1, "seoul"));
    machine.done(start());
    assert_eq!(machine.refused(start()).0, Refusal::Conflict, "one at a time");
    let version = map(&machine).version;
    let blob = |n: u8| pb::SweptBlob { hash: Bytes::copy_from_slice(&[n; 32]), ..Default::default() };

    let compared = advance(&machine, SweepPhase::Comparing);
    machine.done(Op::AdvanceSweep(compared.clone()));
    assert_eq!(machine.refused(Op::AdvanceSweep(compared)).0, Refusal::Conflict, "the same step again");
    let mut back = advance(&machine, SweepPhase::Comparing);
    back.cursor = Bytes::from_static(&[0x10; 32]);
    assert_eq!(machine.refused(Op::AdvanceSweep(back)).0, Refusal::Malformed, "it never goes back");
    assert_eq!(machine.refused(Op::AdvanceSweep(advance(&machine, SweepPhase::Deleting))).0, Refusal::Malformed);
    let without = advance(&machine, SweepPhase::Condemning);
    assert_eq!(machine.refused(Op::AdvanceSweep(without)).0, Refusal::Malformed, "a batch has blobs");

    let mut condemning = advance(&machine, SweepPhase::Condemning);
    condemning.blobs = vec![blob(1), blob(2)];
    machine.done(Op::AdvanceSweep(condemning));
    assert_eq!(machine.refused(place(shard(1000, &[1]))).0, Refusal::Conflict, "it would have condemned nothing");
    let mut unknown = advance(&machine, SweepPhase::Deleting);
    unknown.doomed = vec![blob(3).hash];
    assert_eq!(machine.refused(Op::AdvanceSweep(unknown)).0, Refusal::Malformed);
    let mut deleting = advance(&machine, SweepPhase::Deleting);
    deleting.doomed = vec![blob(2).hash];
    machine.done(Op::AdvanceSweep(deleting));
    let doomed: Vec<bool> = sweep(&machine).blobs.iter().map(|blob| blob.doomed).collect();
    assert_eq!(doomed, [false, true]);
    // There is no way back but through the deletion.
    for phase in [SweepPhase::Comparing, SweepPhase::Condemning, SweepPhase::Ended] {
        assert_eq!(machine.refused(Op::AdvanceSweep(advance(&machine, phase))).0, Refusal::Malformed);
    }
    machine.done(Op::AdvanceSweep(advance(&machine, SweepPhase::Pardoning)));
    machine.done(place(shard(1000, &[1])));
    machine.done(Op::AdvanceSweep(advance(&machine, SweepPhase::Comparing)));
    let mut ended = advance(&machine, SweepPhase::Ended);
    ended.tally = Some(pb::SweepTally { deleted: 1, ..Default::default() });
    machine.done(Op::AdvanceSweep(ended));
    let (first, batch) = (sweep(&machine), sweep(&machine).batch);
    assert_eq!((first.phase(), first.last.unwrap().deleted), (SweepPhase::Ended, 1));
    assert_eq!((first.cursor.len(), first.blobs.len()), (0, 0));
    machine.done(start());
    let second = sweep(&machine);
    assert_eq!((second.number, second.batch, second.last), (2, batch, first.last), "batches are numbered on");
    // Sweeps are no part of the map, which goes to everybody.
    assert_eq!(map(&machine).version, version + 1, "the shard that was placed");
    machine.assert_verified();
}

fn dkim_key(selector: &str, byte: u8) -> pb::DkimKey {
    pb::DkimKey {
        selector: selector.to_owned(),
        algorithm: pb::DkimAlgorithm::Ed25519Sha256.into(),
        public_key: Bytes::from(vec![byte; 44]),
        wrapped_private_key: Bytes::from(vec![byte; 80]),
        ..Default::default()
    }
}

fn add_dkim_key(domain: &str, key: pb::DkimKey) -> Op {
    Op::AddDkimKey(pb::AddDkimKey { domain: domain.to_owned(), key: Some(key) })
}

#[test]
fn a_dkim_key_is_added_retired_and_removed_in_this_order_and_the_map_tells() {
    let mut machine = machine();
    machine.done(domain("test.example", "world"));
    assert_eq!(machine.refused(add_dkim_key("other.example", dkim_key("e1", 1))).0, Refusal::UnknownDomain);
    machine.done(add_dkim_key("test.example", dkim_key("e2", 2)));
    machine.done(add_dkim_key("test.example", dkim_key("e1", 1)));
    let version = map(&machine).version;
    // The same once more changes nothing; another key under the same selector is refused.
    machine.done(add_dkim_key("test.example", dkim_key("e1", 1)));
    assert_eq!(map(&machine).version, version);
    assert_eq!(machine.refused(add_dkim_key("test.example", dkim_key("e1", 3))).0, Refusal::Conflict);
    let named = |selector: &str| ("test.example".to_owned(), selector.to_owned());
    let retire = |selector| {
        let (domain, selector) = named(selector);
        Op::RetireDkimKey(pb::RetireDkimKey { domain, selector })
    };
    let remove = |selector| {
        let (domain, selector) = named(selector);
        Op::RemoveDkimKey(pb::RemoveDkimKey { domain, selector })
    };
    assert_eq!(machine.refused(remove("e1")).0, Refusal::Conflict, "it is in use");
    machine.done(retire("e1"));
    let keys = map(&machine).domains[0].dkim_keys.clone();
    let seen: Vec<(&str, bool)> = keys.iter().map(|key| (key.selector.as_str(), key.retired_ms > 0)).collect();
    assert_eq!(seen, [("e1", true), ("e2", false)]);
    assert!(keys.iter().all(|key| key.created_ms > 0));
    machine.done(remove("e1"));
    machine.done(remove("e1"));
    // A domain that comes back has its keys.
    machine.done(Op::RemoveDomain(pb::RemoveDomain { domain: "test.example".to_owned() }));
    machine.done(domain("test.example", "world"));
    assert_eq!(map(&machine).domains[0].dkim_keys, keys[1..]);
    for n in 2..=postrider_api::limit::DKIM_KEYS_MAX {
        machine.done(add_dkim_key("test.example", dkim_key(&format!("x{n}"), 1)));
    }
    assert_eq!(machine.refused(add_dkim_key("test.example", dkim_key("y", 1))).0, Refusal::DkimKeysTooMany);
    for broken in [
        dkim_key("", 1),
        dkim_key("E1", 1),
        dkim_key("-e", 1),
        pb::DkimKey { algorithm: 0, ..dkim_key("z", 1) },
        pb::DkimKey { public_key: Bytes::new(), ..dkim_key("z", 1) },
    ] {
        assert_eq!(machine.refused(add_dkim_key("test.example", broken)).0, Refusal::Malformed);
    }
}

fn policy(name: &str, regions: &[&str], spread: pb::Spread) -> pb::Policy {
    pb::Policy {
        name: name.to_owned(),
        zone: "world".to_owned(),
        replicas: 3,
        regions: regions.iter().map(|region| (*region).to_owned()).collect(),
        spread: spread.into(),
        home: String::new(),
    }
}

fn set_policy(policy: pb::Policy) -> Op {
    Op::SetPolicy(pb::SetPolicy { policy: Some(policy) })
}

#[test]
fn a_policy_says_where_new_replicas_may_be_and_moves_none() {
    let mut machine = machine();
    let replicas =
        |replicas: &[u64]| pb::SetReplicas { shard: 1000, replicas: replicas.to_vec(), ..Default::default() };
    let set = |nodes: &[u64]| Op::SetReplicas(replicas(nodes));
    let hold = |name: &str| Op::SetShardPolicy(pb::SetShardPolicy { shard: 1000, policy: name.to_owned() });
    machine.done(place(shard(1000, &[1, 2, 3])));
    assert_eq!(machine.refused(hold("near")).0, Refusal::Conflict, "there is none");
    machine.done(set_policy(policy("near", &["seoul", "virginia"], pb::Spread::Domains)));
    let version = map(&machine).version;
    machine.done(set_policy(policy("near", &["seoul", "virginia"], pb::Spread::Domains)));
    assert_eq!(map(&machine).version, version);
    machine.done(hold("near"));
    assert_eq!((map(&machine).policies.len(), map(&machine).shards[0].replicas.clone()), (1, vec![1, 2, 3]));
    machine.assert_verified();
    // Nodes 3 and 4 are both in Virginia, and name no failure domain.
    assert_eq!(machine.refused(set(&[1, 3, 4])).0, Refusal::Conflict);
    let rack = pb::Node {
        id: 4,
        region: "virginia".to_owned(),
        address: "127.0.1.4:7000".to_owned(),
        failure_domain: "rack-2".to_owned(),
        ..Default::default()
    };
    machine.done(Op::RegisterNode(pb::RegisterNode { node: Some(rack) }));
    assert!(matches!(machine.apply(set(&[1, 3, 4])), pb::outcome::Result::OperationBegun(_)));
    let id = map(&machine).shards[0].operation;
    machine.done(Op::FinishOperation(pb::FinishOperation { id, replicas: vec![1, 3, 4] }));
    assert_eq!(machine.refused(set(&[1, 2, 3])).0, Refusal::Conflict, "no new one in Frankfurt");
    // A stricter one: those that are there may stay until they are moved, one by one.
    machine.done(set_policy(policy("near", &["frankfurt", "virginia"], pb::Spread::Regions)));
    assert!(matches!(machine.apply(set(&[2, 3, 4])), pb::outcome::Result::OperationBegun(_)));
    machine.assert_verified();
}

#[test]
fn a_policy_is_of_one_zone_and_stays_while_something_is_held_to_it() {
    let mut machine = machine();
    machine.done(region("osaka", "other"));
    machine.done(domain("test.example", "world"));
    for wrong in [
        policy("near", &["seoul", "osaka"], pb::Spread::Regions),
        policy("near", &["seoul", "seoul"], pb::Spread::Regions),
        policy("near", &["atlantis"], pb::Spread::Regions),
        policy("no name", &[], pb::Spread::Regions),
        pb::Policy { replicas: 4, ..policy("near", &[], pb::Spread::Regions) },
        pb::Policy { home: "virginia".to_owned(), ..policy("near", &["seoul"], pb::Spread::Regions) },
        pb::Policy { spread: 9, ..policy("near", &[], pb::Spread::Regions) },
    ] {
        assert_eq!(machine.refused(set_policy(wrong)).0, Refusal::Malformed);
    }
    machine.done(set_policy(policy("near", &["seoul"], pb::Spread::Domains)));
    let elsewhere =
        pb::Policy { zone: "other".to_owned(), regions: Vec::new(), ..policy("near", &[], pb::Spread::Regions) };
    assert_eq!(machine.refused(set_policy(elsewhere)).0, Refusal::Conflict);
    let hold = |name: &str| {
        Op::SetDomainPolicy(pb::SetDomainPolicy { domain: "test.example".to_owned(), policy: name.to_owned() })
    };
    machine.done(hold("near"));
    assert_eq!(map(&machine).domains[0].policy, "near");
    machine.done(domain("test.example", "world"));
    assert_eq!(map(&machine).domains[0].policy, "near", "added again, it keeps it");
    let remove = || Op::RemovePolicy(pb::RemovePolicy { name: "near".to_owned() });
    assert_eq!(machine.refused(remove()).0, Refusal::Conflict);
    machine.done(hold(""));
    machine.done(remove());
    machine.done(remove());
    assert!(map(&machine).policies.is_empty());
    machine.assert_verified();
}
