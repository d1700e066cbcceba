//! Sessions.

use bytes::Bytes;
use postrider_api::limit::SESSIONS_MAX;
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, Refusal};
use postrider_shard::{Standing, session_standing};

use crate::harness::{Machine, user};

fn token(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[n; 32])
}

fn open(of: u8, n: u8, expires_at_ms: i64) -> Op {
    Op::OpenSession(pb::OpenSession {
        user_id: user(of).to_bytes(),
        token_hash: token(n),
        expires_at_ms,
        ..Default::default()
    })
}

fn close(of: u8, n: u8) -> Op {
    Op::CloseSession(pb::CloseSession { user_id: user(of).to_bytes(), token_hash: token(n) })
}

fn is_valid(machine: &Machine, of: u8, n: u8, now_ms: i64) -> bool {
    let proof = pb::SessionProof { user_id: user(of).to_bytes(), token_hash: token(n) };
    session_standing(&machine.store, now_ms, &proof).unwrap() == Standing::Valid
}

#[test]
fn a_session_lasts_until_it_expires_or_is_closed() {
    let mut machine = Machine::with_users(2);
    let end = machine.now + 1000;
    machine.done(open(1, 1, end));
    machine.done(open(1, 2, end));
    assert!(is_valid(&machine, 1, 1, end - 1));
    assert!(!is_valid(&machine, 1, 1, end));
    assert!(!is_valid(&machine, 2, 1, end - 1), "another user's token is none");
    machine.done(close(1, 1));
    machine.done(close(1, 1));
    assert!(!is_valid(&machine, 1, 1, end - 1));
    assert!(is_valid(&machine, 1, 2, end - 1));
    assert_eq!(machine.account(1).sessions, 1);
    machine.assert_verified();
    let odd = pb::SessionProof { user_id: Bytes::new(), token_hash: Bytes::new() };
    assert_eq!(session_standing(&machine.store, 0, &odd).unwrap(), Standing::Nothing);
}

#[test]
fn the_first_to_expire_makes_room() {
    let mut machine = Machine::with_users(1);
    let later = machine.now + 1_000_000;
    for n in 0..SESSIONS_MAX as u8 {
        // Number 50 expires first.
        machine.done(open(1, n, later + (i64::from(n) - 50).abs()));
    }
    machine.done(open(1, 200, later + 5));
    assert!(!is_valid(&machine, 1, 50, machine.now));
    assert!(is_valid(&machine, 1, 0, machine.now) && is_valid(&machine, 1, 200, machine.now));
    assert_eq!(machine.account(1).sessions, SESSIONS_MAX as u32);
    // What has expired goes with the next log-in.
    machine.now = later + 1_000_000;
    machine.done(open(1, 201, machine.now + 1));
    assert_eq!(machine.account(1).sessions, 1);
    machine.assert_verified();
}

#[test]
fn refusals() {
    let mut machine = Machine::with_users(1);
    let later = machine.now + 1;
    assert_eq!(machine.refused(open(9, 1, later)).0, Refusal::UnknownUser);
    assert_eq!(machine.refused(open(1, 1, machine.now)).0, Refusal::Malformed);
    machine.done(open(1, 1, later));
    assert_eq!(machine.refused(open(1, 1, later + 5)).0, Refusal::Conflict);
    let mut short = open(1, 2, later);
    if let Op::OpenSession(command) = &mut short {
        command.token_hash = Bytes::from_static(b"short");
    }
    assert_eq!(machine.refused(short).0, Refusal::Malformed);
}
