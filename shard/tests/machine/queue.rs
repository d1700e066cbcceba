//! The receiving side of the queue, and the error queue.

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::limit::{
    ADDRESS_BYTES_MAX, ENTRY_AGE_MS_MAX, FULL_AGE_MS_MAX, QUEUE_RECIPIENT_BYTES_MAX, QUEUE_RECIPIENT_ENTRIES_MAX,
    QUEUE_SENDER_BYTES_MAX, REPLY_BYTES_MAX, RETRY_MS_MAX,
};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Missing, QueueAction, Refusal, Settlement};
use postrider_shard::Broken;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::queue::leased_entry;
use postrider_shard::store::{Direction, MemoryStore, Reader};
use prost::Message;

use crate::harness::{Machine, START_MS, accept, message, user};

/// What a lease will hand out in time: everybody who is not parked.
fn entry(store: &MemoryStore, entry: EntryId) -> Result<Option<(pb::QueueRecord, pb::BodyRecord)>, Broken> {
    leased_entry(store, entry, i64::MAX - 1)
}

pub(crate) fn settle(entry: u64, results: &[(u8, Settlement)], retry_ms: u32) -> Op {
    let results = results
        .iter()
        .map(|(n, settlement)| pb::RecipientResult {
            user_id: user(*n).to_bytes(),
            settlement: (*settlement).into(),
            reason: "the region is away".to_owned(),
            shard: 0,
            ..Default::default()
        })
        .collect();
    Op::Settle(pb::Settle { entry, results, retry_ms, ..Default::default() })
}

/// The same of recipients who live in `shard`.
pub(crate) fn settle_of(shard: u32, entry: u64, results: &[(u8, Settlement)], retry_ms: u32) -> Op {
    let Op::Settle(mut settle) = settle(entry, results, retry_ms) else { unreachable!("as it was made") };
    settle.results.iter_mut().for_each(|result| result.shard = shard);
    Op::Settle(settle)
}

pub(crate) fn manage(entry: u64, users: &[u8], action: QueueAction, failed: bool) -> Op {
    Op::ManageQueue(pb::ManageQueue {
        entry,
        user_ids: users.iter().map(|n| user(*n).to_bytes()).collect(),
        action: action.into(),
        failed,
        by: "ops".to_owned(),
        why: "the ticket says so".to_owned(),
        ..Default::default()
    })
}

fn page(machine: &Machine, limit: u32, after_entry: u64) -> pb::QueuePage {
    match machine.ask(Ask::ListQueue(pb::ListQueue { limit, after_entry, ..Default::default() })) {
        Answer::Queue(page) => page,
        other => panic!("{other:?}"),
    }
}

/// The entries that are due until then, the longest due first: what a lease looks at.
pub(crate) fn due(machine: &Machine, due_until_ms: i64) -> Vec<u64> {
    let keys = machine.store.scan(&KeyRange::due(0, due_until_ms), Direction::Forward);
    keys.map(|found| match Key::decode(found.unwrap().0.as_ref()).unwrap() {
        Key::QueueDue(_, entry) => entry.0,
        other => panic!("{other:?}"),
    })
    .collect()
}

