//! What comes back of mail to the outside: to whom it is counted, who is not sent to any more, and who may send no more.

use postrider_api::id::EntryId;
use postrider_api::limit::{FEEDBACK_ROWS_MAX, SENT_MS, SLOWED_MS, SLOWED_RECIPIENTS_MAX, SUPPRESSED_HARD_MS};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{
    self, AccountState, FeedbackKind, FeedbackSource, Hindrance, Refusal, Settlement, SuppressionReason,
};
use postrider_shard::key::{Key, Table};
use postrider_shard::queue::leased_entry;
use postrider_shard::store::Reader as _;

use crate::accounts::assert_gone;
use crate::harness::{Machine, START_MS, message, user};
use crate::outside::{outside, settle};

const HOUR_MS: i64 = 60 * 60 * 1000;

fn send(to: &[String], n: u32) -> pb::Send {
    pb::Send {
        user_id: user(1).to_bytes(),
        mail_from: "user1@test.example".to_owned(),
        recipients: to.iter().map(|address| outside(address)).collect(),
        message: Some(message(n, None, &[])),
        ..Default::default()
    }
}

fn many(count: usize, n: u32) -> Vec<String> {
    (0..count).map(|at| format!("r{at}@far{n}.example")).collect()
}

fn strings(addresses: &[&str]) -> Vec<String> {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

fn sent(machine: &mut Machine, to: &[String], n: u32) -> u64 {
    match machine.apply(Op::Send(send(to, n))) {
        Made::Sent(sent) => sent.entry,
        other => panic!("{other:?}"),
    }
}

fn said(kind: FeedbackKind, addresses: &[&str]) -> pb::Feedback {
    pb::Feedback {
        kind: kind.into(),
        source: FeedbackSource::Report.into(),
        addresses: strings(addresses),
        code: "5.1.1".to_owned(),
        detail: "550 5.1.1 nobody".to_owned(),
    }
}

fn came(entry: u64, recipient: u32, items: Vec<pb::Feedback>) -> Op {
    Op::RecordFeedback(pb::RecordFeedback { user_id: user(1).to_bytes(), entry, recipient, items })
}

/// How much of it was news; `None`: it is of no message that is known.
fn recorded(machine: &mut Machine, op: Op) -> Option<u32> {
    match machine.apply(op) {
        Made::FeedbackRecorded(made) => made.is_known.then_some(made.recorded),
        other => panic!("{other:?}"),
    }
}

fn feedback(machine: &Machine) -> Vec<pb::FeedbackRecord> {
    match machine.ask(Ask::ListFeedback(pb::ListFeedback::default())) {
        Answer::Feedback(page) => page.lines.into_iter().filter_map(|line| line.feedback).collect(),
        other => panic!("{other:?}"),
    }
}

fn suppressions(machine: &Machine) -> Vec<pb::SuppressionRecord> {
    let ask = pb::ListSuppressions { user_id: user(1).to_bytes(), ..Default::default() };
    match machine.ask(Ask::ListSuppressions(ask)) {
        Answer::Suppressions(page) => page.suppressions,
        other => panic!("{other:?}"),
    }
}

fn sending(machine: &Machine) -> pb::SendingRecord {
    match machine.ask(Ask::GetSending(pb::GetSending { user_id: user(1).to_bytes() })) {
        Answer::Sending(sending) => sending,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_back_is_matched_to_its_message_and_recipient_after_the_queue_has_forgotten_both() {
    let mut machine = Machine::with_users(1);
    let to = strings(&["ada@far.example", "Bob@far.example"]);
    let entry = sent(&mut machine, &to, 1);
    let delivered = |address: &String| pb::RecipientResult {
        address: address.clone(),
        settlement: Settlement::Delivered.into(),
        ..Default::default()
    };
    machine.done(settle(entry, to.iter().map(delivered).collect()));
    // By the number in the return path, whoever a report says that it is of.
    let hard = || vec![said(FeedbackKind::Hard, &["forwarded@elsewhere.example"])];
    assert_eq!(recorded(&mut machine, came(entry, 2, hard())), Some(1));
    let found = feedback(&machine);
    assert_eq!(
        (found[0].address.as_str(), found[0].kind(), found[0].entry),
        ("Bob@far.example", FeedbackKind::Hard, entry)
    );
    assert_eq!(found[0].sent_copy.len(), 16);
    // Once more, and less bad, is no news.
    assert_eq!(recorded(&mut machine, came(entry, 2, hard())), Some(0));
    assert_eq!(recorded(&mut machine, came(entry, 2, vec![said(FeedbackKind::Soft, &[])])), Some(0));
    assert_eq!(feedback(&machine).len(), 1);
    // By an address that is a recipient's, in whatever case.
    let soft = said(FeedbackKind::Soft, &["postmaster@far.example", "ADA@far.example"]);
    assert_eq!(recorded(&mut machine, came(entry, 0, vec![soft])), Some(1));
    assert_eq!(recorded(&mut machine, came(entry, 1, vec![said(FeedbackKind::Complaint, &[])])), Some(1));
    let kinds: Vec<_> = feedback(&machine).iter().map(pb::FeedbackRecord::kind).collect();
    assert_eq!(kinds, [FeedbackKind::Complaint, FeedbackKind::Soft, FeedbackKind::Hard], "the newest first");
    // Of nobody knows whom: said once, and nobody suffers for it.
    let nobody = || vec![said(FeedbackKind::Hard, &["stranger@far.example"])];
    assert_eq!(recorded(&mut machine, came(entry, 0, nobody())), Some(1));
    assert_eq!(recorded(&mut machine, came(entry, 0, nobody())), Some(0));
    assert_eq!(feedback(&machine)[0].address, "");
    let mut reasons: Vec<_> = suppressions(&machine).iter().map(|one| (one.address.clone(), one.reason())).collect();
    reasons.sort();
    assert_eq!(
        reasons,
        [
            ("Bob@far.example".to_owned(), SuppressionReason::Hard),
            ("ada@far.example".to_owned(), SuppressionReason::Complaint)
        ]
    );
    let today = sending(&machine).days.last().cloned().unwrap();
    assert_eq!((today.recipients, today.soft, today.hard, today.complaints), (2, 1, 2, 1));
    machine.assert_verified();
    // Of a message that was never sent.
    assert_eq!(recorded(&mut machine, came(entry + 1, 1, hard())), None);
}

#[test]
fn a_message_is_remembered_for_as_long_as_its_return_path_counts() {
    let mut machine = Machine::with_users(1);
    let entry = sent(&mut machine, &strings(&["ada@far.example"]), 1);
    machine.now = START_MS + SENT_MS - 1;
    assert_eq!(
        recorded(&mut machine, came(entry, 0, vec![said(FeedbackKind::Soft, &[])])),
        Some(1),
        "there is nobody else"
    );
    machine.now = START_MS + SENT_MS + 20_000;
    assert_eq!(recorded(&mut machine, came(entry, 1, vec![said(FeedbackKind::Hard, &[])])), None);
    let is_left =
        |table: Table| machine.store.rows().any(|(key, _)| Key::decode(key.as_ref()).unwrap().table() == table);
    assert!(!is_left(Table::SentMessages) && !is_left(Table::SentByExpiry));
    machine.assert_verified();
}

#[test]
fn what_a_host_says_to_a_worker_counts_as_well() {
    let mut machine = Machine::with_users(1);
    let to = strings(&["ada@far.example", "bob@far.example", "cleo@far.example"]);
    let entry = sent(&mut machine, &to, 1);
    let failed = |address: &str, code: &str, reply: &str, suppressed| pb::RecipientResult {
        address: address.to_owned(),
        settlement: Settlement::Failed.into(),
        reason: format!("mx.far.example said: {reply}"),
        reply: reply.to_owned(),
        code: code.to_owned(),
        suppressed,
        ..Default::default()
    };
    machine.done(settle(
        entry,
        vec![
            failed("ada@far.example", "5.1.1", "550 5.1.1 nobody", false),
            failed("bob@far.example", "5.7.1", "550 5.7.1 we do not like you", false),
            failed("cleo@far.example", "5.7.1", "cleo@far.example is suppressed", true),
        ],
    ));
    let mut found: Vec<_> = feedback(&machine).into_iter().map(|one| (one.address.clone(), one.kind())).collect();
    found.sort();
    let (ada, bob) = ("ada@far.example".to_owned(), "bob@far.example".to_owned());
    assert_eq!(found, [(ada.clone(), FeedbackKind::Hard), (bob, FeedbackKind::Soft)]);
    assert!(feedback(&machine).iter().all(|one| one.source() == FeedbackSource::Reply));
    assert_eq!(suppressions(&machine).iter().map(|one| one.address.clone()).collect::<Vec<_>>(), [ada]);
    machine.assert_verified();
}

#[test]
fn whoever_is_suppressed_is_sent_to_by_nobody_until_his_time_is_over() {
    let mut machine = Machine::with_users(1);
    let first = sent(&mut machine, &strings(&["ada@far.example", "bob@far.example"]), 1);
    let second = sent(&mut machine, &strings(&["ada@far.example"]), 2);
    recorded(&mut machine, came(first, 1, vec![said(FeedbackKind::Hard, &[])]));
    let (refusal, detail) = machine.refused(Op::Send(send(&strings(&["eve@far.example", "Ada@far.example"]), 3)));
    assert_eq!(refusal, Refusal::RecipientSuppressed);
    assert!(detail.contains("Ada@far.example") && detail.contains("nobody") && !detail.contains("eve"), "{detail}");
    // What waits is not sent either.
    let hindrances = |machine: &Machine, entry| {
        let (record, _) = leased_entry(&machine.store, EntryId(entry), machine.now).unwrap().unwrap();
        record.pending.iter().map(pb::PendingRecipient::hindrance).collect::<Vec<_>>()
    };
    assert_eq!(hindrances(&machine, second), [Hindrance::Suppressed]);
    assert_eq!(hindrances(&machine, first), [Hindrance::Suppressed, Hindrance::None]);
    let ask = |machine: &Machine, address: &str| {
        let ask = pb::CheckSuppressed { user_id: user(1).to_bytes(), addresses: strings(&[address]) };
        match machine.ask(Ask::CheckSuppressed(ask)) {
            Answer::Suppressions(found) => found.suppressions.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((ask(&machine, "ADA@far.example"), ask(&machine, "bob@far.example")), (1, 0));
    machine.now = START_MS + SUPPRESSED_HARD_MS;
    assert_eq!(ask(&machine, "ada@far.example"), 0);
    sent(&mut machine, &strings(&["ada@far.example"]), 4);
    machine.assert_verified();
}

#[test]
fn the_list_is_edited_by_hand_and_what_was_named_stays_named() {
    let mut machine = Machine::with_users(1);
    let suppress = |address: &str, reason: SuppressionReason| {
        Op::Suppress(pb::Suppress {
            user_id: user(1).to_bytes(),
            address: address.to_owned(),
            reason: reason.into(),
            detail: "asked on the telephone".to_owned(),
            until_ms: 0,
        })
    };
    let entry = sent(&mut machine, &strings(&["ada@far.example"]), 1);
    machine.done(suppress("Ada@far.example", SuppressionReason::Manual));
    machine.done(suppress("ada@far.example", SuppressionReason::Manual));
    assert_eq!(suppressions(&machine).len(), 1, "in whatever case");
    // A bounce would lapse; what somebody has named does not.
    recorded(&mut machine, came(entry, 1, vec![said(FeedbackKind::Hard, &[])]));
    assert_eq!(suppressions(&machine)[0].reason(), SuppressionReason::Manual);
    let allow = Op::Unsuppress(pb::Unsuppress { user_id: user(1).to_bytes(), address: "ADA@far.example".to_owned() });
    machine.done(allow.clone());
    machine.done(allow);
    assert_eq!(suppressions(&machine), []);
    sent(&mut machine, &strings(&["ada@far.example"]), 2);
    for (address, reason) in [("ada", SuppressionReason::Manual), ("ada@far.example", SuppressionReason::Unspecified)] {
        assert_eq!(machine.refused(suppress(address, reason)).0, Refusal::Malformed, "{address}");
    }
    machine.assert_verified();
}

#[test]
fn whoever_sends_to_nobodies_is_suspended_at_once_and_released_by_an_operator() {
    let mut machine = Machine::with_users(1);
    let token = bytes::Bytes::from_static(&[9; 32]);
    machine.done(Op::OpenSession(pb::OpenSession {
        user_id: user(1).to_bytes(),
        token_hash: token.clone(),
        expires_at_ms: machine.now + 1_000_000_000,
        ..Default::default()
    }));
    let first = sent(&mut machine, &many(100, 1), 1);
    let second = sent(&mut machine, &many(100, 2), 2);
    let hard = |count: u32| -> Vec<pb::Feedback> {
        (0..count).map(|at| said(FeedbackKind::Hard, &[&format!("r{at}@far1.example")])).collect()
    };
    recorded(&mut machine, came(first, 0, hard(39)));
    assert_eq!(sending(&machine).slowed_until_ms, 0);
    recorded(&mut machine, came(first, 0, hard(40)));
    assert_eq!(sending(&machine).slowed_until_ms, machine.now + SLOWED_MS, "a fifth of them");
    let (refusal, detail) = machine.refused(Op::Send(send(&many(1, 3), 3)));
    assert_eq!(refusal, Refusal::SendingSlowed);
    assert!(detail.contains("40 of 200 recipients"), "{detail}");
    recorded(&mut machine, came(first, 0, hard(100)));
    let account = machine.account(1);
    assert_eq!(account.state(), AccountState::Suspended);
    assert!(account.suspended_why.contains("100 of 200") && !account.refuses_mail, "{}", account.suspended_why);
    let session = machine.ask(Ask::GetSession(pb::GetSession { user_id: user(1).to_bytes(), token_hash: token }));
    assert!(
        matches!(session, Answer::Session(session) if session.suspended),
        "every frontend knows with the next request"
    );
    assert_eq!(machine.refused(Op::Send(send(&many(1, 3), 3))).0, Refusal::AccountSuspended);
    // What waits does not leave either.
    let (record, _) = leased_entry(&machine.store, EntryId(second), machine.now).unwrap().unwrap();
    assert!(record.pending.iter().all(|pending| pending.hindrance() == Hindrance::SenderSuspended));
    machine.assert_verified();
    machine.done(Op::ResumeAccount(pb::ResumeAccount { user_id: user(1).to_bytes() }));
    assert_eq!((machine.account(1).state(), machine.account(1).suspended_why), (AccountState::Active, String::new()));
    assert_eq!(sending(&machine).released_ms, machine.now);
    sent(&mut machine, &many(30, 4), 4);
    machine.assert_verified();
}

#[test]
fn whoever_sends_far_more_than_he_used_to_is_slowed() {
    let mut machine = Machine::with_users(1);
    let limits = Some(pb::SendingLimits { recipients_per_day: 200 });
    let mut n = 0;
    let mut next = |count| {
        n += 1;
        Op::Send(pb::Send { limits, ..send(&many(count, n), n) })
    };
    for _ in 0..3 {
        let op = next(100);
        assert!(matches!(machine.apply(op), Made::Sent(_)));
    }
    // The one that went over was taken; what comes behind it is few.
    assert!(sending(&machine).slowed_until_ms > machine.now);
    assert_eq!(machine.refused(next(SLOWED_RECIPIENTS_MAX + 1)).0, Refusal::SendingSlowed);
    machine.now += HOUR_MS;
    let op = next(SLOWED_RECIPIENTS_MAX);
    assert!(matches!(machine.apply(op), Made::Sent(_)));
    assert_eq!(machine.refused(next(1)).0, Refusal::SendingSlowed);
    machine.assert_verified();
}

#[test]
fn rows_are_few_and_go_with_the_account() {
    let mut machine = Machine::with_users(2);
    let messages = FEEDBACK_ROWS_MAX.div_ceil(100) as u32 + 2;
    for n in 1..=messages {
        let entry = sent(&mut machine, &many(100, n), n);
        let soft = (0..100).map(|at| said(FeedbackKind::Soft, &[&format!("r{at}@far{n}.example")])).collect();
        assert_eq!(recorded(&mut machine, came(entry, 0, soft)), Some(100));
    }
    let rows =
        |machine: &Machine| machine.store.rows().filter(|(key, _)| key.as_ref()[0] == Table::Feedback as u8).count();
    assert_eq!(rows(&machine), FEEDBACK_ROWS_MAX);
    machine.assert_verified();
    let entry = sent(&mut machine, &many(1, 99), 99);
    recorded(&mut machine, came(entry, 1, vec![said(FeedbackKind::Complaint, &[])]));
    machine.done(Op::DeleteAccount(pb::DeleteAccount { user_id: user(1).to_bytes(), ..Default::default() }));
    machine.assert_verified();
    assert_eq!(recorded(&mut machine, came(entry, 1, vec![said(FeedbackKind::Hard, &[])])), None, "it is going");
    loop {
        match machine.apply(Op::DrainAccount(pb::DrainAccount { user_id: user(1).to_bytes() })) {
            Made::AccountDraining(draining) if draining.is_empty => break,
            Made::AccountDraining(_) => machine.assert_verified(),
            other => panic!("{other:?}"),
        }
    }
    machine.done(Op::FinishDeletion(pb::FinishDeletion { user_id: user(1).to_bytes() }));
    machine.assert_verified();
    assert_gone(&machine, 1);
    assert_eq!(machine.store.get(&Key::Sending(user(1)).bytes()).unwrap(), None);
}
