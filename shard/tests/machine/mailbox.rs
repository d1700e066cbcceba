//! Messages: what the random runs do not reach.

use bytes::Bytes;
use postrider_api::id::EmailId;
use postrider_api::keyword::Keywords;
use postrider_api::limit::{TOMBSTONES_MAX, UPDATES_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Missing};
use postrider_shard::key::{KeyRange, Table};
use postrider_shard::store::{Direction, Reader};
use postrider_shard::{INBOX, TRASH, modseq};
use prost::Message as _;

use crate::harness::{Machine, accept, delete, hash, mark, message, move_to, recipients, update, user};

#[test]
fn one_copy_for_each_user_whatever_his_addresses() {
    let mut machine = Machine::with_users(2);
    let accepted = machine.accepted(accept(&[1, 2, 1, 9, 9], message(1, None, &[])));
    assert_eq!(accepted.deliveries.len(), 2);
    let ask = Ask::GetQueueEntry(pb::GetQueueEntry { entry: accepted.entry, with_body: false });
    let Answer::QueueEntry(pb::QueueEntry { waiting: Some(entry), .. }) = machine.ask(ask) else {
        panic!("an entry was wanted")
    };
    assert_eq!(entry.pending.len(), 1);
    assert!(entry.message.unwrap().body.unwrap().text.is_empty(), "the text is stored once");
    assert_eq!(machine.store.scan(&KeyRange::table(Table::Bodies), Direction::Forward).count(), 1);
    machine.assert_verified();
}

#[test]
fn different_messages_with_one_message_id_are_both_kept() {
    let mut machine = Machine::with_users(1);
    machine.accepted(accept(&[1], message(1, Some(hash(1)), &[])));
    machine.accepted(accept(&[1], message(2, Some(hash(1)), &[])));
    let rows = machine.messages(1, INBOX);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].thread_id, rows[1].thread_id);
    let ask =
        pb::FindMessageId { message_id_hash: Bytes::copy_from_slice(&hash(1).0), limit: 10, ..Default::default() };
    let Answer::FoundMessages(found) = machine.ask(Ask::FindMessageId(ask)) else { panic!("messages were wanted") };
    assert_eq!((found.messages.len(), found.more), (2, false));
    let ask = pb::FindMessageId { message_id_hash: Bytes::copy_from_slice(&hash(1).0), limit: 1, ..Default::default() };
    let Answer::FoundMessages(found) = machine.ask(Ask::FindMessageId(ask)) else { panic!("messages were wanted") };
    assert_eq!((found.messages.len(), found.more), (1, true));
    // The id that SMTP's reply names leads to the one copy.
    let ask = pb::FindMessageId { email_id: rows[1].email_id.clone(), limit: 10, ..Default::default() };
    let Answer::FoundMessages(found) = machine.ask(Ask::FindMessageId(ask)) else { panic!("messages were wanted") };
    assert_eq!(found.messages.iter().map(|message| &message.email_id).collect::<Vec<_>>(), [&rows[1].email_id]);
}

#[test]
fn the_clock_never_goes_back_for_a_mailbox() {
    let mut machine = Machine::with_users(1);
    let mut last = EmailId([0; 16]);
    for tick in [0, 0, 5, -1_000_000, 0, 3, i64::MIN / 2, 7, i64::MAX, 0, 0] {
        machine.now = machine.now.saturating_add(tick);
        let made = machine.accepted(accept(&[1], message(1, None, &[])));
        let id = EmailId::try_from(&made.deliveries[0].email_id).unwrap();
        assert!(id > last && id.ms() > last.ms());
        last = id;
    }
    let rows = machine.messages(1, INBOX);
    assert!(rows.windows(2).all(|pair| pair[0].email_id > pair[1].email_id), "newest first");
}

