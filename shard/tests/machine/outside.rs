//! Mail to the outside: who may be sent to, in which order, what is told of him, and what is taken back.

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::keyword::Keywords;
use postrider_api::limit::{
    CANCEL_MARGIN_MS, DELAY_WARNING_MS, DESTINATION_RETRY_MS_MAX, OUTGOING_AGE_GRACE_MS, OUTGOING_AGE_MS_MAX,
    OUTGOING_RETRY_MS_MAX, OUTGOING_RETRY_MS_MIN, QUOTA_OVERRUN_BYTES_MAX, SEND_LATER_MS_MAX,
};
use postrider_api::notify::Notify;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, QueueAction, Refusal, Settlement};
use postrider_shard::queue::leased_entry;
use postrider_shard::{DRAFTS, INBOX, SENT, TRASH};

use crate::blobs::{pin, with_blobs};
use crate::harness::{Machine, accept, create_account, delete, message, recipients, request, update, user};
use crate::queue::{bodies, due, in_queue};

const SENDER: &str = "user1@test.example";

pub(crate) fn outside(address: &str) -> pb::Recipient {
    pb::Recipient { address: address.to_owned(), ..Default::default() }
}

/// From user 1 to addresses outside.
fn send_op(to: &[&str], n: u32) -> pb::Send {
    pb::Send {
        user_id: user(1).to_bytes(),
        mail_from: SENDER.to_owned(),
        recipients: to.iter().map(|address| outside(address)).collect(),
        message: Some(message(n, None, &[])),
        ..Default::default()
    }
}

fn later(to: &[&str], n: u32, not_before_ms: i64) -> Op {
    let options = Some(pb::SendOptions { not_before_ms, ..Default::default() });
    Op::Send(pb::Send { options, ..send_op(to, n) })
}

fn made(machine: &mut Machine, op: Op) -> pb::Sent {
    match machine.apply(op) {
        Made::Sent(sent) => sent,
        other => panic!("{other:?}"),
    }
}

/// The entry of a message to addresses outside.
pub(crate) fn sent(machine: &mut Machine, to: &[&str], n: u32) -> u64 {
    made(machine, Op::Send(send_op(to, n))).entry
}

fn result(address: &str, settlement: Settlement) -> pb::RecipientResult {
    pb::RecipientResult {
        address: address.to_owned(),
        settlement: settlement.into(),
        reason: format!("{address} was tried"),
        reply: "450 4.2.0 later".to_owned(),
        code: "4.2.0".to_owned(),
        ..Default::default()
    }
}

/// His destination takes nothing.
pub(crate) fn down(address: &str) -> pb::RecipientResult {
    pb::RecipientResult {
        destination: true,
        reply: "421 4.3.2 closing".to_owned(),
        ..result(address, Settlement::Deferred)
    }
}

fn told(result: pb::RecipientResult) -> pb::RecipientResult {
    pb::RecipientResult { reported: true, ..result }
}

pub(crate) fn settle(entry: u64, results: Vec<pb::RecipientResult>) -> Op {
    Op::Settle(pb::Settle { entry, results, retry_ms: 1000, report: None })
}

fn with_report(entry: u64, results: Vec<pb::RecipientResult>, n: u32) -> Op {
    let report = Some(message(n, None, &[]));
    Op::Settle(pb::Settle { entry, results, retry_ms: 1000, report })
}

pub(crate) fn manage(entry: u64, addresses: &[&str], action: QueueAction) -> Op {
    Op::ManageQueue(pb::ManageQueue {
        entry,
        addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        action: action.into(),
        by: "ops".to_owned(),
        why: "the ticket says so".to_owned(),
        ..Default::default()
    })
}

fn pending(machine: &Machine, entry: u64) -> Vec<pb::PendingRecipient> {
    in_queue(machine, entry).and_then(|found| found.waiting).map(|waiting| waiting.pending).unwrap_or_default()
}

fn failed(machine: &Machine, entry: u64) -> Vec<pb::FailedRecipient> {
    in_queue(machine, entry).and_then(|found| found.failed).map(|failed| failed.recipients).unwrap_or_default()
}

/// Whom a lease at the machine's time hands out.
fn leased(machine: &Machine, entry: u64) -> Vec<(String, bool)> {
    let found = leased_entry(&machine.store, EntryId(entry), machine.now).unwrap();
    let pending = found.map(|(record, _)| record.pending).unwrap_or_default();
    pending.into_iter().map(|pending| (pending.address, pending.parked)).collect()
}

