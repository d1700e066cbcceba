//! Keywords, and labels of the user's own.

use std::collections::BTreeSet;

use bytes::Bytes;
use postrider_api::id::{FolderId, LabelId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{LABELS_MAX, MESSAGE_LABELS_MAX, UPDATES_MAX};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, Missing, Refusal};
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader, Txn};
use postrider_shard::{ARCHIVE, INBOX, JUNK, TRASH, apply};

use crate::harness::{
    Machine, accept, create_label, delete, delete_folder, delete_label, hash, mark, message, move_to, recipients,
    relabel, update, user,
};

const NONE: Keywords = Keywords(0);

pub(crate) fn made(machine: &mut Machine, n: u8, name: &str) -> LabelId {
    match machine.apply(create_label(n, name, 0x12_34_56)) {
        Made::LabelState(made) => LabelId(made.label_id),
        other => panic!("{other:?}"),
    }
}

fn change(label: LabelId, name: Option<&str>, color: Option<u32>) -> Op {
    Op::UpdateLabel(pb::UpdateLabel {
        user_id: user(1).to_bytes(),
        label_id: label.0,
        name: name.map(str::to_owned),
        color,
    })
}

fn changed(machine: &mut Machine, op: Op) -> pb::LabelState {
    match machine.apply(op) {
        Made::LabelState(state) => state,
        other => panic!("{other:?}"),
    }
}

fn delivered(machine: &mut Machine, n: u32) -> Bytes {
    machine.accepted(accept(&[1], message(n, None, &[]))).deliveries[0].email_id.clone()
}

fn listed(machine: &Machine, label: LabelId) -> Vec<Bytes> {
    machine.labelled(1, label, None, 0, None).rows.into_iter().map(|row| row.email_id).collect()
}

fn counts(machine: &Machine, label: LabelId) -> (u64, u64, u64) {
    let label = machine.labels(1).into_iter().find(|other| other.label_id == label.0).unwrap();
    (label.total, label.unread, label.hidden)
}

#[test]
fn a_name_is_trimmed_and_taken_once() {
    let mut machine = Machine::with_users(2);
    assert_eq!(machine.labels(1), []);
    let work = made(&mut machine, 1, "  Work ");
    let label = machine.labels(1).pop().unwrap();
    assert_eq!((label.name.as_str(), label.color), ("Work", 0x12_34_56));
    assert_eq!(machine.refused(create_label(1, "wORK", 0)).0, Refusal::LabelExists);
    // A folder of the name is another thing, and another user's label another label.
    made(&mut machine, 1, "Inbox");
    made(&mut machine, 2, "Work");
    let home = made(&mut machine, 1, "Home");
    assert_eq!(machine.refused(change(home, Some("work"), None)).0, Refusal::LabelExists);
    let state = changed(&mut machine, change(work, Some("WORK"), Some(0xff_ff_ff)));
    assert_eq!((state.name.as_str(), state.color), ("WORK", 0xff_ff_ff));
    assert_eq!((machine.labels(1)[0].name.as_str(), machine.labels(1)[0].color), ("WORK", 0xff_ff_ff));
    // What is so already is no change.
    assert_eq!(changed(&mut machine, change(work, Some("WORK"), Some(0xff_ff_ff))), state);
    assert_eq!(machine.account(1).modseq, state.modseq);
    machine.changed(delete_label(1, work));
    assert!(made(&mut machine, 1, "work") > home, "an id is never used again");
    machine.assert_verified();
}

