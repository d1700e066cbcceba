//! Who may put how much into a mailbox.

use postrider_api::limit::{MESSAGE_BYTES_MAX, QUOTA_OVERRUN_BYTES_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Refusal};
use postrider_shard::INBOX;
use postrider_shard::key::Key;

use crate::harness::{Machine, accept, create_account, deliver, message, recipients, request, user};
use prost::Message;

const QUOTA: u64 = 1000;

fn machine() -> Machine {
    let mut machine = Machine::with_users(1);
    machine.changed(create_account(2, QUOTA));
    machine
}

fn of_size(size: u64) -> pb::NewMessage {
    pb::NewMessage { size, ..message(1, None, &[]) }
}

#[test]
fn a_single_recipient_is_checked_to_the_byte() {
    let mut machine = machine();
    let check = |machine: &Machine, size| {
        machine.ask(Ask::CheckRecipient(pb::CheckRecipient { user_id: user(2).to_bytes(), size }))
    };
    machine.accepted(accept(&[2], of_size(QUOTA - 1)));
    assert_eq!(
        check(&machine, 1),
        Answer::Recipient(pb::RecipientState { active: true, over_quota: false, ..Default::default() })
    );
    assert_eq!(
        check(&machine, 2),
        Answer::Recipient(pb::RecipientState { active: true, over_quota: true, ..Default::default() })
    );
    assert_eq!(machine.refused(accept(&[2], of_size(2))).0, Refusal::QuotaExceeded);
    // The same user named twice is still one.
    assert_eq!(machine.refused(accept(&[2, 2], of_size(2))).0, Refusal::QuotaExceeded);
    machine.accepted(accept(&[2], of_size(1)));
    assert_eq!(machine.account(2).used_bytes, QUOTA);
    machine.assert_verified();
}

#[test]
fn several_recipients_and_transfers_may_overrun() {
    let mut machine = machine();
    machine.accepted(accept(&[1, 2], of_size(QUOTA + 5)));
    machine.delivered(deliver(&[(2, request(1))], of_size(QUOTA)));
    assert_eq!(machine.messages(2, INBOX).len(), 2);
    machine.assert_verified();
}

#[test]
fn beyond_the_bound_mail_waits_and_never_bounces() {
    let mut machine = machine();
    // As full as the bound allows: many messages of the largest size, so the account is filled up by hand.
    let mut account = machine.account(2);
    account.used_bytes = QUOTA + QUOTA_OVERRUN_BYTES_MAX;
    machine.store.put(Key::Account(user(2)).bytes(), account.encode_to_vec().into());
    let accepted = machine.accepted(accept(&[1, 2], of_size(1)));
    assert_eq!(accepted.deliveries.len(), 1);
    let Answer::QueueEntry(pb::QueueEntry { waiting: Some(entry), .. }) =
        machine.ask(Ask::GetQueueEntry(pb::GetQueueEntry { entry: accepted.entry, with_body: false }))
    else {
        panic!("an entry was wanted")
    };
    assert_eq!(entry.pending[0].user_id, user(2).to_bytes());
    assert!(entry.pending[0].reason.contains("quota"));
    let delivered = machine.delivered(deliver(&[(1, request(1)), (2, request(2))], of_size(1)));
    assert_eq!(delivered.deliveries.len(), 1);
    assert_eq!(delivered.over_quota, [user(2).to_bytes()]);
    // It was not delivered, so later it may be.
    account.used_bytes = 0;
    machine.store.put(Key::Account(user(2)).bytes(), account.encode_to_vec().into());
    let delivered = machine.delivered(deliver(&[(1, request(1)), (2, request(2))], of_size(1)));
    assert_eq!((delivered.deliveries.len(), delivered.over_quota.len()), (2, 0));
    machine.assert_verified();
}

/// A message from a user of another zone is bounded as one from this zone is: its sender gets no reply for one recipient.
#[test]
fn what_another_zone_hands_over_is_not_refused() {
    let mut machine = machine();
    let Op::Accept(refused) = accept(&[2], of_size(QUOTA + 1)) else { panic!("an Accept") };
    let submitted = pb::Accept { submitted: true, ..refused.clone() };
    assert_eq!(machine.refused(Op::Accept(refused)).0, Refusal::QuotaExceeded);
    assert_eq!(machine.accepted(Op::Accept(submitted)).deliveries.len(), 1);
    machine.assert_verified();
}

#[test]
fn a_sender_needs_room_for_his_copy() {
    let mut machine = machine();
    let send = Op::Send(pb::Send {
        user_id: user(2).to_bytes(),
        mail_from: String::new(),
        recipients: recipients(&[1]),
        message: Some(of_size(QUOTA + 1)),
        ..Default::default()
    });
    assert_eq!(machine.refused(send).0, Refusal::QuotaExceeded);
}

#[test]
fn a_size_is_a_size() {
    let mut machine = machine();
    assert_eq!(machine.refused(accept(&[1], of_size(2 * MESSAGE_BYTES_MAX))).0, Refusal::Malformed);
}
