//! What a mailbox shard should say, computed the slow way: lists are searched, nothing is counted or indexed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{
    DELIVER_AGE_MS_MAX, ENTRY_AGE_MS_MAX, FORGET_AGE_MS_MIN, FULL_AGE_MS_MAX, TRANSFER_MS, UNDELIVERED_MS_MAX,
};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Settlement};
use postrider_shard::{INBOX, JUNK, SENT, TRASH};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) id: EmailId,
    pub(crate) folder: FolderId,
    /// Those that it has; a bit that is not among them is not looked at.
    pub(crate) keywords: BTreeSet<u32>,
    pub(crate) labels: BTreeSet<LabelId>,
    pub(crate) mentions: BTreeSet<Bytes>,
    /// Messages with the same number are in the same thread.
    pub(crate) thread: usize,
    pub(crate) size: u64,
    pub(crate) text: Bytes,
    pub(crate) subject: String,
}

impl Message {
    pub(crate) fn has(&self, keyword: Keywords) -> bool {
        self.keywords.contains(&keyword.0)
    }

    pub(crate) fn is_read(&self) -> bool {
        self.has(Keywords::SEEN)
    }

    /// As rows have them.
    pub(crate) fn bits(&self) -> u32 {
        self.keywords.iter().sum()
    }

    /// As rows have them.
    pub(crate) fn label_ids(&self) -> Vec<u32> {
        self.labels.iter().map(|label| label.0).collect()
    }

    /// Whether the list of a label shows it.
    pub(crate) fn is_listed(&self, label: LabelId) -> bool {
        self.labels.contains(&label) && self.folder != TRASH && self.folder != JUNK
    }
}

/// Each bit of a set by itself.
fn each(bits: u32) -> impl Iterator<Item = u32> {
    (0..32).map(|place| 1 << place).filter(move |bit| bits & bit != 0)
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Mailbox {
    pub(crate) folders: BTreeMap<FolderId, String>,
    pub(crate) labels: BTreeMap<LabelId, (String, u32)>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pending: Vec<UserId>,
    created_ms: i64,
}

#[derive(Debug, Clone)]
struct Transfer {
    delivery: pb::Delivery,
    expires_ms: i64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) mailboxes: BTreeMap<UserId, Mailbox>,
    pub(crate) queue: BTreeMap<u64, Entry>,
    /// The error queue: who was given up, in that order.
    pub(crate) failed: BTreeMap<u64, Vec<UserId>>,
    /// Whose accounts are being deleted, or were.
    pub(crate) deleted: BTreeSet<UserId>,
    transfers: BTreeMap<Bytes, Transfer>,
    trimmed_ms: i64,
    pub(crate) texts: BTreeMap<Bytes, Bytes>,
    pub(crate) now: i64,
    threads: usize,
}

