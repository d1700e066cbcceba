//! Second factors: what is shown counts once, against a naive copy of the rules; and the sessions' use.

use std::collections::BTreeSet;

use bytes::Bytes;
use postrider_api::limit::{RECOVERY_CODES_MAX, SEALED_SECRET_BYTES_MAX, SESSION_USE_MS, TOTP_STEP_MS};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::second_factor_proof::Shown;
use postrider_api::pb::{self, Refusal};
use postrider_api::request::password_digest;
use proptest::prelude::*;

use crate::accounts::assert_gone;
use crate::harness::{Machine, user};

fn sealed(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[n; 48])
}

fn code(n: u8) -> Bytes {
    Bytes::copy_from_slice(&[n; 32])
}

fn begin(machine: &Machine, of: u8, secret: u8) -> Op {
    Op::BeginSecondFactor(pb::BeginSecondFactor {
        user_id: user(of).to_bytes(),
        verified: verified(machine, of),
        sealed_secret: sealed(secret),
    })
}

fn verified(machine: &Machine, of: u8) -> Bytes {
    password_digest(&machine.account(of).password_hash)
}

fn confirm(of: u8, secret: u8, step: u64, codes: &[u8]) -> Op {
    Op::ConfirmSecondFactor(pb::ConfirmSecondFactor {
        user_id: user(of).to_bytes(),
        sealed_secret: sealed(secret),
        step,
        recovery_hashes: codes.iter().map(|n| code(*n)).collect(),
    })
}

fn step_now(machine: &Machine) -> u64 {
    u64::try_from(machine.now / TOTP_STEP_MS).unwrap()
}

fn shown(shown: Shown) -> Option<pb::SecondFactorProof> {
    Some(pb::SecondFactorProof { shown: Some(shown) })
}

fn log_in(machine: &Machine, of: u8, token: u8, proof: Option<pb::SecondFactorProof>) -> Op {
    Op::OpenSession(pb::OpenSession {
        user_id: user(of).to_bytes(),
        token_hash: Bytes::copy_from_slice(&[token; 32]),
        expires_at_ms: machine.now + 1_000_000_000,
        second_factor: proof,
        ..Default::default()
    })
}

fn remove(verified: Bytes, proof: Option<pb::SecondFactorProof>) -> Op {
    Op::RemoveSecondFactor(pb::RemoveSecondFactor { user_id: user(1).to_bytes(), verified, second_factor: proof })
}

fn stored(machine: &Machine, of: u8) -> pb::SecondFactorRecord {
    match machine.ask(Ask::GetSecondFactor(pb::GetSecondFactor { user_id: user(of).to_bytes() })) {
        Answer::SecondFactor(record) => record,
        other => panic!("{other:?}"),
    }
}

/// With one that is confirmed by the step of now.
fn with_factor(codes: &[u8]) -> Machine {
    let mut machine = Machine::with_users(2);
    let op = begin(&machine, 1, 7);
    machine.done(op);
    let step = step_now(&machine);
    machine.done(confirm(1, 7, step, codes));
    machine
}

#[test]
fn it_counts_once_it_is_confirmed_and_until_it_is_removed() {
    let mut machine = Machine::with_users(2);
    assert_eq!(stored(&machine, 1), pb::SecondFactorRecord::default());
    let op = begin(&machine, 1, 6);
    machine.done(op);
    let op = log_in(&machine, 1, 1, None);
    machine.done(op);
    // Another in its place; the code was of the first.
    let op = begin(&machine, 1, 7);
    machine.done(op);
    let step = step_now(&machine);
    assert_eq!(machine.refused(confirm(1, 6, step, &[1])).0, Refusal::Conflict);
    machine.done(confirm(1, 7, step, &[1, 2]));
    machine.assert_verified();
    let op = begin(&machine, 1, 8);
    assert_eq!(machine.refused(op).0, Refusal::Conflict, "who has a session takes nobody's factor away");
    let op = log_in(&machine, 1, 2, None);
    assert_eq!(machine.refused(op).0, Refusal::SecondFactorWanted);
    let op = log_in(&machine, 2, 2, None);
    machine.done(op);
    let op = log_in(&machine, 1, 3, shown(Shown::Step(step)));
    assert_eq!(machine.refused(op).0, Refusal::SecondFactorSpent, "the code that confirmed it");
    let op = log_in(&machine, 1, 3, shown(Shown::Step(step + 1)));
    machine.done(op);
    let op = log_in(&machine, 1, 4, shown(Shown::RecoveryHash(code(2))));
    machine.done(op);
    let op = log_in(&machine, 1, 5, shown(Shown::RecoveryHash(code(2))));
    assert_eq!(machine.refused(op).0, Refusal::SecondFactorSpent);
    assert_eq!(stored(&machine, 1).recovery_hashes, [code(1)]);

    let mine = verified(&machine, 1);
    assert_eq!(machine.refused(remove(mine.clone(), None)).0, Refusal::SecondFactorWanted);
    let replace = |proof| {
        Op::ReplaceRecoveryCodes(pb::ReplaceRecoveryCodes {
            user_id: user(1).to_bytes(),
            verified: mine.clone(),
            second_factor: proof,
            recovery_hashes: vec![code(9)],
        })
    };
    assert_eq!(machine.refused(replace(shown(Shown::Step(step + 1)))).0, Refusal::SecondFactorSpent);
    machine.done(replace(shown(Shown::RecoveryHash(code(1)))));
    assert_eq!(stored(&machine, 1).recovery_hashes, [code(9)]);
    machine.done(remove(mine.clone(), shown(Shown::Step(step + 2))));
    assert_eq!(machine.refused(remove(mine, None)).0, Refusal::UnknownSecondFactor);
    let op = log_in(&machine, 1, 6, None);
    machine.done(op);
    machine.assert_verified();
}

