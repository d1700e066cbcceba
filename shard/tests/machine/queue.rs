//! The receiving side of the queue, and the error queue.

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::limit::{ENTRY_AGE_MS_MAX, REPLY_BYTES_MAX, RETRY_MS_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Missing, Refusal, Settlement};
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::queue::entry;
use postrider_shard::store::{Direction, Reader};
use prost::Message;

use crate::harness::{Machine, START_MS, accept, message, user};

pub(crate) fn settle(entry: u64, results: &[(u8, Settlement)], retry_ms: u32) -> Op {
    let results = results
        .iter()
        .map(|(n, settlement)| pb::RecipientResult {
            user_id: user(*n).to_bytes(),
            settlement: (*settlement).into(),
            reason: "the region is away".to_owned(),
        })
        .collect();
    Op::Settle(pb::Settle { entry, results, retry_ms })
}

fn page(machine: &Machine, due_until_ms: i64, limit: u32, after: Option<pb::QueueCursor>) -> pb::QueuePage {
    match machine.ask(Ask::ListQueue(pb::ListQueue { due_until_ms, limit, after })) {
        Answer::Queue(page) => page,
        other => panic!("{other:?}"),
    }
}

fn due(machine: &Machine, due_until_ms: i64) -> Vec<u64> {
    page(machine, due_until_ms, 0, None).entries.into_iter().map(|entry| entry.entry).collect()
}

fn in_queue(machine: &Machine, entry: u64) -> Option<pb::QueueEntry> {
    match machine.ask(Ask::GetQueueEntry(pb::GetQueueEntry { entry })) {
        Answer::QueueEntry(found) => Some(found),
        Answer::NotFound(missing) => {
            assert_eq!(missing.missing(), Missing::Entry);
            None
        }
        other => panic!("{other:?}"),
    }
}

fn bodies(machine: &Machine) -> usize {
    machine.store.scan(&KeyRange::table(Table::Bodies), Direction::Forward).count()
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

    let command =
        machine.command(settle(accepted.entry, &[(8, Settlement::Delivered), (9, Settlement::Deferred)], 60_000));
    let later = machine.now + 60_000;
    assert_eq!(machine.run(command).queue_due, Some(later));
    let (record, _) = entry(&machine.store, EntryId(accepted.entry)).unwrap().unwrap();
    assert_eq!((record.attempts, record.pending.len(), record.pending[0].attempts), (1, 1, 1));
    assert_eq!(record.pending[0].reason, "the region is away");
    assert!(due(&machine, later - 1).is_empty());
    assert_eq!(due(&machine, later), [accepted.entry]);
    machine.assert_verified();

    // A result that comes again, for somebody who is done with, means nothing.
    machine.done(settle(accepted.entry, &[(8, Settlement::Deferred)], 0));
    machine.done(settle(accepted.entry, &[(9, Settlement::Delivered)], 0));
    assert_eq!(entry(&machine.store, EntryId(accepted.entry)).unwrap(), None);
    assert_eq!(in_queue(&machine, accepted.entry), None);
    assert_eq!(machine.refused(settle(accepted.entry, &[], 0)).0, Refusal::UnknownEntry);
    // The body stays for the message in the mailbox.
    assert_eq!(bodies(&machine), 1);
    machine.assert_verified();
}

#[test]
fn a_body_that_only_waits_goes_with_its_entry() {
    let mut machine = Machine::with_users(1);
    let entry = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    machine.assert_verified();
    machine.done(settle(entry, &[(8, Settlement::Delivered)], 0));
    assert_eq!(bodies(&machine), 0);
    machine.assert_verified();
}

