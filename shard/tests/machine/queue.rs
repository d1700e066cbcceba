//! The receiving side of the queue.

use postrider_api::id::EntryId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal, Settlement};
use postrider_shard::key::{KeyRange, Table};
use postrider_shard::queue::entry;
use postrider_shard::store::{Direction, Reader};

use crate::harness::{Machine, accept, message, user};

fn settle(entry: u64, results: &[(u8, Settlement)], due_ms: i64) -> Op {
    let results = results
        .iter()
        .map(|(n, settlement)| pb::RecipientResult {
            user_id: user(*n).to_bytes(),
            settlement: (*settlement).into(),
            reason: "the region is away".to_owned(),
        })
        .collect();
    Op::Settle(pb::Settle { entry, results, due_ms })
}

fn due(machine: &Machine, due_until_ms: i64, limit: u32, after_entry: u64) -> Vec<u64> {
    match machine.ask(Ask::ListQueue(pb::ListQueue { due_until_ms, limit, after_entry })) {
        Answer::Queue(page) => page.entries.into_iter().map(|entry| entry.entry).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_is_due_at_once_and_goes_with_its_last_recipient() {
    let mut machine = Machine::with_users(1);
    let command = machine.command(accept(&[1, 8, 9], message(1, None, &[])));
    let applied = machine.run(command);
    assert_eq!(applied.queue_due, Some(machine.now));
    let Some(pb::outcome::Result::Accepted(accepted)) = applied.outcome.result else { panic!("accepted") };
    let (record, body) = entry(&machine.store, EntryId(accepted.entry)).unwrap().unwrap();
    assert_eq!(body.text, message(1, None, &[]).body.unwrap().text);
    assert_eq!(record.pending.len(), 2);
    assert!(record.pending.iter().all(|pending| !pending.reason.is_empty()), "it is said why it waits");

    let later = machine.now + 60_000;
    let command =
        machine.command(settle(accepted.entry, &[(8, Settlement::Delivered), (9, Settlement::Deferred)], later));
    assert_eq!(machine.run(command).queue_due, Some(later));
    let (record, _) = entry(&machine.store, EntryId(accepted.entry)).unwrap().unwrap();
    assert_eq!((record.attempts, record.pending.len(), record.pending[0].attempts), (1, 1, 1));
    assert_eq!(record.pending[0].reason, "the region is away");
    assert!(due(&machine, later - 1, 10, 0).is_empty());
    assert_eq!(due(&machine, later, 10, 0), [accepted.entry]);
    machine.assert_verified();

    // A result that comes again, for somebody who is done with, means nothing.
    machine.done(settle(accepted.entry, &[(8, Settlement::Deferred)], later));
    machine.done(settle(accepted.entry, &[(9, Settlement::Failed)], later));
    assert_eq!(entry(&machine.store, EntryId(accepted.entry)).unwrap(), None);
    assert_eq!(machine.refused(settle(accepted.entry, &[], later)).0, Refusal::UnknownEntry);
    // The body stays for the message in the mailbox.
    assert_eq!(machine.store.scan(&KeyRange::table(Table::Bodies), Direction::Forward).count(), 1);
    machine.assert_verified();
}

#[test]
fn a_body_that_only_waits_goes_with_its_entry() {
    let mut machine = Machine::with_users(1);
    let entry = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    machine.assert_verified();
    machine.done(settle(entry, &[(8, Settlement::Delivered)], 0));
    assert_eq!(machine.store.scan(&KeyRange::table(Table::Bodies), Direction::Forward).count(), 0);
    machine.assert_verified();
}

#[test]
fn the_longest_due_comes_first_and_pages_go_on() {
    let mut machine = Machine::with_users(1);
    let entries: Vec<u64> = (0..5).map(|n| machine.accepted(accept(&[8], message(n, None, &[]))).entry).collect();
    assert_eq!(entries, [1, 2, 3, 4, 5], "numbers are not used again");
    machine.done(settle(2, &[(8, Settlement::Deferred)], machine.now + 10));
    assert_eq!(due(&machine, i64::MAX, 10, 0), [1, 3, 4, 5, 2]);
    assert_eq!(due(&machine, i64::MAX, 2, 0), [1, 3]);
    assert_eq!(due(&machine, i64::MAX, 2, 3), [4, 5]);
    assert_eq!(due(&machine, i64::MAX, 2, 5), [2]);
    assert_eq!(due(&machine, machine.now, 10, 0), [1, 3, 4, 5]);
    // Behind an entry that has gone: from the beginning.
    assert_eq!(due(&machine, i64::MAX, 2, 99), [1, 3]);
}

#[test]
fn a_settlement_says_what_it_is() {
    let mut machine = Machine::with_users(1);
    let entry = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Unspecified)], 0)).0, Refusal::Malformed);
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Deferred); 101], 0)).0, Refusal::Malformed);
}