#[test]
fn an_operator_takes_away_what_an_owner_has_lost() {
    let mut machine = with_factor(&[1]);
    machine.done(remove(Bytes::new(), None));
    let op = log_in(&machine, 1, 1, None);
    machine.done(op);
    machine.assert_verified();
}

#[test]
fn what_is_none_is_refused() {
    let mut machine = Machine::with_users(1);
    let step = step_now(&machine);
    assert_eq!(machine.refused(confirm(1, 7, step, &[1])).0, Refusal::UnknownSecondFactor);
    let begin_with = |verified: &Bytes, sealed_secret: &[u8]| {
        Op::BeginSecondFactor(pb::BeginSecondFactor {
            user_id: user(1).to_bytes(),
            verified: verified.clone(),
            sealed_secret: Bytes::copy_from_slice(sealed_secret),
        })
    };
    let mine = verified(&machine, 1);
    assert_eq!(machine.refused(begin_with(&mine, &[])).0, Refusal::Malformed);
    assert_eq!(machine.refused(begin_with(&mine, &[1; SEALED_SECRET_BYTES_MAX + 1])).0, Refusal::Malformed);
    assert_eq!(machine.refused(begin_with(&code(1), &[1; 8])).0, Refusal::PasswordChanged);
    let op = begin(&machine, 1, 7);
    machine.done(op);
    let many: Vec<u8> = (0..=u8::try_from(RECOVERY_CODES_MAX).unwrap()).collect();
    for (step, codes) in
        [(step + 1000, &[1][..]), (0, &[1][..]), (step, &[][..]), (step, &[1, 1][..]), (step, &many[..])]
    {
        assert_eq!(machine.refused(confirm(1, 7, step, codes)).0, Refusal::Malformed, "{step} {codes:?}");
    }
    machine.assert_verified();
}

#[test]
fn it_goes_with_its_account() {
    let mut machine = with_factor(&[1, 2]);
    let user_id = user(1).to_bytes();
    machine.done(Op::DeleteAccount(pb::DeleteAccount { user_id: user_id.clone(), ..Default::default() }));
    while machine.apply(Op::DrainAccount(pb::DrainAccount { user_id: user_id.clone() }))
        != Made::AccountDraining(pb::AccountDraining { is_empty: true })
    {}
    machine.done(Op::FinishDeletion(pb::FinishDeletion { user_id }));
    assert_gone(&machine, 1);
    machine.assert_verified();
}

#[test]
fn the_use_of_a_session_is_noted_once_an_hour() {
    let mut machine = Machine::with_users(1);
    let op = log_in(&machine, 1, 1, None);
    machine.done(op);
    let token_hash = Bytes::copy_from_slice(&[1; 32]);
    let used = Op::UseSession(pb::UseSession { user_id: user(1).to_bytes(), token_hash: token_hash.clone() });
    let last_used = |machine: &Machine| {
        let ask = pb::GetSession { user_id: user(1).to_bytes(), token_hash: token_hash.clone() };
        match machine.ask(Ask::GetSession(ask)) {
            Answer::Session(session) => session.last_used_ms,
            other => panic!("{other:?}"),
        }
    };
    machine.now += SESSION_USE_MS - 1;
    machine.done(used.clone());
    assert_eq!(last_used(&machine), 0, "it was opened within the hour");
    machine.now += 1;
    let first = machine.now;
    machine.done(used.clone());
    machine.now += SESSION_USE_MS - 1;
    machine.done(used.clone());
    assert_eq!(last_used(&machine), first);
    let close = pb::CloseSession { user_id: user(1).to_bytes(), token_hash: token_hash.clone() };
    machine.done(Op::CloseSession(close));
    machine.done(used);
    machine.assert_verified();
}

/// Something that somebody shows, and when.
#[derive(Debug, Clone)]
enum Show {
    Nothing,
    /// The step so far from now.
    Step(i64),
    Recovery(u8),
    Wait(i64),
}

fn show() -> impl Strategy<Value = Show> {
    prop_oneof![
        1 => Just(Show::Nothing),
        5 => (-3i64..=3).prop_map(Show::Step),
        2 => (0u8..6).prop_map(Show::Recovery),
        2 => (1i64..90_000).prop_map(Show::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The naive copy: a set of what was taken, and the largest step.
    #[test]
    fn nothing_is_taken_twice(shows in prop::collection::vec(show(), 1..60)) {
        let mut machine = with_factor(&[0, 1, 2, 3]);
        let mut last = step_now(&machine);
        let mut left: BTreeSet<u8> = [0, 1, 2, 3].into();
        for (token, show) in (1u8..).zip(shows) {
            let (proof, is_good) = match show {
                Show::Wait(ms) => {
                    machine.now += ms;
                    continue;
                }
                Show::Nothing => (None, false),
                Show::Step(from_now) => {
                    let step = step_now(&machine).checked_add_signed(from_now).unwrap();
                    let is_good = step > last;
                    last = last.max(step);
                    (shown(Shown::Step(step)), is_good)
                }
                Show::Recovery(n) => (shown(Shown::RecoveryHash(code(n))), left.remove(&n)),
            };
            let op = log_in(&machine, 1, token, proof);
            match machine.apply(op) {
                Made::Done(_) => prop_assert!(is_good, "{show:?}"),
                Made::Refused(_) => prop_assert!(!is_good, "{show:?}"),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        machine.assert_verified();
    }
}
