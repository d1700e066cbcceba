//! P-6: what comes again.

use bytes::Bytes;
use postrider_api::limit::{DEDUP_MS, DELIVER_AGE_MS_MAX, FORGET_AGE_MS_MIN, TRANSFER_MS, UNDELIVERED_MS_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};
use postrider_shard::INBOX;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader, Txn};

use prost::Message;

use crate::harness::{
    MAILBOX, Machine, START_MS, accept, create_folder, deliver, deliver_leased, message, request, user,
};

fn under(machine: &mut Machine, id: u64, op: Op) -> pb::Command {
    let mut command = machine.command(op);
    command.request = Bytes::copy_from_slice(&request(id).0);
    command
}

fn rows_of(machine: &Machine, table: Table) -> usize {
    machine.store.scan(&KeyRange::table(table), Direction::Forward).count()
}

#[test]
fn a_request_that_comes_again_gets_the_first_outcome() {
    let mut machine = Machine::with_users(1);
    let command = under(&mut machine, 1, accept(&[1], message(1, None, &[])));
    let first = machine.run(command.clone());
    let again = machine.run(command);
    assert_eq!(first.outcome, again.outcome);
    assert_eq!((first.touched.len(), again.touched.len()), (1, 0));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    machine.assert_verified();
}

#[test]
fn what_became_of_a_request_can_be_asked() {
    let mut machine = Machine::with_users(1);
    let command = under(&mut machine, 1, accept(&[1], message(1, None, &[])));
    let get = |request: &Bytes, fingerprint: &'static [u8]| {
        pb::query::Query::GetOutcome(pb::GetOutcome {
            user_id: user(1).to_bytes(),
            request: request.clone(),
            fingerprint: Bytes::from_static(fingerprint),
        })
    };
    let missing = pb::answer::Answer::NotFound(pb::NotFound { missing: pb::Missing::Request.into() });
    assert_eq!(machine.ask(get(&command.request, b"")), missing);
    let outcome = machine.run(command.clone()).outcome;
    assert_eq!(machine.ask(get(&command.request, b"")), pb::answer::Answer::Outcome(outcome));
    let pb::answer::Answer::Outcome(other) = machine.ask(get(&command.request, b"another")) else {
        panic!("no outcome")
    };
    let Some(Made::Refused(refused)) = other.result else { panic!("{other:?}") };
    assert_eq!(refused.refusal(), Refusal::FingerprintMismatch);
    machine.now += DEDUP_MS;
    assert_eq!(machine.ask(get(&command.request, b"")), missing);
}

#[test]
fn a_request_that_comes_twice_in_one_batch_happens_once() {
    let mut machine = Machine::with_users(1);
    let command = under(&mut machine, 1, accept(&[1], message(1, None, &[])));
    let below = machine.store.clone();
    let mut txn = Txn::new(&below);
    let first = postrider_shard::apply(MAILBOX, &mut txn, 10, &command).unwrap();
    let again = postrider_shard::apply(MAILBOX, &mut txn, 11, &command).unwrap();
    machine.store.write(txn.into_writes());
    assert_eq!(first.outcome, again.outcome);
    assert_eq!(machine.messages(1, INBOX).len(), 1);
}

#[test]
fn a_refusal_is_kept_too() {
    let mut machine = Machine::with_users(1);
    let full = crate::harness::create_account(2, 0);
    machine.changed(full);
    let command = under(&mut machine, 1, accept(&[2], message(1, None, &[])));
    let refused = machine.run(command.clone()).outcome;
    assert!(matches!(refused.result, Some(Made::Refused(_))));
    assert_eq!(machine.run(command).outcome, refused);
}

#[test]
fn another_fingerprint_under_the_same_request_is_refused() {
    let mut machine = Machine::with_users(1);
    let mut command = under(&mut machine, 1, create_folder(1, "a"));
    command.fingerprint = Bytes::from_static(b"one");
    machine.run(command.clone());
    command.fingerprint = Bytes::from_static(b"two");
    let Some(Made::Refused(refused)) = machine.run(command.clone()).outcome.result else { panic!("refused") };
    assert_eq!(refused.refusal(), Refusal::FingerprintMismatch);
    command.fingerprint = Bytes::from_static(b"one");
    assert!(matches!(machine.run(command).outcome.result, Some(Made::FolderMade(_))));
}