fn outbox(machine: &Machine, n: u8) -> Vec<pb::QueueRecord> {
    match machine.ask(Ask::ListOutbox(pb::ListOutbox { user_id: user(n).to_bytes(), ..Default::default() })) {
        Answer::Queue(page) => page.entries,
        other => panic!("{other:?}"),
    }
}

fn destinations(machine: &Machine) -> Vec<pb::Destination> {
    match machine.ask(Ask::ListDestinations(pb::ListDestinations::default())) {
        Answer::Destinations(page) => page.destinations,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_from_outside_goes_to_nobody_outside() {
    let mut machine = Machine::with_users(1);
    let Op::Accept(mut relayed) = accept(&[1], message(1, None, &[])) else { unreachable!("as it was made") };
    relayed.recipients.push(outside("ada@far.example"));
    for submitted in [false, true] {
        let (refusal, detail) = machine.refused(Op::Accept(pb::Accept { submitted, ..relayed.clone() }));
        assert_eq!(refusal, Refusal::Malformed);
        assert!(detail.contains("relayed"), "{detail}");
    }
    let target = pb::Target {
        address: "ada@far.example".to_owned(),
        request: request(1).to_bytes(),
        undelivered_ms: machine.now,
        ..Default::default()
    };
    let deliver = pb::Deliver {
        source_shard: 1001,
        entry: 1,
        targets: vec![target],
        message: Some(message(1, None, &[])),
        leased_ms: machine.now,
        ..Default::default()
    };
    assert_eq!(machine.refused(Op::Deliver(deliver)).0, Refusal::Malformed);
}

#[test]
fn one_command_has_the_copy_the_deliveries_here_and_the_entry() {
    let mut machine = Machine::with_users(2);
    let mut send = send_op(&["ada@far.example", "ada@far.example", "Bob@far.example"], 1);
    send.recipients.extend(recipients(&[2, 9]));
    send.recipients[0].notify = (Notify::SUCCESS | Notify::FAILURE).0;
    send.recipients[0].original = "rfc822;Ada@Far.example".to_owned();
    let options = pb::SendOptions { envelope_id: "QQ314159".to_owned(), require_tls: true, ..Default::default() };
    send.options = Some(options.clone());
    let made = made(&mut machine, Op::Send(send));
    assert_eq!((machine.messages(1, SENT).len(), machine.messages(2, INBOX).len()), (1, 1));
    let waiting = in_queue(&machine, made.entry).unwrap().waiting.unwrap();
    let named: Vec<_> = waiting.pending.iter().map(|pending| pending.address.as_str()).collect();
    assert_eq!(named, ["ada@far.example", "Bob@far.example", "user9@test.example"], "each once, byte for byte");
    assert_eq!((waiting.pending[0].notify, waiting.pending[0].original.as_str()), (6, "rfc822;Ada@Far.example"));
    assert_eq!(waiting.sender_user_id, user(1).to_bytes());
    assert_eq!(waiting.sent_copy, made.sent_copy.unwrap().email_id);
    assert_eq!(waiting.options, Some(options));
    let [destination] = &destinations(&machine)[..] else { panic!("one destination") };
    let count = destination.count.as_ref().unwrap();
    assert_eq!((count.destination.as_str(), count.entries, count.recipients), ("far.example", 1, 2));
    assert_eq!(outbox(&machine, 1).len(), 1);
    assert!(outbox(&machine, 2).is_empty());
    machine.assert_verified();
    let others = ["ada@far.example", "Bob@far.example"].map(|address| result(address, Settlement::Delivered));
    machine.done(settle(made.entry, others.into()));
    assert!(destinations(&machine).is_empty());
    assert_eq!(outbox(&machine, 1).len(), 1, "somebody in another shard still waits");
    machine.done(crate::queue::settle(made.entry, &[(9, Settlement::Delivered)], 0));
    assert!(outbox(&machine, 1).is_empty());
    machine.assert_verified();
}

#[test]
fn what_no_worker_could_send_is_refused_by_name() {
    let mut machine = Machine::with_users(1);
    let options = |options| pb::Send { options: Some(options), ..send_op(&["a@far.example"], 1) };
    let mut notify = send_op(&["a@far.example"], 1);
    notify.recipients[0].notify = 3;
    let mut original = send_op(&["a@far.example"], 1);
    original.recipients[0].original = "rfc822;a\r\nb".to_owned();
    for (send, field) in [
        (send_op(&["a@Far.example"], 1), "recipients.address"),
        (send_op(&["a\r\n@far.example"], 1), "recipients.address"),
        (send_op(&[""], 1), "recipients.address"),
        (notify, "notify"),
        (original, "original"),
        (options(pb::SendOptions { not_before_ms: -1, ..Default::default() }), "not_before_ms"),
        (
            options(pb::SendOptions { not_before_ms: machine.now + SEND_LATER_MS_MAX + 1, ..Default::default() }),
            "not_before_ms",
        ),
        (options(pb::SendOptions { envelope_id: "a b".to_owned(), ..Default::default() }), "envelope_id"),
        (options(pb::SendOptions { category: 9, ..Default::default() }), "category"),
    ] {
        let (refusal, detail) = machine.refused(Op::Send(send));
        assert_eq!(refusal, Refusal::Malformed);
        assert!(detail.contains(field), "{detail}");
    }
    let entry = sent(&mut machine, &["a@far.example"], 1);
    for settlement in [Settlement::Dropped, Settlement::Full] {
        assert_eq!(machine.refused(settle(entry, vec![result("a@far.example", settlement)])).0, Refusal::Malformed);
    }
    machine.assert_verified();
}

/// A dead destination costs one attempt at a time, and its mail follows by itself when it is back.
#[test]
fn of_those_who_wait_for_a_destination_only_the_oldest_is_tried() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<u64> = (0..100).map(|n| sent(&mut machine, &["ada@far.example"], n)).collect();
    for id in &ids {
        machine.done(settle(*id, vec![down("ada@far.example")]));
    }
    // Other mail waits for nothing of this, and later mail is not even tried.
    let live = sent(&mut machine, &["bob@near.example"], 200);
    let behind = sent(&mut machine, &["bob@far.example"], 201);
    machine.assert_verified();
    let soon = machine.now + i64::from(DESTINATION_RETRY_MS_MAX);
    assert_eq!(due(&machine, soon), [live, ids[0]]);
    let reason = &pending(&machine, behind)[0].reason;
    assert!(reason.contains("far.example"), "{reason}");
    let [one, other] = &destinations(&machine)[..] else { panic!("two destinations") };
    let far = if one.in_line { one } else { other };
    let count = far.count.as_ref().unwrap();
    assert_eq!((count.entries, count.reply.as_str(), far.entry), (101, "421 4.3.2 closing", ids[0]));
    assert_eq!((far.due_ms, far.attempts), (pending(&machine, ids[0])[0].due_ms, 1));
    // One gets through: so many follow, and each brings another.
    machine.now = far.due_ms;
    machine.done(settle(ids[0], vec![result("ada@far.example", Settlement::Delivered)]));
    let awake = due(&machine, machine.now);
    assert_eq!(awake.len(), 1 + 64);
    for id in &ids[1..] {
        assert!(due(&machine, machine.now).contains(id), "{id} is due when those before it are gone");
        machine.done(settle(*id, vec![result("ada@far.example", Settlement::Delivered)]));
    }
    machine.done(settle(behind, vec![result("bob@far.example", Settlement::Delivered)]));
    assert_eq!(destinations(&machine).len(), 1);
    machine.assert_verified();
}

#[test]
fn one_who_is_put_off_himself_waits_alone_and_longer_each_time() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    let mut longest = 0;
    for attempt in 1..12 {
        let now = machine.now;
        machine.done(settle(entry, vec![result("ada@far.example", Settlement::Deferred), down("bob@far.example")]));
        let [ada, bob] = &pending(&machine, entry)[..] else { panic!("two wait") };
        assert_eq!((ada.attempts, ada.reply.as_str(), ada.code.as_str()), (attempt, "450 4.2.0 later", "4.2.0"));
        let base = (i64::from(OUTGOING_RETRY_MS_MIN) << (attempt - 1)).min(OUTGOING_RETRY_MS_MAX.into());
        let pause = ada.due_ms - now;
        assert!((base..base + base / 4).contains(&pause), "attempt {attempt}: {pause} ms of {base}");
        assert!(bob.due_ms - now < i64::from(DESTINATION_RETRY_MS_MAX) * 5 / 4, "all of its mail waits behind him");
        longest = longest.max(pause);
        machine.now = ada.due_ms.max(bob.due_ms);
    }
    assert!(longest >= i64::from(OUTGOING_RETRY_MS_MAX));
    // Each is leased when he is due, and not with the other.
    machine.done(settle(entry, vec![result("ada@far.example", Settlement::Deferred), down("bob@far.example")]));
    machine.now = pending(&machine, entry)[1].due_ms;
    assert_eq!(leased(&machine, entry), [("bob@far.example".to_owned(), false)]);
    // The worker may know better.
    let soon = pb::RecipientResult { retry_ms: 5000, ..down("bob@far.example") };
    machine.done(settle(entry, vec![soon]));
    assert_eq!(pending(&machine, entry)[1].due_ms, machine.now + 5000);
    machine.assert_verified();
}