#[test]
fn what_may_not_be() {
    let mut machine = Machine::with_users(1);
    for name in ["", "  ", "a/b", "a\nb", "\u{7f}", &"x".repeat(256)] {
        assert_eq!(machine.refused(create_label(1, name, 0)).0, Refusal::Malformed, "{name:?}");
    }
    assert_eq!(machine.refused(create_label(1, "a", 0x100_0000)).0, Refusal::Malformed);
    assert_eq!(machine.refused(create_label(9, "a", 0)).0, Refusal::UnknownUser);
    assert_eq!(machine.refused(change(LabelId(1), Some("a"), None)).0, Refusal::UnknownLabel);
    assert_eq!(machine.refused(delete_label(1, LabelId(1))).0, Refusal::UnknownLabel);
    let label = made(&mut machine, 1, "a");
    assert_eq!(machine.refused(change(label, Some("b/c"), None)).0, Refusal::Malformed);
    assert_eq!(machine.refused(change(label, None, Some(u32::MAX))).0, Refusal::Malformed);
    let id = delivered(&mut machine, 1);
    let unknown = LabelId(99);
    for (bad, refusal) in [
        (relabel(&id, &[label, unknown], &[]), Refusal::UnknownLabel),
        (relabel(&id, &[], &[unknown]), Refusal::UnknownLabel),
        (relabel(&id, &[label], &[label]), Refusal::Malformed),
        (mark(&id, Keywords::SEEN, Keywords::SEEN), Refusal::Malformed),
        (mark(&id, Keywords::JUNK | Keywords::NOTJUNK, NONE), Refusal::Malformed),
        (mark(&id, Keywords(1 << 9), NONE), Refusal::Malformed),
        (mark(&id, NONE, Keywords(1 << 31)), Refusal::Malformed),
    ] {
        assert_eq!(machine.refused(update(1, vec![bad])).0, refusal);
    }
    let ask = |label| {
        Ask::ListLabelMessages(pb::ListLabelMessages {
            user_id: user(1).to_bytes(),
            label_id: label,
            ..Default::default()
        })
    };
    let Answer::NotFound(missing) = machine.ask(ask(99)) else { panic!("there is none") };
    assert_eq!(missing.missing(), Missing::Label);
    let Answer::Messages(page) = machine.ask(ask(label.0)) else { panic!("there is one") };
    assert_eq!(page.rows, []);
    let Answer::NotFound(missing) = machine.ask(Ask::ListLabels(pb::ListLabels { user_id: user(9).to_bytes() })) else {
        panic!("there is no such user")
    };
    assert_eq!(missing.missing(), Missing::User);
}

#[test]
fn there_are_limits() {
    let mut machine = Machine::with_users(1);
    let labels: Vec<LabelId> = (0..LABELS_MAX).map(|n| made(&mut machine, 1, &format!("label {n}"))).collect();
    assert_eq!(machine.refused(create_label(1, "one more", 0)).0, Refusal::LabelsTooMany);
    let id = delivered(&mut machine, 1);
    machine.changed(update(1, vec![relabel(&id, &labels[..MESSAGE_LABELS_MAX], &[])]));
    let more = relabel(&id, &[labels[MESSAGE_LABELS_MAX]], &[]);
    assert_eq!(machine.refused(update(1, vec![more])).0, Refusal::MessageLabelsTooMany);
    // In the place of another it is one of as many.
    machine.changed(update(1, vec![relabel(&id, &[labels[MESSAGE_LABELS_MAX]], &[labels[0]])]));
    assert_eq!(machine.message(1, &id).unwrap().labels.len(), MESSAGE_LABELS_MAX);
    let too_many = relabel(&id, &labels[..=MESSAGE_LABELS_MAX], &[]);
    assert_eq!(machine.refused(update(1, vec![too_many])).0, Refusal::Malformed);
    machine.assert_verified();
}