impl Model {
    /// Takes in a command that was carried out, and holds its outcome against what should have come out.
    pub(crate) fn follow(&mut self, command: &pb::Command, made: &Made) {
        self.pass(command.at_ms);
        match (command.op.as_ref().unwrap(), made) {
            (Op::Deliver(c), Made::Refused(_)) => assert!(self.now - c.leased_ms > DELIVER_AGE_MS_MAX),
            (Op::Forget(c), Made::Refused(_)) => assert!(self.now - c.leased_ms < FORGET_AGE_MS_MIN),
            (Op::Settle(c), Made::Refused(_)) => assert!(!self.queue.contains_key(&c.entry)),
            (_, Made::Refused(_)) => {}
            (Op::CreateAccount(c), Made::Changed(_)) => {
                let names = ["Inbox", "Drafts", "Sent", "Archive", "Junk", "Trash"];
                let folders = (1..).map(FolderId).zip(names.map(str::to_owned)).collect();
                self.mailboxes.insert(user_of(&c.user_id), Mailbox { folders, ..Mailbox::default() });
            }
            (Op::Accept(c), Made::Accepted(made)) => {
                self.arrive(&c.recipients, c.message.as_ref().unwrap(), &made.deliveries, made.entry);
            }
            (Op::Send(c), Made::Sent(made)) => {
                let message = c.message.as_ref().unwrap();
                let copy = made.sent_copy.as_ref().unwrap();
                assert_eq!(copy.user_id, c.user_id);
                if let Ok(answered) = EmailId::try_from(&c.answered) {
                    let mailbox = self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap();
                    let answered = mailbox.messages.iter_mut().find(|message| message.id == answered);
                    answered.map(|message| message.keywords.insert(Keywords::ANSWERED.0));
                }
                self.file(copy, SENT, Keywords::SEEN, message);
                self.arrive(&c.recipients, message, &made.deliveries, made.entry);
            }
            (Op::Deliver(c), Made::Delivered(made)) => self.deliver(c, made),
            (Op::Settle(c), Made::Done(_)) => self.settle(c),
            (Op::Forget(c), Made::Done(_)) => {
                assert!(self.now - c.leased_ms >= FORGET_AGE_MS_MIN);
                self.transfers.retain(|request, _| !c.requests.contains(request));
            }
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
            (Op::DeleteAccount(c), Made::Done(_)) => {
                let user = user_of(&c.user_id);
                self.mailboxes.remove(&user);
                self.deleted.insert(user);
            }
            (Op::DrainAccount(c), Made::AccountDraining(made)) => {
                assert!(
                    self.deleted.contains(&user_of(&c.user_id)) && made.is_empty,
                    "few rows: one command removes them"
                );
            }
            (Op::FinishDeletion(c), Made::Done(_)) => assert!(self.deleted.contains(&user_of(&c.user_id))),
            (Op::DropRecipient(c), Made::Done(_)) => self.drop_recipient(c),
            (Op::CreateLabel(c), Made::LabelState(made)) => {
                let labels = &mut self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap().labels;
                let was = labels.insert(LabelId(made.label_id), (c.name.clone(), c.color));
                assert_eq!(was, None, "a label id is never used again");
            }
            (Op::UpdateLabel(c), Made::LabelState(_)) => {
                let labels = &mut self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap().labels;
                let label = labels.get_mut(&LabelId(c.label_id)).unwrap();
                label.0 = c.name.clone().unwrap_or_else(|| label.0.clone());
                label.1 = c.color.unwrap_or(label.1);
            }
            (Op::DeleteLabel(c), Made::Changed(_)) => {
                let mailbox = self.mailboxes.get_mut(&user_of(&c.user_id)).unwrap();
                mailbox.labels.remove(&LabelId(c.label_id)).unwrap();
                for message in &mut mailbox.messages {
                    message.labels.remove(&LabelId(c.label_id));
                }
            }
            (op, made) => panic!("{op:?} came out as {made:?}"),
        }
    }

    /// Time has passed, and with it went transfers whose time is over.
    pub(crate) fn pass(&mut self, at_ms: i64) {
        self.now = self.now.max(at_ms);
        if self.now - self.trimmed_ms >= 10_000 {
            self.trimmed_ms = self.now;
            let now = self.now;
            self.transfers.retain(|_, transfer| transfer.expires_ms > now);
        }
    }

    fn arrive(&mut self, to: &[pb::Recipient], message: &pb::NewMessage, made: &[pb::Delivery], entry: u64) {
        let mut here = Vec::new();
        let mut elsewhere = Vec::new();
        for user in to.iter().map(|recipient| user_of(&recipient.user_id)) {
            if self.deleted.contains(&user) {
                continue;
            }
            let list = if self.mailboxes.contains_key(&user) { &mut here } else { &mut elsewhere };
            if !list.contains(&user) {
                list.push(user);
            }
        }
        assert_eq!(made.iter().map(|delivery| user_of(&delivery.user_id)).collect::<Vec<_>>(), here);
        for delivery in made {
            self.file(delivery, INBOX, Keywords::default(), message);
        }
        assert_eq!(entry == 0, elsewhere.is_empty());
        if entry != 0 {
            let was = self.queue.insert(entry, Entry { pending: elsewhere, created_ms: self.now });
            assert!(was.is_none() && self.queue.keys().all(|other| *other <= entry));
        }
    }