/// P-1: it was acknowledged.
#[test]
fn whoever_is_given_up_is_kept_with_the_message() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[7, 8, 9], message(1, None, &[]))).entry;
    machine.now += 5;
    machine.done(settle(id, &[(8, Settlement::Failed)], 0));
    let found = in_queue(&machine, id).unwrap();
    assert_eq!(found.waiting.unwrap().pending.len(), 2);
    let failed = found.failed.unwrap();
    assert_eq!((failed.entry, failed.created_ms, failed.mail_from.as_str()), (id, START_MS, "sender@far.example"));
    let body = message(1, None, &[]).body.unwrap();
    assert_eq!(failed.message.unwrap().body.unwrap().body_id, body.body_id);
    let [given_up] = &failed.recipients[..] else { panic!("one was given up") };
    assert_eq!((given_up.user_id.clone(), given_up.address.as_str()), (user(8).to_bytes(), "user8@test.example"));
    assert_eq!((given_up.failed_ms, given_up.attempts), (START_MS + 5, 1));
    assert_eq!(given_up.reason, "the region is away");
    machine.assert_verified();
    // The others leave the queue: what was given up stays, and its body with it.
    machine.done(settle(id, &[(9, Settlement::Failed)], 0));
    machine.done(settle(id, &[(7, Settlement::Delivered)], 0));
    let found = in_queue(&machine, id).unwrap();
    assert_eq!((found.waiting, found.failed.unwrap().recipients.len()), (None, 2));
    assert!(due(&machine, i64::MAX).is_empty());
    assert_eq!(bodies(&machine), 1);
    let kept = machine.store.get(&Key::Body(postrider_api::id::BodyId::try_from(&body.body_id).unwrap()).bytes());
    assert_eq!(kept.unwrap().unwrap(), body.text);
    machine.assert_verified();
}

#[test]
fn the_error_queue_takes_over_the_reference_of_an_entry_that_fails_altogether() {
    let mut machine = Machine::with_users(1);
    for n in 0..5 {
        let id = machine.accepted(accept(&[8], message(n, None, &[]))).entry;
        machine.done(settle(id, &[(8, Settlement::Failed)], 0));
        machine.assert_verified();
    }
    assert_eq!(bodies(&machine), 5);
    let Answer::ShardStats(stats) = machine.ask(Ask::GetShardStats(pb::GetShardStats {})) else { panic!("stats") };
    assert_eq!(stats.failed_entries, 5);
    let list = |limit, after_entry| match machine.ask(Ask::ListFailed(pb::ListFailed { limit, after_entry })) {
        Answer::Failed(page) => (page.entries.iter().map(|entry| entry.entry).collect::<Vec<_>>(), page.more),
        other => panic!("{other:?}"),
    };
    assert_eq!(list(2, 0), (vec![1, 2], true));
    assert_eq!(list(2, 2), (vec![3, 4], true));
    assert_eq!(list(2, 4), (vec![5], false));
    assert_eq!(list(0, 0), (vec![1, 2, 3, 4, 5], false));
}

#[test]
fn the_shards_own_time_gives_up_and_never_what_is_no_fault_of_the_recipient() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[6, 7, 8, 9], message(1, None, &[]))).entry;
    let all = |settlement| [6, 7, 8, 9].map(|n| (n, settlement));
    machine.now += ENTRY_AGE_MS_MAX;
    machine.done(settle(id, &all(Settlement::Deferred), 0));
    assert_eq!(in_queue(&machine, id).unwrap().failed, None, "five days are not over");
    machine.now += 1;
    machine.done(settle(id, &[(6, Settlement::Held), (7, Settlement::Full), (8, Settlement::Deferred)], 0));
    let found = in_queue(&machine, id).unwrap();
    let waiting: Vec<Bytes> = found.waiting.unwrap().pending.iter().map(|pending| pending.user_id.clone()).collect();
    assert_eq!(waiting, [6, 7, 9].map(|n| user(n).to_bytes()), "nothing was said of the last");
    let [given_up] = &found.failed.unwrap().recipients[..] else { panic!("one was given up") };
    assert_eq!(given_up.user_id, user(8).to_bytes());
    assert!(
        given_up.reason.contains("5 days") && given_up.reason.contains("the region is away"),
        "{}",
        given_up.reason
    );
    machine.assert_verified();
    // Months later they still wait.
    machine.now += 100 * ENTRY_AGE_MS_MAX;
    machine.done(settle(id, &[(6, Settlement::Held), (7, Settlement::Full)], 0));
    assert_eq!(in_queue(&machine, id).unwrap().waiting.unwrap().pending.len(), 3);
}

