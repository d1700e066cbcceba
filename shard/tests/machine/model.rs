//! What a mailbox shard should say, computed the slow way: lists are searched, nothing is counted or indexed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{
    CANCEL_MARGIN_MS, DELIVER_AGE_MS_MAX, ENTRY_AGE_MS_MAX, FORGET_AGE_MS_MIN, FULL_AGE_MS_MAX, OUTGOING_AGE_GRACE_MS,
    OUTGOING_AGE_MS_MAX, TRANSFER_MS, UNDELIVERED_MS_MAX,
};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, QueueAction, Settlement};
use postrider_shard::{DRAFTS, INBOX, JUNK, SENT, TRASH};

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

/// Somebody who waits, with what the model knows of him.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Waiting {
    pub(crate) who: Whom,
    attempts: u32,
    /// Since when, for his age.
    since_ms: i64,
    pub(crate) held: bool,
    delay_reported: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) pending: Vec<Waiting>,
    not_before_ms: i64,
    /// Something became of somebody in it.
    was_tried: bool,
    pub(crate) sender: Option<UserId>,
    /// The sender's copy.
    copy: Option<EmailId>,
}

/// Whoever was given up in an entry, in that order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Failed {
    pub(crate) who: Vec<Whom>,
    not_before_ms: i64,
    sender: Option<UserId>,
    copy: Option<EmailId>,
}

/// One of our users, or an address outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    User(UserId),
    Outside(String),
}

impl Whom {
    pub(crate) fn of(user_id: &Bytes, address: &str) -> Self {
        match user_id.is_empty() {
            true => Self::Outside(address.to_owned()),
            false => Self::User(user_of(user_id)),
        }
    }