#[test]
fn an_attempt_of_which_nobody_knows_is_counted() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example"], 1);
    for _ in 0..2 {
        let unknown = pb::RecipientResult { unknown: true, ..down("ada@far.example") };
        machine.done(settle(entry, vec![unknown]));
    }
    assert_eq!(pending(&machine, entry)[0].unknown_attempts, 2);
    machine.done(settle(entry, vec![result("ada@far.example", Settlement::Failed)]));
    assert_eq!(failed(&machine, entry)[0].unknown_attempts, 2);
    machine.assert_verified();
}

/// A report is neither lost nor doubled: it is filed in the apply that takes out whom it tells of.
#[test]
fn a_report_is_filed_with_what_it_tells_of() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    let gone = || vec![told(result("ada@far.example", Settlement::Failed))];
    machine.done(with_report(entry, gone(), 50));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    assert_eq!(machine.messages(1, INBOX)[0].subject, "message 50");
    assert!(failed(&machine, entry).is_empty(), "the report says it");
    assert_eq!(pending(&machine, entry).len(), 1);
    machine.assert_verified();
    // Another worker, who composed it too: nobody is left to tell of.
    machine.done(with_report(entry, gone(), 51));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    // Whoever is not in the report goes to the error queue.
    machine.done(with_report(entry, vec![result("bob@far.example", Settlement::Failed)], 52));
    assert_eq!((machine.messages(1, INBOX).len(), failed(&machine, entry).len()), (1, 1));
    machine.assert_verified();
}

