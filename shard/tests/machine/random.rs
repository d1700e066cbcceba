//! Random runs against the naive model: every list, every counter, the change feed.

use std::collections::BTreeMap;

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId, Uid};
use postrider_api::keyword::Keywords;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, ChangeKind};
use postrider_shard::key::Key;
use postrider_shard::store::Reader;
use proptest::prelude::*;
use prost::Message as _;

use crate::accounts::assert_gone;
use crate::harness::{Machine, user};
use crate::model::{Message, Model, Whom};
use crate::steps::{DOOMED, HERE, end_all, run, step};

proptest! {
    // `PROPTEST_CASES=20000` makes a campaign of it.
    #![proptest_config(ProptestConfig { max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_says_what_the_model_says(
        steps in proptest::collection::vec(step(), 1..100),
        page in 1u32..6,
        sync_every in 1usize..20,
    ) {
        let mut clients: Vec<Client> = (1..=HERE).map(Client::new).collect();
        let mut count = 0;
        let (machine, model) = run(&steps, |machine, model| {
            count += 1;
            if count % sync_every == 0 {
                clients.iter_mut().for_each(|client| client.sync(machine, model, page));
            }
        });
        clients.iter_mut().for_each(|client| client.sync(&machine, &model, page));
        for n in 1..=HERE {
            compare_mailbox(&machine, &model, n, page);
        }
        compare_queue(&machine, &model, page);
        compare_failed(&machine, &model, page);
        if model.mailboxes.contains_key(&user(DOOMED)) {
            compare_mailbox(&machine, &model, DOOMED, page);
        }
        machine.assert_verified();
        let (mut machine, mut model) = (machine, model);
        end_all(&mut machine, &mut model);
        compare_queue(&machine, &model, page);
        compare_failed(&machine, &model, page);
        machine.assert_verified();
        assert_gone(&machine, DOOMED);
    }
}

/// Someone who follows the change feed of one user from time to time, and knows nothing else.
struct Client {
    of: u8,
    since: u64,
    messages: BTreeMap<Bytes, pb::ChangeRecord>,
    folders: BTreeMap<u32, u64>,
    labels: BTreeMap<u32, u64>,
}

impl Client {
    fn new(of: u8) -> Self {
        Self { of, since: 0, messages: BTreeMap::new(), folders: BTreeMap::new(), labels: BTreeMap::new() }
    }

    fn sync(&mut self, machine: &Machine, model: &Model, limit: u32) {
        loop {
            let page = machine.changes(self.of, self.since, limit).expect("few tombstones: nothing was dropped");
            for change in &page.changes {
                assert!(change.modseq > self.since, "in order, each once");
                self.since = change.modseq;
                self.take_in(change.modseq, change.change.clone().unwrap());
            }
            assert_eq!(page.more, self.has_more(machine));
            if !page.more {
                assert_eq!(page.modseq, machine.account(self.of).modseq);
                self.since = page.modseq;
                break;
            }
        }
        self.compare(machine, model);
    }

    fn has_more(&self, machine: &Machine) -> bool {
        !machine.changes(self.of, self.since, 1).unwrap().changes.is_empty()
    }

    fn take_in(&mut self, modseq: u64, change: pb::ChangeRecord) {
        assert!(change.created_modseq <= modseq);
        match change.kind() {
            ChangeKind::MessageCreated => {
                assert_eq!(change.created_modseq, modseq);
                assert!(self.messages.insert(change.email_id.clone(), change).is_none());
            }
            ChangeKind::MessageUpdated => {
                self.messages.insert(change.email_id.clone(), change);
            }
            ChangeKind::MessageDeleted => {
                self.messages.remove(&change.email_id);
            }
            ChangeKind::FolderCreated | ChangeKind::FolderUpdated => {
                self.folders.insert(change.folder_id, modseq);
            }
            ChangeKind::FolderDeleted => {
                self.folders.remove(&change.folder_id);
            }
            ChangeKind::LabelCreated | ChangeKind::LabelUpdated => {
                self.labels.insert(change.label_id, modseq);
            }
            ChangeKind::LabelDeleted => {
                self.labels.remove(&change.label_id);
            }
            ChangeKind::Unspecified => panic!("a change says what it is"),
        }
    }

    /// Who has followed the feed knows every message, where it is, and its flags.
    fn compare(&self, machine: &Machine, model: &Model) {
        let mailbox = &model.mailboxes[&user(self.of)];
        assert_eq!(self.messages.len(), mailbox.messages.len());
        for message in &mailbox.messages {
            let known = &self.messages[&message.id.to_bytes()];
            assert_eq!(known.folder_id, message.folder.0);
            assert_eq!((known.keywords, known.labels.clone()), (message.bits(), message.label_ids()));
            let stored = machine.message(self.of, &known.email_id).unwrap();
            assert_eq!(known.thread_id, stored.thread_id);
        }
        assert!(self.folders.keys().copied().eq(mailbox.folders.keys().map(|folder| folder.0)));
        assert!(self.labels.keys().copied().eq(mailbox.labels.keys().map(|label| label.0)));
    }
}