    fn is_outside(&self) -> bool {
        matches!(self, Self::Outside(_))
    }
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
    pub(crate) failed: BTreeMap<u64, Failed>,
    /// Whose accounts are being deleted, or were.
    pub(crate) deleted: BTreeSet<UserId>,
    /// Reports that were filed by the last command: whose, and what.
    pub(crate) reports: Vec<(UserId, pb::NewMessage)>,
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
            (Op::Settle(c), Made::Refused(_)) => {
                let is_users = |result: &pb::RecipientResult| {
                    result.user_id.is_empty() && matches!(result.settlement(), Settlement::Full | Settlement::Dropped)
                };
                assert!(!self.queue.contains_key(&c.entry) || c.results.iter().any(is_users));
            }
            (Op::CancelSend(c), Made::Refused(_)) => {
                let own = self.queue.get(&c.entry).filter(|entry| entry.sender == Some(user_of(&c.user_id)));
                assert!(own.is_none_or(|entry| !self.is_in_time(entry)));
            }
            (Op::CancelSend(c), Made::SendCancelled(made)) => self.cancel(c, made),
            (Op::ManageQueue(c), Made::Done(_)) => self.manage(c),
            (_, Made::Refused(_)) => {}
            (Op::CreateAccount(c), Made::Changed(_)) => {
                let names = ["Inbox", "Drafts", "Sent", "Archive", "Junk", "Trash"];
                let folders = (1..).map(FolderId).zip(names.map(str::to_owned)).collect();
                self.mailboxes.insert(user_of(&c.user_id), Mailbox { folders, ..Mailbox::default() });
            }
            (Op::Accept(c), Made::Accepted(made)) => {
                self.arrive(&c.recipients, c.message.as_ref().unwrap(), &made.deliveries, made.entry, None);
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
                let copy = EmailId::try_from(&copy.email_id).unwrap();
                let not_before_ms = c.options.as_ref().map_or(0, |options| options.not_before_ms);
                let sender = Some((user_of(&c.user_id), copy, not_before_ms));
                self.arrive(&c.recipients, message, &made.deliveries, made.entry, sender);
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
                self.drain(user_of(&c.user_id));
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

    fn arrive(
        &mut self,
        to: &[pb::Recipient],
        message: &pb::NewMessage,
        made: &[pb::Delivery],
        entry: u64,
        sender: Option<(UserId, EmailId, i64)>,
    ) {
        let not_before_ms = sender.map_or(0, |(.., not_before_ms)| not_before_ms);
        let mut here = Vec::new();
        let mut elsewhere: Vec<Whom> = Vec::new();
        for whom in to.iter().map(|recipient| Whom::of(&recipient.user_id, &recipient.address)) {
            match &whom {
                Whom::User(user) if self.deleted.contains(user) => {}
                Whom::User(user) if self.mailboxes.contains_key(user) && not_before_ms <= self.now => {
                    if !here.contains(user) {
                        here.push(*user);
                    }
                }
                _ if elsewhere.contains(&whom) => {}
                _ => elsewhere.push(whom),
            }
        }
        assert_eq!(made.iter().map(|delivery| user_of(&delivery.user_id)).collect::<Vec<_>>(), here);
        for delivery in made {
            self.file(delivery, INBOX, Keywords::default(), message);
        }
        assert_eq!(entry == 0, elsewhere.is_empty());
        if entry != 0 {
            let since_ms = not_before_ms.max(self.now);
            let pending = elsewhere.into_iter().map(|who| Waiting::new(who, since_ms)).collect();
            let (sender, copy) = (sender.map(|sender| sender.0), sender.map(|sender| sender.1));
            let was = self.queue.insert(entry, Entry { pending, not_before_ms, was_tried: false, sender, copy });
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

    pub(crate) fn file_report(&mut self, delivery: &pb::Delivery, message: &pb::NewMessage) {
        self.file(delivery, INBOX, Keywords::default(), message);
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
                waiting.pending.retain(|pending| pending.who != Whom::User(user));
            }
            if let Some(failed) = self.failed.get_mut(entry) {
                failed.who.retain(|given_up| *given_up != Whom::User(user));
                failed.sender = failed.sender.filter(|sender| *sender != user);
            }
        }
        self.queue.retain(|_, entry| !entry.pending.is_empty());
        self.failed.retain(|_, failed| !failed.who.is_empty());
    }

    fn settle(&mut self, command: &pb::Settle) {
        let now = self.now;
        let mut entry = self.queue.remove(&command.entry).unwrap();
        let is_reported = self.report(command, &entry);
        let mut given_up = Vec::new();
        entry.was_tried = true;
        for mut waiting in std::mem::take(&mut entry.pending) {
            let is_his = |r: &&pb::RecipientResult| Whom::of(&r.user_id, &r.address) == waiting.who;
            let Some(result) = command.results.iter().find(is_his) else {
                entry.pending.push(waiting);
                continue;
            };
            let is_over = |max_ms: i64| now - waiting.since_ms > max_ms;
            let is_outside_too_long = waiting.who.is_outside() && is_over(OUTGOING_AGE_MS_MAX + OUTGOING_AGE_GRACE_MS);
            match result.settlement() {
                Settlement::Delivered | Settlement::Dropped => continue,
                Settlement::Failed if result.reported && is_reported => continue,
                Settlement::Failed => {
                    given_up.push(waiting.who);
                    continue;
                }
                Settlement::Deferred | Settlement::Held | Settlement::Waits if is_outside_too_long => {
                    given_up.push(waiting.who);
                    continue;
                }
                Settlement::Deferred if !waiting.who.is_outside() && is_over(ENTRY_AGE_MS_MAX) => {
                    given_up.push(waiting.who);
                    continue;
                }
                Settlement::Full if is_over(FULL_AGE_MS_MAX) => {
                    given_up.push(waiting.who);
                    continue;
                }
                settlement => waiting.attempts += u32::from(settlement != Settlement::Waits),
            }
            waiting.delay_reported |= result.reported && is_reported;
            entry.pending.push(waiting);
        }
        self.give_up(command.entry, &entry, given_up);
        if !entry.pending.is_empty() {
            self.queue.insert(command.entry, entry);
        }
    }

    /// Whether the report was filed; then it is in the sender's inbox, which the machine's next id tells.
    fn report(&mut self, command: &pb::Settle, entry: &Entry) -> bool {
        let Some(message) = &command.report else { return false };
        let is_told = |result: &pb::RecipientResult| {
            let whom = Whom::of(&result.user_id, &result.address);
            let waiting = entry.pending.iter().find(|waiting| waiting.who == whom);
            waiting.is_some_and(|waiting| match result.settlement() {
                Settlement::Failed | Settlement::Delivered => result.reported,
                Settlement::Deferred | Settlement::Held | Settlement::Waits => {
                    result.reported && !waiting.delay_reported
                }
                _ => false,
            })
        };
        // Of two results for one recipient the first counts.
        let mut seen: Vec<Whom> = Vec::new();
        let mut told = false;
        for result in &command.results {
            let whom = Whom::of(&result.user_id, &result.address);
            if !seen.contains(&whom) {
                told |= is_told(result);
                seen.push(whom);
            }
        }
        let Some(sender) = entry.sender.filter(|sender| told && self.mailboxes.contains_key(sender)) else {
            return false;
        };
        self.reports.push((sender, message.clone()));
        true
    }

    fn give_up(&mut self, id: u64, entry: &Entry, who: Vec<Whom>) {
        if !who.is_empty() {
            let failed = self.failed.entry(id).or_insert_with(|| Failed {
                who: Vec::new(),
                not_before_ms: entry.not_before_ms,
                sender: entry.sender,
                copy: entry.copy,
            });
            failed.who.extend(who);
        }
    }

    /// Whether nobody may get it yet.
    fn is_in_time(&self, entry: &Entry) -> bool {
        let is_untouched = !entry.was_tried && entry.pending.iter().all(|waiting| waiting.attempts == 0);
        self.now + CANCEL_MARGIN_MS < entry.not_before_ms && is_untouched
    }

    fn cancel(&mut self, command: &pb::CancelSend, made: &pb::SendCancelled) {
        let entry = self.queue.remove(&command.entry).unwrap();
        let user = user_of(&command.user_id);
        assert!(entry.sender == Some(user) && self.is_in_time(&entry));
        let mailbox = self.mailboxes.get_mut(&user).unwrap();
        let copy = mailbox.messages.iter_mut().find(|message| Some(message.id) == entry.copy);
        assert_eq!(copy.is_some(), made.draft.is_some());
        if let Some(copy) = copy {
            assert_eq!(made.draft.as_ref().unwrap().email_id, copy.id.to_bytes());
            copy.folder = DRAFTS;
            copy.keywords.insert(Keywords::DRAFT.0);
        }
    }

    fn manage(&mut self, command: &pb::ManageQueue) {
        let is_meant = |who: &Whom| match who {
            _ if command.addresses.is_empty() => true,
            Whom::User(_) => false,
            Whom::Outside(address) => command.addresses.contains(address),
        };
        if command.failed {
            let mut failed = self.failed.remove(&command.entry).unwrap();
            let (meant, others): (Vec<_>, Vec<_>) = failed.who.into_iter().partition(is_meant);
            assert!(!meant.is_empty());
            failed.who = others;
            if command.action() == QueueAction::Retry {
                let sender = failed.sender.filter(|sender| self.mailboxes.contains_key(sender));
                let entry = self.queue.entry(command.entry).or_insert_with(|| Entry {
                    pending: Vec::new(),
                    not_before_ms: failed.not_before_ms,
                    was_tried: false,
                    sender,
                    copy: failed.copy.filter(|_| sender.is_some()),
                });
                let since_ms = failed.not_before_ms.max(self.now);
                entry.pending.extend(meant.into_iter().map(|who| Waiting::new(who, since_ms)));
            }
            if !failed.who.is_empty() {
                self.failed.insert(command.entry, failed);
            }
            return;
        }
        let mut entry = self.queue.remove(&command.entry).unwrap();
        let mut given_up = Vec::new();
        for mut waiting in std::mem::take(&mut entry.pending) {
            match command.action() {
                _ if !is_meant(&waiting.who) => {}
                QueueAction::Retry | QueueAction::Release => waiting.held = false,
                QueueAction::Hold => waiting.held = true,
                QueueAction::GiveUp => {
                    given_up.push(waiting.who);
                    continue;
                }
                QueueAction::Drop => continue,
                QueueAction::Route | QueueAction::Unspecified => {}
            }
            entry.pending.push(waiting);
        }
        self.give_up(command.entry, &entry, given_up);
        if !entry.pending.is_empty() {
            self.queue.insert(command.entry, entry);
        }
    }

    /// An account that goes forgets what it sent, and takes along what nobody was to get yet.
    fn drain(&mut self, user: UserId) {
        let own: Vec<u64> =
            self.queue.iter().filter(|(_, entry)| entry.sender == Some(user)).map(|(id, _)| *id).collect();
        for id in own {
            if self.is_in_time(&self.queue[&id]) {
                self.queue.remove(&id);
            } else if let Some(entry) = self.queue.get_mut(&id) {
                (entry.sender, entry.copy) = (None, None);
            }
        }
    }
}

impl Waiting {
    fn new(who: Whom, since_ms: i64) -> Self {
        Self { who, attempts: 0, since_ms, held: false, delay_reported: false }
    }
}

pub(crate) fn user_of(bytes: &Bytes) -> UserId {
    UserId::try_from(bytes).unwrap()
}