/// P-6: the same command once more is one command.
#[test]
fn a_report_that_comes_again_under_its_request_is_one() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    let mut command = machine.command(with_report(entry, vec![told(down("ada@far.example"))], 50));
    command.request = request(7).to_bytes();
    let first = machine.run(command.clone());
    let again = machine.run(command);
    assert_eq!(first.outcome, again.outcome);
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    let seen: Vec<_> = pending(&machine, entry).iter().map(|p| (p.delay_reported, p.attempts)).collect();
    assert_eq!(seen, [(true, 1), (false, 0)]);
    // A delay is told once.
    machine.done(with_report(entry, vec![told(down("ada@far.example"))], 51));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    // That it was relayed, or delivered, is told with the end of the wait.
    machine.done(with_report(entry, vec![told(result("ada@far.example", Settlement::Delivered))], 52));
    assert_eq!(machine.messages(1, INBOX).len(), 2);
    machine.assert_verified();
}

#[test]
fn a_report_for_a_mailbox_that_takes_nothing_waits_and_without_an_account_nobody_is_lost() {
    let mut machine = Machine::with_users(0);
    machine.changed(create_account(1, 1000));
    let entry = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    // Over its quota by more than a delivery may.
    let huge = pb::NewMessage { size: 35 * 1024 * 1024, ..message(2, None, &[]) };
    let mut deliveries = 0;
    while machine.account(1).used_bytes + huge.size <= 1000 + QUOTA_OVERRUN_BYTES_MAX {
        let mut next = huge.clone();
        next.body = message(1000 + deliveries, None, &[]).body;
        machine.delivered(crate::harness::deliver(&[(1, request(1000 + u64::from(deliveries)))], next));
        deliveries += 1;
    }
    let mut report = message(50, None, &[]);
    report.size = huge.size;
    let settle = |address: &str, report: &pb::NewMessage| {
        let results = vec![told(result(address, Settlement::Failed))];
        Op::Settle(pb::Settle { entry, results, report: Some(report.clone()), ..Default::default() })
    };
    machine.done(settle("ada@far.example", &report));
    assert!(failed(&machine, entry).is_empty());
    let waits = entry + 1;
    let [waiting] = &pending(&machine, waits)[..] else { panic!("the report waits for room") };
    assert_eq!(waiting.user_id, user(1).to_bytes());
    machine.assert_verified();
    machine.done(Op::DeleteAccount(pb::DeleteAccount { user_id: user(1).to_bytes(), ..Default::default() }));
    machine.done(settle("bob@far.example", &report));
    assert_eq!(failed(&machine, entry).len(), 1, "nobody is there to be told: an operator is");
    machine.assert_verified();
}