pub(crate) fn in_queue(machine: &Machine, entry: u64) -> Option<pb::QueueEntry> {
    match machine.ask(Ask::GetQueueEntry(pb::GetQueueEntry { entry, with_body: false })) {
        Answer::QueueEntry(found) => Some(found),
        Answer::NotFound(missing) => {
            assert_eq!(missing.missing(), Missing::Entry);
            None
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn bodies(machine: &Machine) -> usize {
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
    // A mailbox that stays too full has its end too; of whom nothing is known waits for ever.
    machine.now = START_MS + FULL_AGE_MS_MAX + 1;
    machine.done(settle(id, &[(6, Settlement::Held), (7, Settlement::Full)], 0));
    let found = in_queue(&machine, id).unwrap();
    assert_eq!(found.waiting.unwrap().pending.len(), 2);
    assert!(found.failed.unwrap().recipients[1].reason.contains("7 days"));
    machine.now += 100 * ENTRY_AGE_MS_MAX;
    machine.done(settle(id, &[(6, Settlement::Held)], 0));
    assert_eq!(in_queue(&machine, id).unwrap().waiting.unwrap().pending.len(), 2);
    machine.assert_verified();
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
fn the_longest_due_comes_first_and_pages_go_by_number() {
    let mut machine = Machine::with_users(1);
    let entries: Vec<u64> = (0..5).map(|n| machine.accepted(accept(&[8], message(n, None, &[]))).entry).collect();
    assert_eq!(entries, [1, 2, 3, 4, 5], "numbers are not used again");
    machine.done(settle(2, &[(8, Settlement::Deferred)], 10));
    assert_eq!(due(&machine, i64::MAX), [1, 3, 4, 5, 2]);
    assert_eq!(due(&machine, machine.now), [1, 3, 4, 5]);
    let mut seen = Vec::new();
    loop {
        let page = page(&machine, 2, seen.last().copied().unwrap_or(0));
        seen.extend(page.entries.iter().map(|entry| entry.entry));
        // The last of the page is settled while somebody reads: the place in the queue stays.
        if seen.len() == 2 {
            machine.done(settle(2, &[(8, Settlement::Delivered)], 0));
        }
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
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
    let first = page(&machine, 200, 0);
    assert!(first.more && first.entries.len() < 20, "{}", first.entries.len());
    assert!(first.encoded_len() < REPLY_BYTES_MAX);
    let second = page(&machine, 200, first.entries.last().unwrap().entry);
    assert_eq!((first.entries.len() + second.entries.len(), second.more), (20, false));
    let failed = machine.ask(Ask::ListFailed(pb::ListFailed { limit: 200, after_entry: 0 }));
    let Answer::Failed(failed) = failed else { panic!("a page was wanted") };
    assert!(failed.more && failed.entries.len() < 20 && failed.encoded_len() < REPLY_BYTES_MAX);
}

/// What a thread that carries heartbeats has to write does not grow with what strangers put into a message.
#[test]
fn a_list_has_of_a_message_what_an_operator_looks_for() {
    let mut machine = Machine::with_users(1);
    let whole = pb::NewMessage {
        message_id_hash: Bytes::from(vec![7; 16]),
        reference_hashes: vec![Bytes::from(vec![8; 16])],
        ..message(1, None, &[])
    };
    let id = machine.accepted(accept(&[8, 9], whole.clone())).entry;
    machine.done(settle(id, &[(9, Settlement::Failed)], 0));
    let found = in_queue(&machine, id).unwrap();
    let failed = machine.ask(Ask::ListFailed(pb::ListFailed { limit: 1, after_entry: 0 }));
    let Answer::Failed(failed) = failed else { panic!("a page was wanted") };
    let (mut waiting, mut given_up) = (found.waiting.unwrap(), found.failed.unwrap());
    for message in [&mut waiting.message, &mut given_up.message] {
        let message = message.as_mut().unwrap();
        assert_eq!((&message.parts, &message.pieces), (&whole.parts, &whole.pieces), "an entry has all of it");
        assert_eq!((&message.envelope, &message.reference_hashes), (&whole.envelope, &whole.reference_hashes));
        assert!(!message.parts.is_empty() && message.body.is_some());
        *message = pb::NewMessage {
            size: whole.size,
            has_attachments: whole.has_attachments,
            message_id_hash: whole.message_id_hash.clone(),
            body: message.body.take(),
            ..Default::default()
        };
    }
    assert_eq!(page(&machine, 1, 0).entries, [waiting]);
    assert_eq!(failed.entries, [given_up]);
}

#[test]
fn a_page_of_many_recipients_is_a_megabyte_at_most() {
    const PAGE_BYTES_MAX: usize = 1024 * 1024;
    const ENTRIES: u32 = 100;
    let all: Vec<u8> = (100..200).collect();
    let mut machine = Machine::with_users(1);
    for n in 0..ENTRIES {
        let Op::Accept(mut many) = accept(&all, message(n, None, &[])) else { unreachable!("as it was made") };
        many.recipients.iter_mut().for_each(|recipient| recipient.address = "x".repeat(ADDRESS_BYTES_MAX));
        machine.accepted(Op::Accept(many));
    }
    let mut seen = 0;
    let mut after_entry = 0;
    loop {
        let page = page(&machine, 200, after_entry);
        assert!(page.encoded_len() <= PAGE_BYTES_MAX + 100_000, "{} bytes", page.encoded_len());
        seen += page.entries.len() as u32;
        after_entry = page.entries.last().unwrap().entry;
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, ENTRIES);
}

#[test]
fn a_settlement_says_what_it_is() {
    let mut machine = Machine::with_users(1);
    let entry = machine.accepted(accept(&[8], message(1, None, &[]))).entry;
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Unspecified)], 0)).0, Refusal::Malformed);
    assert_eq!(machine.refused(settle(entry, &[(8, Settlement::Deferred); 101], 0)).0, Refusal::Malformed);
}