#[test]
fn a_request_id_has_sixteen_bytes() {
    let mut machine = Machine::with_users(1);
    let mut command = machine.command(create_folder(1, "a"));
    command.request = Bytes::from_static(b"short");
    let Some(Made::Refused(refused)) = machine.run(command).outcome.result else { panic!("refused") };
    assert_eq!(refused.refusal(), Refusal::Malformed);
    assert!(refused.detail.contains("request"));
}

#[test]
fn after_its_time_a_request_is_new_and_its_row_goes() {
    let mut machine = Machine::with_users(1);
    for n in 0..600 {
        let command = under(&mut machine, n, create_folder(1, "no/folder"));
        machine.run(command);
        machine.now += 1;
    }
    assert_eq!(rows_of(&machine, Table::Dedup), 600);
    // The row is still there, but its time is over.
    machine.now = START_MS + DEDUP_MS + 5;
    let command = under(&mut machine, 0, create_folder(1, "a"));
    assert!(matches!(machine.run(command).outcome.result, Some(Made::FolderMade(_))));
    machine.assert_verified();
    machine.now += DEDUP_MS / 2;
    let mut steps = 0;
    while rows_of(&machine, Table::Dedup) > 1 {
        let before = rows_of(&machine, Table::Dedup);
        let op = create_folder(1, "no/folder");
        machine.apply(op);
        assert!(before - rows_of(&machine, Table::Dedup) <= 256, "a bounded number at a time");
        machine.assert_verified();
        steps += 1;
        assert!(steps < 10, "rows of the past stay");
    }
    let kept = Key::Dedup(request(0)).bytes();
    assert!(machine.store.get(&kept).unwrap().is_some(), "what was asked again later is kept for its own time");
}

fn forget(leased_ms: i64, ids: &[u64]) -> Op {
    let requests = ids.iter().map(|id| Bytes::copy_from_slice(&request(*id).0)).collect();
    Op::Forget(pb::Forget { requests, leased_ms })
}

#[test]
fn a_transfer_happens_once_until_it_is_forgotten() {
    let mut machine = Machine::with_users(2);
    let first = machine.delivered(deliver(&[(1, request(1)), (9, request(9))], message(1, None, &[])));
    assert_eq!(first.deliveries.len(), 1);
    assert_eq!(first.unknown_users, [user(9).to_bytes()]);
    // A week later, with one target more.
    machine.now += 7 * DEDUP_MS;
    let leased_ms = machine.now;
    let targets = [(1, request(1)), (2, request(2))];
    let again = machine.delivered(deliver_leased(leased_ms, &targets, message(1, None, &[])));
    assert_eq!(again.deliveries[0], first.deliveries[0]);
    assert_eq!(again.deliveries[1].user_id, user(2).to_bytes());
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    assert_eq!((rows_of(&machine, Table::Transfers), rows_of(&machine, Table::TransfersByExpiry)), (2, 2));
    machine.now += FORGET_AGE_MS_MIN;
    machine.done(forget(leased_ms, &[1, 77]));
    assert_eq!((rows_of(&machine, Table::Transfers), rows_of(&machine, Table::TransfersByExpiry)), (1, 1));
    machine.assert_verified();
}

/// A worker that was asleep for long: its lease has lapsed, another has delivered and settled, and the target has forgotten.
#[test]
fn what_was_forgotten_is_not_delivered_again_by_whoever_comes_late() {
    let mut machine = Machine::with_users(1);
    let leased_ms = machine.now;
    let late = deliver_leased(leased_ms, &[(1, request(1))], message(1, None, &[]));
    machine.now += DELIVER_AGE_MS_MAX;
    // Somebody else leased the same entry later.
    let second_ms = machine.now;
    machine.delivered(deliver_leased(second_ms, &[(1, request(1))], message(1, None, &[])));
    // Up to the limit the row answers, behind it nobody does.
    machine.delivered(late.clone());
    machine.now += 1;
    assert_eq!(machine.refused(late.clone()).0, Refusal::LeaseTooOld);
    machine.now = second_ms + FORGET_AGE_MS_MIN - 1;
    let (refusal, detail) = machine.refused(forget(second_ms, &[1]));
    assert!(refusal == Refusal::Conflict && detail.contains("leased_ms"), "{detail}");
    machine.now += 1;
    machine.done(forget(second_ms, &[1]));
    assert_eq!(rows_of(&machine, Table::Transfers), 0);
    for op in [late, deliver_leased(second_ms, &[(1, request(1))], message(1, None, &[]))] {
        assert_eq!(machine.refused(op).0, Refusal::LeaseTooOld);
    }
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    // Nor when the leader's clock goes back: the shard's time does not.
    machine.now = leased_ms;
    let op = deliver_leased(second_ms, &[(1, request(1))], message(1, None, &[]));
    assert_eq!(machine.refused(op).0, Refusal::LeaseTooOld);
    assert_eq!(machine.refused(forget(0, &[1])).0, Refusal::Malformed);
}