#[test]
fn a_sender_may_write_to_himself() {
    let mut machine = Machine::with_users(1);
    let send = Op::Send(pb::Send {
        user_id: user(1).to_bytes(),
        mail_from: "user1@test.example".to_owned(),
        recipients: recipients(&[1]),
        message: Some(message(1, Some(hash(1)), &[])),
        answered: Bytes::new(),
        ..Default::default()
    });
    let command = machine.command(send);
    let applied = machine.run(command);
    let Some(pb::outcome::Result::Sent(sent)) = applied.outcome.result else { panic!("sent") };
    let copy = sent.sent_copy.unwrap();
    assert_eq!((sent.entry, sent.deliveries.len()), (0, 1));
    assert_eq!(copy.thread_id, sent.deliveries[0].thread_id);
    assert_eq!(machine.message(1, &copy.email_id).unwrap().keywords, Keywords::SEEN.0);
    assert_eq!(machine.message(1, &sent.deliveries[0].email_id).unwrap().keywords, 0);
    // One wake-up for the mailbox, with its newest modseq.
    assert_eq!(applied.touched, [(user(1), modseq(&machine.store, user(1)).unwrap().unwrap())]);
    machine.assert_verified();
}

/// All recipients are in other zones: the copy in Sent is all that this shard makes.
#[test]
fn a_message_without_recipients_here_is_in_sent() {
    let mut machine = Machine::with_users(1);
    let send = Op::Send(pb::Send {
        user_id: user(1).to_bytes(),
        mail_from: "user1@test.example".to_owned(),
        recipients: Vec::new(),
        message: Some(message(1, Some(hash(1)), &[])),
        answered: Bytes::new(),
        ..Default::default()
    });
    let pb::outcome::Result::Sent(sent) = machine.apply(send) else { panic!("sent") };
    assert_eq!((sent.entry, sent.deliveries.len()), (0, 0));
    assert_eq!(machine.message(1, &sent.sent_copy.unwrap().email_id).unwrap().keywords, Keywords::SEEN.0);
    machine.assert_verified();
}

/// Whoever asks again gets the first plan, whatever he would have planned.
#[test]
fn a_plan_is_kept_under_its_request() {
    let mut machine = Machine::with_users(1);
    let plan = |date_ms, shard| pb::SendPlan {
        date_ms,
        message_id: Bytes::from_static(&[7; 16]),
        takers: vec![pb::ZoneTaker { zone: 2, shard }],
    };
    let ask = |machine: &mut Machine, user_number, plan| {
        let op = Op::PlanSend(pb::PlanSend { user_id: user(user_number).to_bytes(), plan: Some(plan) });
        let mut command = machine.command(op);
        command.request = Bytes::from_static(&[9; 16]);
        machine.run(command).outcome.result
    };
    let first = pb::outcome::Result::SendPlanned(plan(1, 1100));
    assert_eq!(ask(&mut machine, 1, plan(1, 1100)), Some(first.clone()));
    assert_eq!(ask(&mut machine, 1, plan(2, 1101)), Some(first));
    machine.assert_verified();
    for wrong in [
        pb::SendPlan { message_id: Bytes::new(), ..plan(1, 1100) },
        pb::SendPlan { takers: Vec::new(), ..plan(1, 1100) },
        plan(1, 2),
        pb::SendPlan { takers: plan(1, 1100).takers.repeat(2), ..plan(1, 1100) },
    ] {
        let op = Op::PlanSend(pb::PlanSend { user_id: user(1).to_bytes(), plan: Some(wrong) });
        assert_eq!(machine.refused(op).0, pb::Refusal::Malformed);
    }
    let nobody = Op::PlanSend(pb::PlanSend { user_id: user(5).to_bytes(), plan: Some(plan(1, 1100)) });
    assert_eq!(machine.refused(nobody).0, pb::Refusal::UnknownUser);
}

#[test]
fn moves_take_a_new_uid_and_the_old_one_is_not_used_again() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<Bytes> =
        (0..3).map(|n| machine.accepted(accept(&[1], message(n, None, &[]))).deliveries[0].email_id.clone()).collect();
    let uid = |machine: &Machine, id: &Bytes| machine.message(1, id).unwrap().uid;
    assert_eq!(ids.iter().map(|id| uid(&machine, id)).collect::<Vec<_>>(), [1, 2, 3]);
    machine.changed(update(1, vec![move_to(&ids[1], TRASH)]));
    assert_eq!(uid(&machine, &ids[1]), 1);
    machine.changed(update(1, vec![move_to(&ids[1], INBOX)]));
    assert_eq!(uid(&machine, &ids[1]), 4);
    machine.changed(update(1, vec![delete(&ids[1])]));
    machine.changed(update(1, vec![delete(&ids[1])]));
    assert_eq!(machine.message(1, &ids[1]), None);
    let next = machine.accepted(accept(&[1], message(9, None, &[])));
    assert_eq!(uid(&machine, &next.deliveries[0].email_id), 5);
    machine.assert_verified();
}