fn compare_mailbox(machine: &Machine, model: &Model, n: u8, page: u32) {
    let mailbox = &model.mailboxes[&user(n)];
    let account = machine.account(n);
    assert_eq!(account.messages, mailbox.messages.len() as u64);
    assert_eq!(account.used_bytes, mailbox.messages.iter().map(|message| message.size).sum::<u64>());
    let folders = machine.folders(n);
    assert!(
        folders
            .iter()
            .map(|folder| (FolderId(folder.folder_id), &folder.name))
            .eq(mailbox.folders.iter().map(|(id, name)| (*id, name)))
    );
    for folder in folders {
        let id = FolderId(folder.folder_id);
        let mut here: Vec<&Message> = mailbox.messages.iter().filter(|message| message.folder == id).collect();
        here.reverse();
        assert_eq!(folder.total, here.len() as u64);
        assert_eq!(folder.unread, here.iter().filter(|message| !message.is_read()).count() as u64);
        for is_read in [None, Some(false), Some(true)] {
            let wanted: Vec<&Message> =
                here.iter().copied().filter(|message| is_read.is_none_or(|read| message.is_read() == read)).collect();
            compare_list(page, &wanted, |before| machine.page(n, id, is_read, page, before));
        }
        let flagged: Vec<&Message> = here.iter().copied().filter(|message| message.has(Keywords::FLAGGED)).collect();
        compare_list(page, &flagged, |before| machine.flagged(n, id, page, before));
        compare_threads(machine, n, id, page, &here);
    }
    compare_labels(machine, model, n, page);
    for message in &mailbox.messages {
        compare_message(machine, n, message, &mailbox.messages);
    }
}

fn compare_labels(machine: &Machine, model: &Model, n: u8, page: u32) {
    let mailbox = &model.mailboxes[&user(n)];
    let labels = machine.labels(n);
    let named = labels.iter().map(|label| (LabelId(label.label_id), (label.name.clone(), label.color)));
    assert!(named.eq(mailbox.labels.clone()));
    for label in labels {
        let id = LabelId(label.label_id);
        let mut listed: Vec<&Message> = mailbox.messages.iter().filter(|message| message.is_listed(id)).collect();
        listed.reverse();
        assert_eq!(label.total, listed.len() as u64);
        assert_eq!(label.unread, listed.iter().filter(|message| !message.is_read()).count() as u64);
        let having = mailbox.messages.iter().filter(|message| message.labels.contains(&id)).count();
        assert_eq!(label.total + label.hidden, having as u64);
        for is_read in [None, Some(false), Some(true)] {
            let wanted: Vec<&Message> =
                listed.iter().copied().filter(|message| is_read.is_none_or(|read| message.is_read() == read)).collect();
            compare_list(page, &wanted, |before| machine.labelled(n, id, is_read, page, before));
        }
    }
}

fn compare_list(limit: u32, wanted: &[&Message], list: impl Fn(Option<EmailId>) -> pb::MessagePage) {
    let mut rows = Vec::new();
    let mut before = None;
    loop {
        let page = list(before);
        assert!(page.rows.len() <= limit as usize);
        assert_eq!(page.more, rows.len() + page.rows.len() < wanted.len());
        before = page.rows.last().map(|row| EmailId::try_from(&row.email_id).unwrap());
        rows.extend(page.rows);
        if !page.more {
            break;
        }
    }
    assert_eq!(rows.len(), wanted.len());
    for (row, message) in rows.iter().zip(wanted) {
        assert_eq!(row.email_id, message.id.0[..]);
        assert_eq!((row.keywords, row.size), (message.bits(), message.size));
        assert_eq!((row.folder_id, &row.labels), (message.folder.0, &message.label_ids()));
        assert_eq!(row.subject, message.subject);
    }
}

fn compare_threads(machine: &Machine, n: u8, folder: FolderId, limit: u32, here: &[&Message]) {
    // Number, newest message, messages, unread; the newest thread first.
    let mut wanted: Vec<(usize, EmailId, u32, u32)> = Vec::new();
    for message in here {
        match wanted.iter_mut().find(|(number, ..)| *number == message.thread) {
            Some(thread) => {
                thread.2 += 1;
                thread.3 += u32::from(!message.is_read());
            }
            None => wanted.push((message.thread, message.id, 1, u32::from(!message.is_read()))),
        }
    }
    let mut rows: Vec<pb::ThreadRow> = Vec::new();
    loop {
        let before = rows.last().map(|row| row.newest.as_ref().unwrap().email_id.clone()).unwrap_or_default();
        let ask = pb::ListThreads { user_id: user(n).to_bytes(), folder_id: folder.0, limit, before };
        let Answer::Threads(page) = machine.ask(Ask::ListThreads(ask)) else { panic!("a page was wanted") };
        rows.extend(page.rows);
        if !page.more {
            break;
        }
    }
    assert_eq!(rows.len(), wanted.len());
    for (row, (_, newest, messages, unread)) in rows.iter().zip(&wanted) {
        assert_eq!(row.newest.as_ref().unwrap().email_id, newest.0[..]);
        assert_eq!((row.messages, row.unread), (*messages, *unread));
    }
}