/// Point 9 of "bounded queues": what cannot be delivered does not compete with what can.
#[test]
fn of_those_who_wait_for_one_mailbox_only_the_first_is_tried() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<u64> = (0..20).map(|n| machine.accepted(accept(&[8], message(n, None, &[]))).entry).collect();
    for id in &ids {
        machine.done(settle(*id, &[(8, Settlement::Full)], 60_000));
    }
    machine.assert_verified();
    assert_eq!(due(&machine, i64::MAX), [ids[0]], "the others are parked");
    assert_eq!(page(&machine, 0, 0).entries.len(), 20, "and wait all the same");
    // Whoever else is in an entry with a parked recipient is tried, and he is not.
    let both = machine.accepted(accept(&[8, 9], message(30, None, &[]))).entry;
    machine.done(settle(both, &[(8, Settlement::Full), (9, Settlement::Deferred)], 0));
    let (leased, _) = entry(&machine.store, EntryId(both)).unwrap().unwrap();
    assert_eq!(leased.pending.iter().map(|p| p.user_id.clone()).collect::<Vec<_>>(), [user(9).to_bytes()]);
    assert_eq!(entry(&machine.store, EntryId(ids[1])).unwrap(), None);
    // Still too full.
    machine.now += 60_000;
    machine.done(settle(ids[0], &[(8, Settlement::Full)], 60_000));
    assert_eq!(due(&machine, i64::MAX), [both, ids[0]]);
    // There is room: the next ones follow, in order, and each that gets through brings another.
    machine.now += 60_000;
    machine.done(settle(ids[0], &[(8, Settlement::Delivered)], 0));
    assert_eq!(due(&machine, i64::MAX)[1..], ids[1..17], "the first sixteen");
    for id in &ids[1..] {
        assert!(due(&machine, machine.now).contains(id), "entry {id} is due when those before it are gone");
        machine.done(settle(*id, &[(8, Settlement::Delivered)], 0));
    }
    machine.assert_verified();
    let (leased, _) = entry(&machine.store, EntryId(both)).unwrap().unwrap();
    assert_eq!(leased.pending.len(), 2, "he is tried again in the entry with the other");
}

#[test]
fn whoever_leaves_a_line_for_any_reason_wakes_the_next() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<u64> = (0..5).map(|n| machine.accepted(accept(&[8], message(n, None, &[]))).entry).collect();
    for id in &ids {
        machine.done(settle_of(1001, *id, &[(8, Settlement::Held)], 60_000));
    }
    assert_eq!(due(&machine, i64::MAX), [ids[0]]);
    machine.done(settle(ids[0], &[(8, Settlement::Failed)], 0));
    assert_eq!(due(&machine, machine.now), ids[1..], "all that are left are within the first sixteen");
    machine.assert_verified();
    for id in &ids[1..] {
        machine.done(settle_of(1001, *id, &[(8, Settlement::Held)], 60_000));
    }
    assert_eq!(due(&machine, i64::MAX), [ids[1]]);
    machine.done(manage(ids[1], &[], QueueAction::Drop, false));
    assert!(due(&machine, machine.now).contains(&ids[2]));
    machine.done(settle_of(1001, ids[2], &[(8, Settlement::Held)], 60_000));
    // Another line, another wait.
    machine.done(settle(ids[2], &[(8, Settlement::Full)], 60_000));
    assert!(due(&machine, machine.now).contains(&ids[3]));
    machine.assert_verified();
    // Somebody else of the same shard got through: it answers again.
    let other = machine.accepted(accept(&[9], message(9, None, &[]))).entry;
    for id in &ids[3..] {
        machine.done(settle_of(1001, *id, &[(8, Settlement::Held)], 60_000));
    }
    assert!(!due(&machine, machine.now).contains(&ids[4]));
    machine.done(settle_of(1001, other, &[(9, Settlement::Delivered)], 0));
    assert!(due(&machine, machine.now).contains(&ids[4]));
    machine.assert_verified();
}

fn sized(n: u32, size: u64) -> pb::NewMessage {
    pb::NewMessage { size, ..message(n, None, &[]) }
}

/// P-13: whoever wants to fill a queue is told no before anything is stored.
#[test]
fn what_waits_for_one_recipient_is_bounded() {
    let mut machine = Machine::with_users(1);
    let part = 32 * 1024 * 1024;
    for n in 0..QUEUE_RECIPIENT_BYTES_MAX / part {
        machine.accepted(accept(&[1, 8], sized(n as u32, part)));
    }
    let before = machine.store.clone();
    let command = machine.command(accept(&[1, 8], sized(1000, part)));
    let Some(pb::outcome::Result::Refused(refused)) = machine.run(command).outcome.result else { panic!("refused") };
    assert_eq!(refused.refusal(), Refusal::QueueFull);
    assert_eq!(refused.users, [user(8).to_bytes()], "it is said whose");
    assert_eq!(machine.store.scan(&KeyRange::table(Table::Queue), Direction::Forward).count(), 32);
    assert_eq!(bodies(&machine), before.scan(&KeyRange::table(Table::Bodies), Direction::Forward).count());
    machine.accepted(accept(&[1, 9], sized(1001, part)));
    // He has got one: one more fits.
    machine.done(settle(1, &[(8, Settlement::Delivered)], 0));
    machine.accepted(accept(&[1, 8], sized(1002, part)));
    machine.assert_verified();
}