#[test]
fn a_transfer_says_where_it_came_from_and_goes_when_its_forget_never_comes() {
    let mut machine = Machine::with_users(2);
    for n in 0..600 {
        let op = deliver_leased(machine.now, &[(1, request(n))], message(n as u32, None, &[]));
        machine.delivered(op);
        machine.now += 1;
    }
    let row = machine.store.get(&Key::Transfer(request(0)).bytes()).unwrap().unwrap();
    let row = pb::TransferRecord::decode(row).unwrap();
    assert_eq!((row.source_shard, row.entry, row.expires_at_ms), (1001, 1, START_MS + TRANSFER_MS));
    machine.now = START_MS + TRANSFER_MS - 1;
    machine.apply(create_folder(1, "no/folder"));
    assert_eq!(rows_of(&machine, Table::Transfers), 600, "it is remembered for its whole time");
    machine.now += 600 + 10_000;
    let mut steps = 0;
    while rows_of(&machine, Table::Transfers) > 0 {
        let before = rows_of(&machine, Table::Transfers);
        machine.apply(create_folder(1, "no/folder"));
        assert!(before - rows_of(&machine, Table::Transfers) <= 256, "a bounded number at a time");
        machine.assert_verified();
        steps += 1;
        assert!(steps < 10, "rows of the past stay");
    }
    assert_eq!(rows_of(&machine, Table::TransfersByExpiry), 0);
}

/// P-6, where the source was cut off for longer than its transfers are remembered.
#[test]
fn nobody_is_delivered_to_twice_because_a_row_expired() {
    let mut machine = Machine::with_users(2);
    let mut op = deliver(&[(1, request(1))], message(1, None, &[]));
    machine.delivered(op.clone());
    machine.now += TRANSFER_MS + 20_000;
    let (now, both) = (machine.now, [(1, request(1)), (2, request(2))]);
    op = deliver_leased(now, &both, message(1, None, &[]));
    if let Op::Deliver(deliver) = &mut op {
        // The first since the entry was made; of the other his shard has said not long ago that he was full.
        deliver.targets[0].undelivered_ms = START_MS;
        deliver.targets[1].undelivered_ms = now - UNDELIVERED_MS_MAX;
    }
    let made = machine.delivered(op);
    assert_eq!(rows_of(&machine, Table::Transfers), 1, "the first row has expired");
    assert_eq!(made.too_old, [user(1).to_bytes()]);
    assert_eq!(made.deliveries.len(), 1);
    assert_eq!((machine.messages(1, INBOX).len(), machine.messages(2, INBOX).len()), (1, 1));
    machine.assert_verified();
}

#[test]
fn a_transfer_request_belongs_to_one_user() {
    let mut machine = Machine::with_users(2);
    machine.delivered(deliver(&[(1, request(1))], message(1, None, &[])));
    let (refusal, _) = machine.refused(deliver(&[(2, request(1))], message(1, None, &[])));
    assert_eq!(refusal, Refusal::Conflict);
    let (refusal, _) = machine.refused(deliver(&[(1, request(5)), (2, request(5))], message(1, None, &[])));
    assert_eq!(refusal, Refusal::Malformed);
}

#[test]
fn a_transfer_may_name_a_body_that_the_shard_has() {
    let mut machine = Machine::with_users(2);
    machine.accepted(accept(&[1], message(1, None, &[])));
    let mut without_text = message(1, None, &[]);
    without_text.body.as_mut().unwrap().text = Bytes::new();
    machine.delivered(deliver(&[(2, request(2))], without_text.clone()));
    assert_eq!(rows_of(&machine, Table::Bodies), 1);
    machine.assert_verified();
    without_text.body.as_mut().unwrap().body_id = Bytes::from_static(&[1; 16]);
    let (refusal, detail) = machine.refused(deliver(&[(2, request(3))], without_text));
    assert_eq!(refusal, Refusal::Malformed);
    assert!(detail.contains("body"), "{detail}");
}
