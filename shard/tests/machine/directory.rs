//! Addresses: reserve, activate, release.

use bytes::Bytes;
use postrider_api::address::hash_of;
use postrider_api::id::ShardId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, AddressStatus, Missing, Refusal};

use crate::harness::{Machine, user};

const ADDRESS: &str = "ada@test.example";

fn machine() -> Machine {
    Machine::new(ShardId::DIRECTORY_FIRST)
}

fn reserve(n: u8, address: &str) -> Op {
    Op::ReserveAddress(pb::ReserveAddress { address: address.to_owned(), user_id: user(n).to_bytes(), shard: 1000 })
}

fn address_hash() -> Bytes {
    Bytes::copy_from_slice(&hash_of(ADDRESS))
}

fn activate(n: u8) -> Op {
    Op::ActivateAddress(pb::ActivateAddress { address_hash: address_hash(), user_id: user(n).to_bytes() })
}

fn release(n: u8) -> Op {
    Op::ReleaseAddress(pb::ReleaseAddress { address_hash: address_hash(), user_id: user(n).to_bytes() })
}

fn reserved(machine: &mut Machine, n: u8) {
    let made = machine.apply(reserve(n, ADDRESS));
    assert_eq!(made, Made::Reserved(pb::Reserved { user_id: user(n).to_bytes(), shard: 1000 }));
}

fn look_up(machine: &Machine) -> Option<(Vec<u8>, AddressStatus)> {
    match machine.ask(Ask::LookUpAddress(pb::LookUpAddress { address: ADDRESS.to_owned() })) {
        Answer::Address(record) => Some((record.user_id.to_vec(), record.status())),
        Answer::NotFound(missing) => {
            assert_eq!(missing.missing(), Missing::Address);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn locate(machine: &Machine, n: u8) -> Option<String> {
    match machine.ask(Ask::LocateUser(pb::LocateUser { user_id: user(n).to_bytes() })) {
        Answer::Address(record) => Some(record.address),
        Answer::NotFound(missing) => {
            assert_eq!(missing.missing(), Missing::User);
            None
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn sign_up_and_release() {
    let mut machine = machine();
    assert_eq!((look_up(&machine), locate(&machine, 1)), (None, None));
    reserved(&mut machine, 1);
    assert_eq!(look_up(&machine), Some((user(1).0.to_vec(), AddressStatus::Reserved)));
    machine.done(activate(1));
    assert_eq!(look_up(&machine), Some((user(1).0.to_vec(), AddressStatus::Active)));
    // Each step says the same when it comes again.
    reserved(&mut machine, 1);
    machine.done(activate(1));
    assert_eq!(look_up(&machine), Some((user(1).0.to_vec(), AddressStatus::Active)));
    assert_eq!(locate(&machine, 1), Some(ADDRESS.to_owned()));
    machine.assert_verified();
    machine.done(release(1));
    machine.done(release(1));
    assert_eq!((look_up(&machine), locate(&machine, 1)), (None, None));
    machine.assert_verified();
}

#[test]
fn an_address_has_one_holder() {
    let mut machine = machine();
    reserved(&mut machine, 1);
    assert_eq!(machine.refused(reserve(2, ADDRESS)).0, Refusal::AddressTaken);
    assert_eq!(machine.refused(activate(2)).0, Refusal::AddressTaken);
    assert_eq!(machine.refused(release(2)).0, Refusal::AddressTaken);
    machine.done(activate(1));
    machine.now += 365 * 86_400_000;
    assert_eq!(machine.refused(reserve(2, ADDRESS)).0, Refusal::AddressTaken);
}

#[test]
fn an_abandoned_reservation_is_taken_over() {
    let mut machine = machine();
    reserved(&mut machine, 1);
    machine.now += 15 * 60 * 1000 - 1;
    assert_eq!(machine.refused(reserve(2, ADDRESS)).0, Refusal::AddressTaken);
    machine.now += 1;
    reserved(&mut machine, 2);
    assert_eq!((locate(&machine, 1), locate(&machine, 2)), (None, Some(ADDRESS.to_owned())));
    // Who comes back too late hears so.
    assert_eq!(machine.refused(activate(1)).0, Refusal::AddressTaken);
    machine.assert_verified();
}

#[test]
fn what_is_not_reserved_is_not_activated() {
    let mut machine = machine();
    assert_eq!(machine.refused(activate(1)).0, Refusal::UnknownAddress);
}

#[test]
fn malformed() {
    let mut machine = machine();
    for address in ["", "ada", "@x", "ada@", "Ada@test.example", "a b@test.example", "a\r\n@test.example"] {
        assert_eq!(machine.refused(reserve(1, address)).0, Refusal::Malformed, "{address:?}");
    }
    assert_eq!(machine.refused(reserve(1, &format!("{}@x", "a".repeat(260)))).0, Refusal::Malformed);
    let mut elsewhere = reserve(1, ADDRESS);
    if let Op::ReserveAddress(c) = &mut elsewhere {
        c.shard = 2;
    }
    assert_eq!(machine.refused(elsewhere).0, Refusal::Malformed);
}
