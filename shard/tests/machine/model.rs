//! What a mailbox shard should say, computed the slow way: lists are searched, nothing is counted or indexed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, UserId};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Settlement};
use postrider_shard::{INBOX, SENT, TRASH};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: EmailId,
    pub(crate) folder: FolderId,
    pub(crate) is_read: bool,
    pub(crate) is_flagged: bool,
    pub(crate) mentions: BTreeSet<Bytes>,
    /// Messages with the same label are in the same thread.
    pub(crate) label: usize,
    pub(crate) size: u64,
    pub(crate) text: Bytes,
    pub(crate) subject: String,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox {
    pub(crate) folders: BTreeMap<FolderId, String>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pending: Vec<UserId>,
    pub(crate) due_ms: i64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) mailboxes: BTreeMap<UserId, Mailbox>,
    pub(crate) queue: BTreeMap<u64, Entry>,
    pub(crate) transfers: BTreeMap<Bytes, pb::Delivery>,
    pub(crate) texts: BTreeMap<Bytes, Bytes>,
    pub(crate) now: i64,
    labels: usize,
}

impl Model {
    /// Takes in a command that was carried out, and holds its outcome against what should have come out.
    pub(crate) fn follow(&mut self, command: &pb::Command, made: &Made) {
        self.now = self.now.max(command.at_ms);
        match (command.op.as_ref().unwrap(), made) {
            (_, Made::Refused(_)) => {}
            (Op::CreateAccount(c), Made::Changed(_)) => {
                let names = ["Inbox", "Drafts", "Sent", "Archive", "Junk", "Trash"];
                let folders = (1..).map(FolderId).zip(names.map(str::to_owned)).collect();
                self.mailboxes.insert(user_of(&c.user_id), Mailbox { folders, messages: Vec::new() });
            }
            (Op::Accept(c), Made::Accepted(made)) => {
                self.arrive(&c.recipients, c.message.as_ref().unwrap(), &made.deliveries, made.entry);
            }
            (Op::Send(c), Made::Sent(made)) => {
                let message = c.message.as_ref().unwrap();
                let copy = made.sent_copy.as_ref().unwrap();
                assert_eq!(copy.user_id, c.user_id);
                self.file(copy, SENT, true, message);
                self.arrive(&c.recipients, message, &made.deliveries, made.entry);
            }
            (Op::Deliver(c), Made::Delivered(made)) => self.deliver(c, made),
            (Op::Settle(c), Made::Done(_)) => self.settle(c),
            (Op::Forget(c), Made::Done(_)) => c.requests.iter().for_each(|request| {
                self.transfers.remove(request);
            }),
            (Op::UpdateMessages(c), Made::Changed(_)) => self.update(c),
            (Op::CreateFolder(c), Made::FolderMade(made)) => {
                let folders = &mut self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap().folders;
                let was = folders.insert(FolderId(made.folder_id), c.name.clone());
                assert_eq!(was, None, "a folder id is never used again");
            }
            (Op::UpdateFolder(c), Made::Changed(_)) => {
                let folders = &mut self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap().folders;
                *folders.get_mut(&FolderId(c.folder_id)).unwrap() = c.name.clone();
            }
            (Op::DeleteFolder(c), Made::Changed(_)) => {
                let mailbox = self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap();
                mailbox.folders.remove(&FolderId(c.folder_id)).unwrap();
                for message in mailbox.messages.iter_mut().filter(|m| m.folder.0 == c.folder_id) {
                    message.folder = TRASH;
                }
            }
            (op, made) => panic!("{op:?} came out as {made:?}"),
        }
    }

    fn arrive(&mut self, to: &[pb::Recipient], message: &pb::NewMessage, made: &[pb::Delivery], entry: u64) {
        let mut here = Vec::new();
        let mut elsewhere = Vec::new();
        for user in to.iter().map(|recipient| user_of(&recipient.user_id)) {
            let list = if self.mailboxes.contains_key(&user) { &mut here } else { &mut elsewhere };
            if !list.contains(&user) {
                list.push(user);
            }
        }
        assert_eq!(made.iter().map(|delivery| user_of(&delivery.user_id)).collect::<Vec<_>>(), here);
        for delivery in made {
            self.file(delivery, INBOX, false, message);
        }
        assert_eq!(entry == 0, elsewhere.is_empty());
        if entry != 0 {
            let was = self.queue.insert(entry, Entry { pending: elsewhere, due_ms: self.now });
            assert!(was.is_none() && self.queue.keys().all(|other| *other <= entry));
        }
    }