#[test]
fn a_report_with_files_needs_them_pinned_and_then_comes_under_the_same_request() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example"], 1);
    let results = vec![told(result("ada@far.example", Settlement::Failed))];
    let op = Op::Settle(pb::Settle { entry, results, report: Some(with_blobs(50, &[1])), ..Default::default() });
    let mut command = machine.command(op);
    command.request = request(60).to_bytes();
    let refused = machine.run(command.clone()).outcome.result;
    let Some(Made::Refused(refused)) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.refusal(), Refusal::BlobsNotPinned);
    assert_eq!(pending(&machine, entry).len(), 1, "nothing was settled");
    machine.done(pin(request(60), &[1]));
    assert_eq!(machine.run(command).outcome.result, Some(Made::Done(pb::Done {})));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    machine.assert_verified();
}

/// Behind a dead destination nobody is tried, and his sender is told all the same: in time of the wait, and of its end.
#[test]
fn whoever_is_parked_is_looked_at_when_his_sender_is_to_be_told() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<u64> = (0..3).map(|n| sent(&mut machine, &["ada@far.example"], n)).collect();
    for id in &ids {
        machine.done(settle(*id, vec![down("ada@far.example")]));
    }
    let start = machine.now;
    machine.now = start + DELAY_WARNING_MS - 1;
    assert!(leased(&machine, ids[1]).is_empty());
    machine.now += 1;
    assert_eq!(leased(&machine, ids[1]), [("ada@far.example".to_owned(), true)]);
    let waits = || pb::RecipientResult { reply: String::new(), ..result("ada@far.example", Settlement::Waits) };
    machine.done(with_report(ids[1], vec![told(waits())], 50));
    assert_eq!(machine.messages(1, INBOX).len(), 1);
    let [told_of] = &pending(&machine, ids[1])[..] else { panic!("he waits") };
    assert_eq!((told_of.attempts, told_of.parked, told_of.delay_reported), (1, true, true));
    assert_eq!(told_of.due_ms, start + OUTGOING_AGE_MS_MAX);
    // Whoever says nothing is asked again, but not at once.
    machine.done(settle(ids[2], vec![waits()]));
    assert_eq!(pending(&machine, ids[2])[0].due_ms, machine.now + i64::from(DESTINATION_RETRY_MS_MAX));
    machine.assert_verified();
    machine.now = start + OUTGOING_AGE_MS_MAX;
    assert_eq!(leased(&machine, ids[1]), [("ada@far.example".to_owned(), true)]);
    machine.done(with_report(ids[1], vec![told(result("ada@far.example", Settlement::Failed))], 51));
    assert_eq!((in_queue(&machine, ids[1]), machine.messages(1, INBOX).len()), (None, 2));
    // No worker gives him up: the shard does, in the end.
    machine.now = start + OUTGOING_AGE_MS_MAX + OUTGOING_AGE_GRACE_MS + 1;
    machine.done(settle(ids[0], vec![down("ada@far.example")]));
    machine.done(settle(ids[2], vec![waits()]));
    assert_eq!((failed(&machine, ids[0]).len(), failed(&machine, ids[2]).len()), (1, 1));
    machine.assert_verified();
}

#[test]
fn nobody_is_warned_who_does_not_want_to_be() {
    let mut machine = Machine::with_users(1);
    let first = sent(&mut machine, &["ada@far.example"], 1);
    machine.done(settle(first, vec![down("ada@far.example")]));
    let mut never = send_op(&["bob@far.example"], 2);
    never.recipients[0].notify = Notify::NEVER.0;
    let never = made(&mut machine, Op::Send(never)).entry;
    assert_eq!(pending(&machine, never)[0].due_ms, machine.now + OUTGOING_AGE_MS_MAX);
}