#[test]
fn what_is_so_already_takes_no_modseq() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[1], message(1, None, &[]))).deliveries[0].email_id.clone();
    let before = machine.account(1).modseq;
    let same = pb::MessageUpdate {
        folder_id: Some(INBOX.0),
        ..mark(&id, Keywords::default(), Keywords::SEEN | Keywords::FLAGGED)
    };
    let command = machine.command(update(1, vec![same]));
    let applied = machine.run(command);
    assert!(applied.touched.is_empty());
    assert_eq!(machine.account(1).modseq, before);
}

#[test]
fn a_thousand_messages_change_in_one_command() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<Bytes> = (0..UPDATES_MAX as u32)
        .map(|n| machine.accepted(accept(&[1], message(n, Some(hash(1)), &[]))).deliveries[0].email_id.clone())
        .collect();
    let read = |id: &Bytes| mark(id, Keywords::SEEN, Keywords::default());
    machine.changed(update(1, ids.iter().map(read).collect()));
    assert_eq!(machine.folders(1)[0].unread, 0);
    machine.changed(update(1, ids.iter().map(delete).collect()));
    machine.changed(update(1, ids.iter().map(delete).collect()));
    assert_eq!(machine.account(1).messages, 0);
    assert_eq!(machine.account(1).used_bytes, 0);
    for table in [
        Table::Bodies,
        Table::Threads,
        Table::MessageIds,
        Table::References,
        Table::FolderThreads,
        Table::Uids,
        Table::Attachments,
    ] {
        assert_eq!(machine.store.scan(&KeyRange::table(table), Direction::Forward).count(), 0, "{}", table.name());
    }
    machine.assert_verified();
}

#[test]
fn a_page_of_the_largest_rows_is_whole_and_fits_into_a_reply() {
    let mut machine = Machine::with_users(1);
    for n in 0..201 {
        let mut large = message(n, None, &[]);
        let crowd = pb::Mailbox { name: "n".repeat(255), email: "e".repeat(254) };
        large.preview = "p".repeat(256);
        let envelope = large.envelope.as_mut().unwrap();
        envelope.subject = "s".repeat(1000);
        envelope.to = vec![crowd.clone(); 200];
        envelope.from = vec![crowd; 200];
        machine.accepted(accept(&[1], large));
    }
    let first = machine.page(1, INBOX, None, 200, None);
    assert_eq!((first.rows.len(), first.more), (200, true));
    assert!(first.encoded_len() < postrider_api::limit::REPLY_BYTES_MAX / 2);
    let last = EmailId::try_from(&first.rows.last().unwrap().email_id).unwrap();
    let second = machine.page(1, INBOX, None, 200, Some(last));
    assert_eq!((second.rows.len(), second.more), (1, false));
}

#[test]
fn tombstones_are_bounded_and_raise_the_floor() {
    let mut machine = Machine::with_users(1);
    let keep = machine.accepted(accept(&[1], message(0, None, &[]))).deliveries[0].email_id.clone();
    let surplus = 500;
    let mut erased = 0;
    while erased < TOMBSTONES_MAX + surplus {
        let ids: Vec<Bytes> = (0..500)
            .map(|n| machine.accepted(accept(&[1], message(n, None, &[]))).deliveries[0].email_id.clone())
            .collect();
        machine.changed(update(1, ids.iter().map(delete).collect()));
        machine.changed(update(1, ids.iter().map(delete).collect()));
        erased += 500;
    }
    let account = machine.account(1);
    assert_eq!(account.tombstones, TOMBSTONES_MAX);
    assert!(account.changes_floor > 0);
    assert_eq!(machine.changes(1, account.changes_floor - 1, 10), None, "resync in full");
    let page = machine.changes(1, account.changes_floor, 200).unwrap();
    assert!(page.more && page.changes.len() == 200);
    // What lives is still in the feed's rows.
    assert!(machine.message(1, &keep).is_some());
    machine.assert_verified();
}