#[test]
fn a_message_has_labels_wherever_it_is_moved() {
    let mut machine = Machine::with_users(1);
    let (work, home) = (made(&mut machine, 1, "Work"), made(&mut machine, 1, "Home"));
    let ids: Vec<Bytes> = (0..4).map(|n| delivered(&mut machine, n)).collect();
    machine.changed(update(1, ids.iter().map(|id| relabel(id, &[home, work, home], &[])).collect()));
    assert_eq!(machine.message(1, &ids[0]).unwrap().labels, [work.0, home.0]);
    machine.changed(update(1, vec![mark(&ids[1], Keywords::SEEN, NONE), move_to(&ids[2], ARCHIVE)]));
    let newest_first: Vec<Bytes> = ids.iter().rev().cloned().collect();
    assert_eq!(listed(&machine, work), newest_first);
    assert_eq!(counts(&machine, work), (4, 3, 0));
    let of_folder =
        |folder: FolderId| machine.messages(1, folder).into_iter().map(|row| row.labels).collect::<Vec<_>>();
    assert_eq!(of_folder(ARCHIVE), [[work.0, home.0]]);
    machine.changed(update(1, vec![relabel(&ids[1], &[], &[work])]));
    assert_eq!(listed(&machine, work), [ids[3].clone(), ids[2].clone(), ids[0].clone()]);
    assert_eq!(listed(&machine, home), newest_first);
    machine.assert_verified();
}

#[test]
fn what_is_in_trash_or_junk_is_not_listed_and_keeps_its_labels() {
    let mut machine = Machine::with_users(1);
    let work = made(&mut machine, 1, "Work");
    let ids: Vec<Bytes> = (0..3).map(|n| delivered(&mut machine, n)).collect();
    machine.changed(update(1, ids.iter().map(|id| relabel(id, &[work], &[])).collect()));
    machine.changed(update(1, vec![delete(&ids[0]), move_to(&ids[1], JUNK)]));
    assert_eq!(listed(&machine, work), [ids[2].clone()]);
    assert_eq!(counts(&machine, work), (1, 1, 2));
    machine.assert_verified();
    machine.changed(update(1, vec![move_to(&ids[0], INBOX), delete(&ids[1])]));
    assert_eq!(listed(&machine, work), [ids[2].clone(), ids[0].clone()]);
    // For good: from every list.
    machine.changed(update(1, vec![delete(&ids[1])]));
    assert_eq!(counts(&machine, work), (2, 2, 0));
    machine.assert_verified();
}

#[test]
fn a_folder_that_goes_hides_its_messages_from_their_labels() {
    let mut machine = Machine::with_users(1);
    let work = made(&mut machine, 1, "Work");
    let folder = crate::folders::made(&mut machine, "Folder");
    let id = delivered(&mut machine, 1);
    machine.changed(update(1, vec![pb::MessageUpdate { folder_id: Some(folder.0), ..relabel(&id, &[work], &[]) }]));
    machine.changed(delete_folder(1, folder));
    assert_eq!(counts(&machine, work), (0, 0, 1));
    machine.assert_verified();
}

#[test]
fn a_label_of_many_messages_drains_in_steps() {
    let mut machine = Machine::with_users(1);
    let (large, other) = (made(&mut machine, 1, "Large"), made(&mut machine, 1, "Other"));
    let total = 2 * UPDATES_MAX + 3;
    let ids: Vec<Bytes> = (0..total).map(|n| delivered(&mut machine, n as u32)).collect();
    for some in ids.chunks(UPDATES_MAX) {
        machine.changed(update(1, some.iter().map(|id| relabel(id, &[large, other], &[])).collect()));
    }
    machine.changed(update(1, ids[..10].iter().map(delete).collect()));
    machine.changed(update(1, ids[10..20].iter().map(|id| mark(id, Keywords::SEEN, NONE)).collect()));
    for remaining in [UPDATES_MAX + 3, 3] {
        let Made::LabelDraining(draining) = machine.apply(delete_label(1, large)) else { panic!("draining") };
        assert_eq!(draining.remaining, remaining as u64);
        let (total, _, hidden) = counts(&machine, large);
        assert_eq!(total + hidden, remaining as u64);
    }
    machine.changed(delete_label(1, large));
    assert_eq!(counts(&machine, other), (total as u64 - 10, total as u64 - 20, 10));
    assert_eq!(machine.folders(1)[0].total + machine.folders(1)[5].total, total as u64, "its messages stay");
    assert_eq!(machine.refused(delete_label(1, large)).0, Refusal::UnknownLabel);
    for table in [Table::LabelUnread, Table::LabelRead, Table::LabelHidden] {
        let left = machine.store.scan(&KeyRange::label(table, user(1), large), Direction::Forward).count();
        assert_eq!(left, 0, "{}", table.name());
    }
    machine.assert_verified();
}