#[test]
fn whoever_fails_of_whom_nobody_wants_to_hear_leaves_silently() {
    let mut machine = Machine::with_users(1);
    let mut send = send_op(&["ada@far.example", "bob@far.example", "cyd@far.example", "dan@far.example"], 1);
    send.recipients[0].notify = Notify::NEVER.0;
    // Of success alone.
    send.recipients[1].notify = Notify::SUCCESS.0;
    send.recipients[2].notify = Notify::NEVER.0;
    let entry = made(&mut machine, Op::Send(send)).entry;
    let fail = |address: &str| result(address, Settlement::Failed);
    machine.done(settle(entry, vec![fail("ada@far.example"), fail("bob@far.example")]));
    assert_eq!(pending(&machine, entry).len(), 2);
    assert!(failed(&machine, entry).is_empty());
    // The shard gives him up by itself, if no worker does.
    machine.now += OUTGOING_AGE_MS_MAX + OUTGOING_AGE_GRACE_MS + 1;
    machine.done(settle(entry, vec![result("cyd@far.example", Settlement::Deferred)]));
    assert_eq!(pending(&machine, entry).len(), 1);
    assert!(failed(&machine, entry).is_empty());
    // Whose sender did not say is not lost where nobody told him.
    machine.done(settle(entry, vec![fail("dan@far.example")]));
    assert_eq!(failed(&machine, entry).len(), 1);
    machine.assert_verified();
}

#[test]
fn what_is_sent_later_waits_for_everybody_and_can_be_taken_back() {
    let mut machine = Machine::with_users(2);
    let at = machine.now + 60_000;
    let Op::Send(mut send) = later(&["ada@far.example"], 1, at) else { unreachable!("as it was made") };
    send.recipients.extend(recipients(&[2]));
    let made_first = made(&mut machine, Op::Send(send.clone()));
    assert!(made_first.deliveries.is_empty() && machine.messages(2, INBOX).is_empty());
    assert!(due(&machine, at - 1).is_empty());
    assert_eq!(due(&machine, at), [made_first.entry]);
    let [ada, two] = &pending(&machine, made_first.entry)[..] else { panic!("both wait") };
    assert_eq!((ada.since_ms, two.undelivered_ms), (at, at), "nobody has waited before");
    // Nobody may hurry it.
    let retry = pb::ManageQueue {
        entry: made_first.entry,
        action: QueueAction::Retry.into(),
        by: "ops".to_owned(),
        why: "hurry".to_owned(),
        ..Default::default()
    };
    machine.done(Op::ManageQueue(retry));
    assert!(due(&machine, at - 1).is_empty());
    let cancel = |entry, n| Op::CancelSend(pb::CancelSend { user_id: user(n).to_bytes(), entry });
    assert_eq!(machine.refused(cancel(made_first.entry, 2)).0, Refusal::UnknownEntry, "another's (P-9)");
    machine.now = at - CANCEL_MARGIN_MS - 1;
    let Made::SendCancelled(cancelled) = machine.apply(cancel(made_first.entry, 1)) else { panic!("cancelled") };
    let copy = made_first.sent_copy.unwrap().email_id;
    assert_eq!(cancelled.draft.unwrap().email_id, copy);
    assert!(machine.messages(1, SENT).is_empty() && outbox(&machine, 1).is_empty());
    let [draft] = &machine.messages(1, DRAFTS)[..] else { panic!("a draft") };
    assert_eq!((draft.email_id.clone(), draft.keywords & Keywords::DRAFT.0), (copy, Keywords::DRAFT.0));
    assert_eq!((in_queue(&machine, made_first.entry), bodies(&machine)), (None, 1));
    assert_eq!(machine.refused(cancel(made_first.entry, 1)).0, Refusal::UnknownEntry);
    machine.assert_verified();
    // A moment later it is too late, and so it is when somebody was tried.
    let mut other = send.clone();
    other.message = Some(message(2, None, &[]));
    let entry = made(&mut machine, Op::Send(other)).entry;
    machine.now += 1;
    assert_eq!(machine.refused(cancel(entry, 1)).0, Refusal::TooLate);
    let op = later(&["ada@far.example"], 3, machine.now + 60_000);
    let entry = made(&mut machine, op).entry;
    machine.done(settle(entry, vec![down("ada@far.example")]));
    assert_eq!(machine.refused(cancel(entry, 1)).0, Refusal::TooLate);
    // At once is always too late.
    let entry = sent(&mut machine, &["ada@far.example"], 4);
    assert_eq!(machine.refused(cancel(entry, 1)).0, Refusal::TooLate);
    machine.assert_verified();
}