#[test]
fn that_a_mailbox_is_full_says_that_it_was_not_delivered() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[7, 8, 9], message(1, None, &[]))).entry;
    machine.now += 1000;
    machine.done(settle(id, &[(7, Settlement::Held), (8, Settlement::Full), (9, Settlement::Deferred)], 0));
    let pending = in_queue(&machine, id).unwrap().waiting.unwrap().pending;
    let since: Vec<i64> = pending.iter().map(|pending| pending.undelivered_ms).collect();
    assert_eq!(since, [START_MS, START_MS + 1000, START_MS]);
}

#[test]
fn an_entry_is_tried_again_in_time() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    for (retry_ms, wanted) in [(0, 0), (5, 5), (RETRY_MS_MAX, RETRY_MS_MAX), (u32::MAX, RETRY_MS_MAX)] {
        machine.now += 10;
        machine.done(settle(id, &[(8, Settlement::Deferred)], retry_ms));
        let record = in_queue(&machine, id).unwrap().waiting.unwrap();
        assert_eq!(record.due_ms, machine.now + i64::from(wanted));
    }
}

#[test]
fn the_longest_due_comes_first_and_pages_go_on() {
    let mut machine = Machine::with_users(1);
    let entries: Vec<u64> = (0..5).map(|n| machine.accepted(accept(&[8], message(n, None, &[]))).entry).collect();
    assert_eq!(entries, [1, 2, 3, 4, 5], "numbers are not used again");
    machine.done(settle(2, &[(8, Settlement::Deferred)], 10));
    assert_eq!(due(&machine, i64::MAX), [1, 3, 4, 5, 2]);
    assert_eq!(due(&machine, machine.now), [1, 3, 4, 5]);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = page(&machine, i64::MAX, 2, after);
        let last = page.entries.last().unwrap();
        after = Some(pb::QueueCursor { due_ms: last.due_ms, entry: last.entry });
        seen.extend(page.entries.iter().map(|entry| entry.entry));
        // The last of the page is settled while somebody reads: the place in the queue stays.
        if seen.len() == 2 {
            machine.done(settle(3, &[(8, Settlement::Delivered)], 0));
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [1, 3, 4, 5, 2]);
}

#[test]
fn a_page_of_large_entries_ends_early_and_goes_on() {
    let mut machine = Machine::with_users(1);
    for n in 0..20 {
        let mut large = message(n, None, &[]);
        large.parts[0].filename = "x".repeat(600_000);
        let id = machine.accepted(accept(&[8, 9], large)).entry;
        machine.done(settle(id, &[(9, Settlement::Failed)], 0));
    }
    let first = page(&machine, i64::MAX, 200, None);
    assert!(first.more && first.entries.len() < 20, "{}", first.entries.len());
    assert!(first.encoded_len() < REPLY_BYTES_MAX);
    let last = first.entries.last().unwrap();
    let after = Some(pb::QueueCursor { due_ms: last.due_ms, entry: last.entry });
    let second = page(&machine, i64::MAX, 200, after);
    assert_eq!((first.entries.len() + second.entries.len(), second.more), (20, false));
    let failed = machine.ask(Ask::ListFailed(pb::ListFailed { limit: 200, after_entry: 0 }));
    let Answer::Failed(failed) = failed else { panic!("a page was wanted") };
    assert!(failed.more && failed.entries.len() < 20 && failed.encoded_len() < REPLY_BYTES_MAX);
}

#[test]
fn a_settlement_says_what_it_is() {
    let mut machine = Machine::with_users(1);
    let entry = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Unspecified)], 0)).0, Refusal::Malformed);
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Deferred); 101], 0)).0, Refusal::Malformed);
}