/// Lines of lists with as many long addresses as they may have, in as many lists as there may be: all or nothing of some, and
/// nothing of too many.
#[test]
fn what_a_command_writes_into_lists_is_bounded() {
    let mut machine = Machine::with_users(1);
    let labels: Vec<LabelId> = (0..MESSAGE_LABELS_MAX).map(|n| made(&mut machine, 1, &format!("label {n}"))).collect();
    let ids: Vec<Bytes> = (0..200)
        .map(|n| {
            let mut long = message(n, None, &[]);
            let address = pb::Mailbox { name: "x".repeat(255), email: "y".repeat(254) };
            long.envelope.as_mut().unwrap().to = vec![address; 20];
            machine.accepted(accept(&[1], long)).deliveries[0].email_id.clone()
        })
        .collect();
    let label = |ids: &[Bytes]| update(1, ids.iter().map(|id| relabel(id, &labels, &[])).collect());
    assert_eq!(machine.refused(label(&ids)).0, Refusal::UpdateTooLarge);
    for some in ids.chunks(100) {
        machine.changed(label(some));
    }
    // What the server itself makes of many it makes in steps.
    let Made::LabelDraining(draining) = machine.apply(delete_label(1, labels[0])) else { panic!("draining") };
    assert!((1..200).contains(&draining.remaining), "{draining:?}");
    machine.changed(delete_label(1, labels[0]));
    machine.assert_verified();
}

#[test]
fn keywords_of_every_kind() {
    let mut machine = Machine::with_users(1);
    let id = delivered(&mut machine, 1);
    machine.changed(update(1, vec![mark(&id, Keywords(Keywords::ALL.0 & !Keywords::NOTJUNK.0), NONE)]));
    machine.changed(update(1, vec![mark(&id, Keywords::NOTJUNK, Keywords::SEEN)]));
    let left = Keywords(Keywords::ALL.0 & !Keywords::JUNK.0 & !Keywords::SEEN.0);
    assert_eq!(machine.message(1, &id).unwrap().keywords, left.0);
    let change = machine.changes(1, 0, 0).unwrap().changes.pop().unwrap().change.unwrap();
    assert_eq!((change.email_id, change.keywords), (id, left.0));
    machine.assert_verified();
}

#[test]
fn the_flagged_are_a_list_of_their_own() {
    let mut machine = Machine::with_users(1);
    let ids: Vec<Bytes> = (0..5).map(|n| delivered(&mut machine, n)).collect();
    machine.changed(update(1, [0, 2, 4].map(|n: usize| mark(&ids[n], Keywords::FLAGGED, NONE)).to_vec()));
    machine.changed(update(1, vec![mark(&ids[2], NONE, Keywords::FLAGGED), move_to(&ids[0], ARCHIVE)]));
    let flagged =
        |folder| machine.flagged(1, folder, 0, None).rows.into_iter().map(|row| row.email_id).collect::<Vec<_>>();
    assert_eq!(flagged(INBOX), [ids[4].clone()]);
    assert_eq!(flagged(ARCHIVE), [ids[0].clone()]);
    machine.assert_verified();
}