fn compare_message(machine: &Machine, n: u8, message: &Message, all: &[Message]) {
    let stored = machine.message(n, &message.id.to_bytes()).unwrap();
    assert_eq!(stored.folder_id, message.folder.0);
    assert_eq!((stored.keywords, &stored.labels), (message.bits(), &message.label_ids()));
    compare_uid(machine, n, &stored);
    let body = pb::GetBody { user_id: user(n).to_bytes(), email_id: message.id.to_bytes() };
    let Answer::Body(body) = machine.ask(Ask::GetBody(body)) else { panic!("a body was wanted") };
    assert_eq!(body.body.unwrap().text, message.text);
    let thread = crate::threads::thread(machine, n, &stored.thread_id);
    let wanted: Vec<Bytes> =
        all.iter().filter(|other| other.thread == message.thread).map(|other| other.id.to_bytes()).collect();
    let found: Vec<Bytes> =
        thread.messages.iter().map(|message| message.row.as_ref().unwrap().email_id.clone()).collect();
    assert_eq!(found, wanted, "a thread has the messages that the model puts together");
    for parent in thread.messages.iter().map(|message| &message.parent_email_id) {
        assert!(parent.is_empty() || wanted.contains(parent));
    }
}

/// What IMAP reads of a message stands in one row.
fn compare_uid(machine: &Machine, n: u8, stored: &pb::EmailRecord) {
    let key = Key::Uid(user(n), FolderId(stored.folder_id), Uid(stored.uid)).bytes();
    let uid = pb::UidRecord::decode(machine.store.get(&key).unwrap().unwrap()).unwrap();
    assert_eq!(uid.email_id, stored.email_id);
    assert_eq!((uid.keywords, uid.modseq, uid.labels), (stored.keywords, stored.modseq, stored.labels.clone()));
}

fn compare_queue(machine: &Machine, model: &Model, limit: u32) {
    let mut entries: Vec<pb::QueueRecord> = Vec::new();
    loop {
        let ask =
            pb::ListQueue { limit, after_entry: entries.last().map_or(0, |last| last.entry), ..Default::default() };
        let Answer::Queue(page) = machine.ask(Ask::ListQueue(ask)) else { panic!("a page was wanted") };
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert!(entries.iter().map(|entry| entry.entry).eq(model.queue.keys().copied()));
    for (entry, state) in entries.iter().zip(model.queue.values()) {
        let who: Vec<_> = entry.pending.iter().map(|pending| Whom::of(&pending.user_id, &pending.address)).collect();
        assert_eq!(who, state.pending.iter().map(|waiting| waiting.who.clone()).collect::<Vec<_>>());
        let held: Vec<_> = entry.pending.iter().map(|pending| pending.held).collect();
        assert_eq!(held, state.pending.iter().map(|waiting| waiting.held).collect::<Vec<_>>());
    }
    for n in 1..=HERE {
        let mut outbox: Vec<u64> = Vec::new();
        loop {
            let after_entry = outbox.last().copied().unwrap_or_default();
            let ask = pb::ListOutbox { user_id: user(n).to_bytes(), after_entry, limit };
            let Answer::Queue(page) = machine.ask(Ask::ListOutbox(ask)) else { panic!("a page was wanted") };
            outbox.extend(page.entries.iter().map(|entry| entry.entry));
            if !page.more {
                break;
            }
        }
        let own = model.queue.iter().filter(|(_, entry)| entry.sender == Some(user(n))).map(|(id, _)| *id);
        assert_eq!(outbox, own.collect::<Vec<_>>());
    }
}

fn compare_failed(machine: &Machine, model: &Model, limit: u32) {
    let mut entries: Vec<pb::FailedRecord> = Vec::new();
    loop {
        let after_entry = entries.last().map_or(0, |last| last.entry);
        let ask = pb::ListFailed { limit, after_entry };
        let Answer::Failed(page) = machine.ask(Ask::ListFailed(ask)) else { panic!("a page was wanted") };
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    assert!(entries.iter().map(|entry| entry.entry).eq(model.failed.keys().copied()));
    for (entry, failed) in entries.iter().zip(model.failed.values()) {
        let given_up: Vec<_> =
            entry.recipients.iter().map(|recipient| Whom::of(&recipient.user_id, &recipient.address)).collect();
        assert_eq!(given_up, failed.who);
        assert!(entry.recipients.iter().all(|recipient| !recipient.reason.is_empty()));
    }
}