#[test]
fn a_copy_that_was_deleted_for_good_comes_back_as_no_draft() {
    let mut machine = Machine::with_users(1);
    let op = later(&["ada@far.example"], 1, machine.now + 60_000);
    let made = made(&mut machine, op);
    let copy = made.sent_copy.unwrap().email_id;
    machine.changed(update(1, vec![delete(&copy)]));
    assert_eq!(machine.messages(1, TRASH).len(), 1);
    machine.changed(update(1, vec![delete(&copy)]));
    let cancel = Op::CancelSend(pb::CancelSend { user_id: user(1).to_bytes(), entry: made.entry });
    assert_eq!(machine.apply(cancel), Made::SendCancelled(pb::SendCancelled { draft: None }));
    assert_eq!(bodies(&machine), 0);
    machine.assert_verified();
}

#[test]
fn an_operator_holds_releases_and_routes_by_address() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    machine.done(manage(entry, &["ada@far.example"], QueueAction::Hold));
    assert_eq!(leased(&machine, entry), [("bob@far.example".to_owned(), false)]);
    assert_eq!(pending(&machine, entry)[0].reason, "held by ops: the ticket says so");
    machine.assert_verified();
    // What was on its way when he was held changes nothing of it.
    machine.done(settle(entry, vec![down("ada@far.example"), down("bob@far.example")]));
    assert!(pending(&machine, entry)[0].held && pending(&machine, entry)[0].attempts == 1);
    machine.now += DELAY_WARNING_MS;
    assert_eq!(leased(&machine, entry), [("bob@far.example".to_owned(), false)]);
    machine.assert_verified();
    machine.done(manage(entry, &[], QueueAction::Hold));
    assert!(due(&machine, i64::MAX).is_empty(), "all are held");
    assert!(destinations(&machine)[0].held);
    machine.assert_verified();
    assert_eq!(machine.refused(manage(entry, &["eve@far.example"], QueueAction::Release)).0, Refusal::UnknownEntry);
    machine.done(manage(entry, &["ada@far.example"], QueueAction::Release));
    assert_eq!(leased(&machine, entry), [("ada@far.example".to_owned(), false)]);
    // A route is a destination of its own: the line of the domain does not hold it up.
    machine.done(settle(entry, vec![down("ada@far.example")]));
    let Op::ManageQueue(mut route) = manage(entry, &["ada@far.example"], QueueAction::Route) else { unreachable!() };
    route.route = "relay.example:2525".to_owned();
    machine.done(Op::ManageQueue(route.clone()));
    let names: Vec<String> = destinations(&machine).into_iter().map(|found| found.count.unwrap().destination).collect();
    assert!(names.contains(&"via relay.example:2525".to_owned()) && names.len() == 2, "{names:?}");
    assert_eq!(pending(&machine, entry)[0].route, "relay.example:2525");
    machine.assert_verified();
    route.route = "relay example".to_owned();
    assert_eq!(machine.refused(Op::ManageQueue(route.clone())).0, Refusal::Malformed);
    route.route.clear();
    machine.done(Op::ManageQueue(route));
    assert_eq!(destinations(&machine).len(), 1);
    // Given up, and back again with what was known of him.
    machine.done(manage(entry, &["ada@far.example"], QueueAction::GiveUp));
    let Op::ManageQueue(again) = manage(entry, &["ada@far.example"], QueueAction::Retry) else { unreachable!() };
    machine.done(Op::ManageQueue(pb::ManageQueue { failed: true, ..again }));
    assert_eq!(pending(&machine, entry)[1].reply, "421 4.3.2 closing");
    machine.done(manage(entry, &[], QueueAction::Drop));
    assert_eq!((in_queue(&machine, entry), outbox(&machine, 1).len()), (None, 0));
    machine.assert_verified();
}