#[test]
fn who_answers_has_answered() {
    let mut machine = Machine::with_users(2);
    let id = machine.accepted(accept(&[1], message(1, Some(hash(1)), &[]))).deliveries[0].email_id.clone();
    let theirs = machine.accepted(accept(&[2], message(2, None, &[]))).deliveries[0].email_id.clone();
    let mut send = |n: u32, answered: &Bytes| {
        let send = pb::Send {
            user_id: user(1).to_bytes(),
            mail_from: "user1@test.example".to_owned(),
            recipients: recipients(&[2]),
            message: Some(message(n, None, &[hash(1)])),
            answered: answered.clone(),
            ..Default::default()
        };
        let Made::Sent(sent) = machine.apply(Op::Send(send)) else { panic!("sent") };
        (sent.sent_copy.unwrap(), machine.message(1, &id), machine.message(2, &theirs).unwrap().keywords)
    };
    let (copy, answered, _) = send(3, &id);
    let answered = answered.unwrap();
    assert_eq!(answered.keywords, Keywords::ANSWERED.0);
    assert_eq!(answered.thread_id, copy.thread_id);
    assert!(copy.modseq > answered.modseq, "who waits for the copy's change sees the other");
    // Another's message, and one that is gone, are not the sender's: the answer goes out all the same.
    assert_eq!(send(4, &theirs).2, 0);
    send(5, &Bytes::from_static(&[9; 16]));
    let short = Op::Send(pb::Send {
        user_id: user(1).to_bytes(),
        recipients: recipients(&[2]),
        message: Some(message(6, None, &[])),
        answered: Bytes::from_static(b"short"),
        ..Default::default()
    });
    assert_eq!(machine.refused(short).0, Refusal::Malformed);
    machine.assert_verified();
}

#[test]
fn a_client_is_told_of_labels() {
    let mut machine = Machine::with_users(1);
    let since = machine.account(1).modseq;
    let work = made(&mut machine, 1, "Work");
    let id = delivered(&mut machine, 1);
    machine.changed(update(1, vec![relabel(&id, &[work], &[])]));
    let kinds = |machine: &Machine| {
        let changes = machine.changes(1, since, 0).unwrap().changes;
        changes.into_iter().map(|change| change.change.unwrap()).collect::<Vec<_>>()
    };
    let told = kinds(&machine);
    assert_eq!((told[0].kind(), told[0].label_id), (pb::ChangeKind::LabelCreated, work.0));
    assert_eq!((told[1].kind(), &told[1].labels), (pb::ChangeKind::MessageUpdated, &vec![work.0]));
    machine.changed(delete_label(1, work));
    let told = kinds(&machine);
    assert_eq!((told[0].kind(), told[0].labels.len()), (pb::ChangeKind::MessageUpdated, 0));
    assert_eq!((told[1].kind(), told[1].label_id), (pb::ChangeKind::LabelDeleted, work.0));
    machine.assert_verified();
}

/// P-13: a delivery without labels writes the rows that it always wrote, and a mark those of its message.
#[test]
fn rows_of_a_delivery_and_of_a_mark() {
    let mut machine = Machine::with_users(1);
    made(&mut machine, 1, "Work");
    delivered(&mut machine, 0);
    let rows = |machine: &mut Machine, op: Op| {
        let command = machine.command(op);
        let below = machine.store.clone();
        let mut txn = Txn::new(&below);
        apply(machine.shard, &mut txn, machine.index + 1, &command).unwrap();
        machine.run(command);
        let written = txn.into_writes().map(|(key, _)| Key::decode(key.as_ref()).unwrap().table());
        written.collect::<BTreeSet<Table>>()
    };
    use Table::*;
    let delivery = rows(&mut machine, accept(&[1], message(1, Some(hash(1)), &[])));
    let always = [
        Shard,
        Accounts,
        Folders,
        FolderEmails,
        UnreadEmails,
        Emails,
        Uids,
        Threads,
        MessageIds,
        FolderThreads,
        Changes,
        Tail,
        BodyHeads,
        Bodies,
        References,
    ];
    assert_eq!(delivery, BTreeSet::from(always));
    let id = machine.messages(1, INBOX)[0].email_id.clone();
    let marked = rows(&mut machine, update(1, vec![mark(&id, Keywords::SEEN, NONE)]));
    let small =
        [Shard, Accounts, Folders, FolderEmails, UnreadEmails, ReadEmails, Emails, Uids, FolderThreads, Changes, Tail];
    assert_eq!(marked, BTreeSet::from(small));
    assert_eq!(machine.messages(1, TRASH), []);
}