#[test]
fn entries_are_counted_as_well_as_bytes() {
    let mut machine = Machine::with_users(1);
    for n in 0..QUEUE_RECIPIENT_ENTRIES_MAX {
        machine.accepted(accept(&[8], message(n as u32, None, &[])));
    }
    let mut more = machine.command(accept(&[8], message(1, None, &[])));
    let Some(Op::Accept(accept)) = &mut more.op else { unreachable!("as it was made") };
    accept.mail_from.clear();
    let Some(pb::outcome::Result::Refused(refused)) = machine.run(more).outcome.result else { panic!("refused") };
    assert_eq!(refused.refusal(), Refusal::QueueFull, "whoever sends it");
    let asked = machine.ask(Ask::CheckRecipient(pb::CheckRecipient { user_id: user(8).to_bytes(), size: 1 }));
    let Answer::Recipient(state) = asked else { panic!("{asked:?}") };
    assert!(state.queue_full);
}

#[test]
fn what_waits_from_one_sender_is_bounded_and_the_null_sender_is_everybody() {
    let mut machine = Machine::with_users(1);
    let part = 32 * 1024 * 1024;
    for n in 0..QUEUE_SENDER_BYTES_MAX / part {
        machine.accepted(accept(&[10 + (n % 200) as u8], sized(n as u32, part)));
    }
    let (refusal, detail) = machine.refused(accept(&[250], sized(1000, part)));
    assert_eq!(refusal, Refusal::QueueFull);
    assert!(detail.contains("mail_from"), "{detail}");
    let Op::Accept(mut null) = accept(&[250], sized(1001, part)) else { unreachable!("as it was made") };
    null.mail_from.clear();
    machine.accepted(Op::Accept(null));
    machine.assert_verified();
}

#[test]
fn an_operator_retries_gives_up_and_drops() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[7, 8, 9], message(1, None, &[]))).entry;
    machine.done(settle(id, &[(7, Settlement::Deferred), (8, Settlement::Full), (9, Settlement::Deferred)], 60_000));
    machine.done(manage(id, &[7], QueueAction::Retry, false));
    assert_eq!(due(&machine, machine.now), [id]);
    machine.done(manage(id, &[8], QueueAction::GiveUp, false));
    let found = in_queue(&machine, id).unwrap();
    let [given_up] = &found.failed.unwrap().recipients[..] else { panic!("one") };
    assert_eq!(given_up.reason, "given up by ops: the ticket says so");
    machine.assert_verified();
    // Tried again under the same number: whoever had it already does not get it twice (P-6).
    machine.now += ENTRY_AGE_MS_MAX * 2;
    machine.done(manage(id, &[8], QueueAction::Retry, true));
    let found = in_queue(&machine, id).unwrap();
    assert_eq!((found.waiting.as_ref().unwrap().pending.len(), found.failed), (3, None));
    machine.assert_verified();
    // With a new beginning: it is not given up at once for its age.
    machine.done(settle(id, &[(8, Settlement::Deferred)], 0));
    assert_eq!(in_queue(&machine, id).unwrap().waiting.unwrap().pending.len(), 3);
    machine.done(settle(id, &[(7, Settlement::Failed), (8, Settlement::Failed), (9, Settlement::Failed)], 0));
    assert_eq!(in_queue(&machine, id).unwrap().waiting, None);
    machine.assert_verified();
    machine.done(manage(id, &[9], QueueAction::Retry, true));
    machine.assert_verified();
    assert_eq!(bodies(&machine), 1);
    machine.done(manage(id, &[], QueueAction::Drop, true));
    machine.assert_verified();
    machine.done(manage(id, &[], QueueAction::Drop, false));
    assert_eq!((in_queue(&machine, id), bodies(&machine)), (None, 0));
    machine.assert_verified();
    assert_eq!(machine.refused(manage(id, &[], QueueAction::Drop, false)).0, Refusal::UnknownEntry);
    assert_eq!(machine.refused(manage(id, &[], QueueAction::GiveUp, true)).0, Refusal::Malformed);
}