#[test]
fn a_message_without_its_content_is_small_and_as_new() {
    let mut machine = Machine::with_users(1);
    let id = machine.accepted(accept(&[1], message(0, None, &[]))).deliveries[0].email_id.clone();
    machine.changed(update(1, vec![mark(&id, Keywords::SEEN, Keywords::default())]));
    let whole = machine.message(1, &id).unwrap();
    let ask =
        Ask::GetMessage(pb::GetMessage { user_id: user(1).to_bytes(), email_id: id.clone(), without_content: true });
    let Answer::Message(state) = machine.ask(ask) else { panic!("it is there") };
    assert!(state.encoded_len() < 200, "{}", state.encoded_len());
    assert_eq!((state.keywords, state.modseq), (whole.keywords, whole.modseq));
    // The rest of it is all that the other one has more.
    let joined = pb::EmailRecord {
        envelope: whole.envelope.clone(),
        preview: whole.preview.clone(),
        parts: whole.parts.clone(),
        pieces: whole.pieces.clone(),
        message_id_hash: whole.message_id_hash.clone(),
        reference_hashes: whole.reference_hashes.clone(),
        mail_from: whole.mail_from.clone(),
        ..state
    };
    assert_eq!(joined, whole);
}

#[test]
fn what_is_not_there() {
    let machine = Machine::with_users(1);
    let nobody = user(9).to_bytes();
    let nothing = Bytes::from_static(&[9; 16]);
    let someone = user(1).to_bytes();
    let asks = [
        (Ask::GetAccount(pb::GetAccount { user_id: nobody.clone() }), Missing::User),
        (Ask::ListFolders(pb::ListFolders { user_id: nobody.clone() }), Missing::User),
        (
            Ask::ListMessages(pb::ListMessages { user_id: someone.clone(), folder_id: 99, ..Default::default() }),
            Missing::Folder,
        ),
        (
            Ask::ListThreads(pb::ListThreads { user_id: someone.clone(), folder_id: 99, ..Default::default() }),
            Missing::Folder,
        ),
        (
            Ask::GetMessage(pb::GetMessage {
                user_id: someone.clone(),
                email_id: nothing.clone(),
                ..Default::default()
            }),
            Missing::Message,
        ),
        (
            Ask::GetMessage(pb::GetMessage {
                user_id: someone.clone(),
                email_id: nothing.clone(),
                without_content: true,
            }),
            Missing::Message,
        ),
        (Ask::GetBody(pb::GetBody { user_id: someone.clone(), email_id: nothing.clone() }), Missing::Message),
        (
            Ask::GetThread(pb::GetThread { user_id: someone.clone(), thread_id: nothing, ..Default::default() }),
            Missing::Thread,
        ),
        (Ask::ListChanges(pb::ListChanges { user_id: nobody.clone(), since: 0, limit: 1 }), Missing::User),
        (Ask::GetQueueEntry(pb::GetQueueEntry { entry: 1, with_body: false }), Missing::Entry),
        (
            Ask::GetSession(pb::GetSession { user_id: someone, token_hash: Bytes::from_static(&[1; 32]) }),
            Missing::Session,
        ),
    ];
    for (ask, missing) in asks {
        match machine.ask(ask) {
            Answer::NotFound(found) => assert_eq!(found.missing(), missing),
            other => panic!("{other:?}"),
        }
    }
    let state = Ask::CheckRecipient(pb::CheckRecipient { user_id: nobody, size: 1 });
    assert_eq!(
        machine.ask(state),
        Answer::Recipient(pb::RecipientState { active: false, over_quota: false, ..Default::default() })
    );
}

#[test]
fn a_message_of_one_user_is_nothing_to_another() {
    let mut machine = Machine::with_users(2);
    let made = machine.accepted(accept(&[1], message(1, Some(hash(1)), &[])));
    let (email, thread) = (&made.deliveries[0].email_id, &made.deliveries[0].thread_id);
    assert_eq!(machine.message(2, email), None);
    let ask = pb::GetThread { user_id: user(2).to_bytes(), thread_id: thread.clone(), ..Default::default() };
    assert!(matches!(machine.ask(Ask::GetThread(ask)), Answer::NotFound(_)));
    let (refusal, _) = machine.refused(update(2, vec![delete(email)]));
    assert_eq!(refusal, pb::Refusal::UnknownMessage);
    // The same Message-ID in another mailbox is another thread.
    let other = machine.accepted(accept(&[2], message(2, Some(hash(1)), &[])));
    assert_ne!(other.deliveries[0].thread_id, *thread);
}