/// What was accepted goes out, nobody is told of it any more, and what nobody was to get yet goes with the account.
#[test]
fn a_deleted_account_leaves_its_mail_on_its_way() {
    let mut machine = Machine::with_users(1);
    let now = sent(&mut machine, &["ada@far.example", "bob@far.example"], 1);
    let given_up = sent(&mut machine, &["eve@far.example"], 2);
    machine.done(settle(given_up, vec![result("eve@far.example", Settlement::Failed)]));
    let op = later(&["ada@far.example"], 3, machine.now + 600_000);
    let unsent = made(&mut machine, op).entry;
    let user_id = user(1).to_bytes();
    machine.done(Op::DeleteAccount(pb::DeleteAccount { user_id: user_id.clone(), ..Default::default() }));
    machine.assert_verified();
    assert!(matches!(
        machine.apply(Op::DrainAccount(pb::DrainAccount { user_id: user_id.clone() })),
        Made::AccountDraining(pb::AccountDraining { is_empty: true })
    ));
    machine.assert_verified();
    assert_eq!(in_queue(&machine, unsent), None);
    let waiting = in_queue(&machine, now).unwrap().waiting.unwrap();
    assert!(waiting.sender_user_id.is_empty() && waiting.pending.len() == 2);
    machine.done(Op::FinishDeletion(pb::FinishDeletion { user_id }));
    machine.assert_verified();
    machine.done(with_report(now, vec![told(result("ada@far.example", Settlement::Failed))], 50));
    assert_eq!(failed(&machine, now).len(), 1, "there is nobody to tell");
    // Out of the error queue he waits as mail of nobody here.
    let Op::ManageQueue(again) = manage(given_up, &[], QueueAction::Retry) else { unreachable!() };
    machine.done(Op::ManageQueue(pb::ManageQueue { failed: true, ..again }));
    assert!(in_queue(&machine, given_up).unwrap().waiting.unwrap().sender_user_id.is_empty());
    machine.done(settle(now, vec![result("bob@far.example", Settlement::Delivered)]));
    machine.assert_verified();
}

#[test]
fn an_outbox_has_what_its_user_sent_and_no_text() {
    let mut machine = Machine::with_users(2);
    let ids: Vec<u64> = (0..5).map(|n| sent(&mut machine, &["ada@far.example"], n)).collect();
    let ask = |machine: &Machine, n: u8, after_entry, limit| {
        let ask = pb::ListOutbox { user_id: user(n).to_bytes(), after_entry, limit };
        match machine.ask(Ask::ListOutbox(ask)) {
            Answer::Queue(page) => (page.entries.iter().map(|entry| entry.entry).collect::<Vec<_>>(), page.more),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&machine, 1, 0, 2), (ids[..2].to_vec(), true));
    assert_eq!(ask(&machine, 1, ids[3], 2), (ids[4..].to_vec(), false));
    assert_eq!(ask(&machine, 2, 0, 2), (Vec::new(), false));
    let listed = &outbox(&machine, 1)[0];
    let shown = listed.message.as_ref().unwrap();
    assert_eq!(shown.envelope.as_ref().unwrap().subject, "message 0");
    assert!(shown.body.is_none() && shown.parts.is_empty());
    let one = |machine: &Machine, n: u8| {
        machine.ask(Ask::GetOutbox(pb::GetOutbox { user_id: user(n).to_bytes(), entry: ids[0] }))
    };
    assert!(matches!(one(&machine, 1), Answer::QueueEntry(_)));
    assert!(matches!(one(&machine, 2), Answer::NotFound(_)));
    machine.done(settle(ids[0], vec![result("ada@far.example", Settlement::Failed)]));
    let Answer::QueueEntry(found) = one(&machine, 1) else { panic!("it was given up, and he may know") };
    assert_eq!((found.waiting, found.failed.unwrap().recipients.len()), (None, 1));
    // By destination it is one range.
    let ask = pb::ListQueue { limit: 2, destination: "far.example".to_owned(), ..Default::default() };
    let Answer::Queue(page) = machine.ask(Ask::ListQueue(ask)) else { panic!("a page") };
    assert_eq!((page.entries.iter().map(|e| e.entry).collect::<Vec<_>>(), page.more), (ids[1..3].to_vec(), true));
    let one = pb::ListDestinations { destination: "near.example".to_owned(), ..Default::default() };
    let Answer::Destinations(none) = machine.ask(Ask::ListDestinations(one)) else { panic!("a page") };
    assert!(none.destinations.is_empty() && !none.more);
}

#[test]
fn destinations_come_page_by_page() {
    let mut machine = Machine::with_users(1);
    for n in 0..5 {
        sent(&mut machine, &[&format!("ada@d{n}.example")], n);
    }
    let mut names: Vec<String> = Vec::new();
    let mut after = Bytes::new();
    loop {
        let ask = pb::ListDestinations { limit: 2, after, ..Default::default() };
        let Answer::Destinations(page) = machine.ask(Ask::ListDestinations(ask)) else { panic!("a page") };
        names.extend(page.destinations.into_iter().map(|found| found.count.unwrap().destination));
        after = page.until;
        if !page.more {
            break;
        }
    }
    names.sort();
    assert_eq!(names, (0..5).map(|n| format!("d{n}.example")).collect::<Vec<_>>());
}