    fn deliver(&mut self, command: &pb::Deliver, made: &pb::Delivered) {
        assert!(self.now - command.leased_ms <= DELIVER_AGE_MS_MAX);
        let mut seen = BTreeSet::new();
        let mut deliveries = made.deliveries.iter();
        let mut unknown = made.unknown_users.iter();
        let mut too_old = made.too_old.iter();
        let mut deleted = made.deleted.iter();
        for target in &command.targets {
            let user = user_of(&target.user_id);
            if !seen.insert(user) {
                continue;
            }
            if let Some(first) = self.transfers.get(&target.request) {
                assert_eq!(deliveries.next(), Some(&first.delivery), "a repeated transfer gives the first delivery");
            } else if self.now - target.undelivered_ms > UNDELIVERED_MS_MAX {
                assert_eq!(too_old.next().map(user_of), Some(user));
            } else if self.mailboxes.contains_key(&user) {
                let delivery = deliveries.next().expect("the user lives here").clone();
                self.file(&delivery, INBOX, Keywords::default(), command.message.as_ref().unwrap());
                let transfer = Transfer { delivery, expires_ms: self.now + TRANSFER_MS };
                self.transfers.insert(target.request.clone(), transfer);
            } else if self.deleted.contains(&user) {
                assert_eq!(deleted.next().map(user_of), Some(user));
            } else {
                assert_eq!(unknown.next().map(user_of), Some(user));
            }
        }
        assert!(deleted.next().is_none() && made.suspended.is_empty());
        assert!(deliveries.next().is_none() && unknown.next().is_none() && too_old.next().is_none());
    }

    fn file(&mut self, delivery: &pb::Delivery, folder: FolderId, keywords: Keywords, message: &pb::NewMessage) {
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
        self.threads += 1;
        let thread = self.threads;
        let joined: BTreeSet<usize> = mailbox
            .messages
            .iter()
            .filter(|other| !other.mentions.is_disjoint(&mentions))
            .map(|other| other.thread)
            .collect();
        for other in mailbox.messages.iter_mut().filter(|other| joined.contains(&other.thread)) {
            other.thread = thread;
        }
        mailbox.messages.push(Message {
            id,
            folder,
            keywords: each(keywords.0).collect(),
            labels: BTreeSet::new(),
            mentions,
            thread,
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
            for keyword in each(update.keywords_add) {
                match Keywords(keyword) {
                    Keywords::JUNK => message.keywords.remove(&Keywords::NOTJUNK.0),
                    Keywords::NOTJUNK => message.keywords.remove(&Keywords::JUNK.0),
                    _ => false,
                };
                message.keywords.insert(keyword);
            }
            for keyword in each(update.keywords_remove) {
                message.keywords.remove(&keyword);
            }
            message.labels.extend(update.labels_add.iter().copied().map(LabelId));
            message.labels.retain(|label| !update.labels_remove.contains(&label.0));
            message.folder = if update.delete { TRASH } else { update.folder_id.map_or(message.folder, FolderId) };
        }
    }

    fn drop_recipient(&mut self, command: &pb::DropRecipient) {
        let user = user_of(&command.user_id);
        for entry in &command.entries {
            if let Some(waiting) = self.queue.get_mut(entry) {
                waiting.pending.retain(|pending| *pending != user);
            }
            if let Some(failed) = self.failed.get_mut(entry) {
                failed.retain(|given_up| *given_up != user);
            }
        }
        self.queue.retain(|_, entry| !entry.pending.is_empty());
        self.failed.retain(|_, users| !users.is_empty());
    }

    fn settle(&mut self, command: &pb::Settle) {
        let entry = self.queue.get_mut(&command.entry).unwrap();
        let is_older = |max_ms: i64| self.now - entry.created_ms > max_ms;
        let (is_old, is_full_long) = (is_older(ENTRY_AGE_MS_MAX), is_older(FULL_AGE_MS_MAX));
        for user in std::mem::take(&mut entry.pending) {
            match command.results.iter().find(|result| user_of(&result.user_id) == user).map(|r| r.settlement()) {
                Some(Settlement::Delivered | Settlement::Dropped) => {}
                Some(Settlement::Failed) => self.failed.entry(command.entry).or_default().push(user),
                Some(Settlement::Deferred) if is_old => self.failed.entry(command.entry).or_default().push(user),
                Some(Settlement::Full) if is_full_long => self.failed.entry(command.entry).or_default().push(user),
                _ => entry.pending.push(user),
            }
        }
        if entry.pending.is_empty() {
            self.queue.remove(&command.entry);
        }
    }
}

pub(crate) fn user_of(bytes: &Bytes) -> UserId {
    UserId::try_from(bytes).unwrap()
}