    fn deliver(&mut self, command: &pb::Deliver, made: &pb::Delivered) {
        let mut seen = BTreeSet::new();
        let mut deliveries = made.deliveries.iter();
        let mut unknown = made.unknown_users.iter();
        for target in &command.targets {
            let user = user_of(&target.user_id);
            if !seen.insert(user) {
                continue;
            }
            if let Some(first) = self.transfers.get(&target.request) {
                assert_eq!(deliveries.next(), Some(first), "a repeated transfer gives the first delivery");
            } else if self.mailboxes.contains_key(&user) {
                let delivery = deliveries.next().expect("the user lives here").clone();
                self.file(&delivery, INBOX, false, command.message.as_ref().unwrap());
                self.transfers.insert(target.request.clone(), delivery);
            } else {
                assert_eq!(unknown.next().map(user_of), Some(user));
            }
        }
        assert!(deliveries.next().is_none() && unknown.next().is_none());
    }

    fn file(&mut self, delivery: &pb::Delivery, folder: FolderId, is_read: bool, message: &pb::NewMessage) {
        let body = message.body.as_ref().unwrap();
        let text = self.texts.entry(body.body_id.clone()).or_insert_with(|| body.text.clone()).clone();
        let mailbox = self.mailboxes.get_mut(&user_of(&delivery.user_id)).unwrap();
        let id = EmailId::try_from(&delivery.email_id).unwrap();
        assert!(mailbox.messages.iter().all(|other| other.id < id), "arrival order is id order");
        assert!(id.ms() >= self.now);
        let mentions: BTreeSet<Bytes> = message
            .reference_hashes
            .iter()
            .chain([&message.message_id_hash])
            .filter(|h| !h.is_empty())
            .cloned()
            .collect();
        self.labels += 1;
        let label = self.labels;
        let joined: BTreeSet<usize> = mailbox
            .messages
            .iter()
            .filter(|other| !other.mentions.is_disjoint(&mentions))
            .map(|other| other.label)
            .collect();
        for other in mailbox.messages.iter_mut().filter(|other| joined.contains(&other.label)) {
            other.label = label;
        }
        mailbox.messages.push(Message {
            id,
            folder,
            is_read,
            is_flagged: false,
            mentions,
            label,
            size: message.size,
            text,
            subject: message.envelope.as_ref().unwrap().subject.clone(),
        });
    }

    fn update(&mut self, command: &pb::UpdateMessages) {
        let mailbox = self.mailboxes.get_mut(&user_of(&command.user_id)).unwrap();
        for update in &command.updates {
            let id = EmailId::try_from(&update.email_id).unwrap();
            let place = mailbox.messages.iter().position(|message| message.id == id).unwrap();
            let message = &mut mailbox.messages[place];
            if update.delete && message.folder == TRASH {
                mailbox.messages.remove(place);
                continue;
            }
            message.is_read = update.is_read.unwrap_or(message.is_read);
            message.is_flagged = update.is_flagged.unwrap_or(message.is_flagged);
            message.folder = if update.delete { TRASH } else { update.folder_id.map_or(message.folder, FolderId) };
        }
    }

    fn settle(&mut self, command: &pb::Settle) {
        let entry = self.queue.get_mut(&command.entry).unwrap();
        entry.pending.retain(|user| {
            command
                .results
                .iter()
                .find(|result| user_of(&result.user_id) == *user)
                .is_none_or(|result| result.settlement() == Settlement::Deferred)
        });
        entry.due_ms = command.due_ms.max(self.now);
        if entry.pending.is_empty() {
            self.queue.remove(&command.entry);
        }
    }
}

pub(crate) fn user_of(bytes: &Bytes) -> UserId {
    UserId::try_from(bytes).unwrap()
}
