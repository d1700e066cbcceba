//! A message's way through a mailbox: filed, altered, erased. Each step keeps every row that speaks of the message.

use postrider_api::id::{BodyId, EmailId, FolderId, ModSeq, ThreadId, Uid, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::pb::{
    AttachmentRecord, ChangeKind, Delivery, EmailRecord, FolderRecord, ListRow, Part, ThreadRecord, UidRecord,
};
use prost::Message;

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::folder::{self, Folders};
use crate::mailbox::incoming::Incoming;
use crate::mailbox::label::Labels;
use crate::mailbox::{body, change, list_row, references, thread_list, threads};
use crate::store::{Reader, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// Puts a new message into a folder. The caller counts the reference to its body ([`body::store`]).
pub(crate) fn file(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    folder: &mut FolderRecord,
    message: &Incoming<'_>,
    keywords: Keywords,
) -> Result<Delivery, Broken> {
    let user = mailbox.user;
    let folder_id = FolderId(folder.folder_id);
    let id = mailbox.next_email_id(turn);
    let (thread, mut record) = threads::join(turn, mailbox, id, &message.mentions)?;
    let mut email = record_of(message, id, thread, turn.now);
    email.folder_id = folder.folder_id;
    email.keywords = keywords.0;
    email.uid = folder::count_in(user, folder, keywords.is_read())?.0;
    mailbox.account.used_bytes += email.size;
    mailbox.account.messages += 1;
    email.modseq = change::of_message(turn, mailbox, ChangeKind::MessageCreated, &email, None)?.0;
    let line = list_row::of(&email);
    thread_list::add(turn.rows, user, folder_id, (thread, &record), id, &line)?;
    threads::put_member(turn.rows, user, thread, &mut record, id, folder_id);
    list_row::put(turn.rows, user, id, &line);
    put_uid(turn.rows, user, &email);
    references::put(turn.rows, user, id, &email);
    put_attachments(turn.rows, user, id, &email.parts);
    row::put(turn.rows, Key::Email(user, id), &email);
    Ok(Delivery {
        user_id: user.to_bytes(),
        email_id: email.email_id,
        thread_id: email.thread_id,
        modseq: email.modseq,
    })
}

fn record_of(message: &Incoming<'_>, id: EmailId, thread: ThreadId, now: i64) -> EmailRecord {
    let new = message.new;
    EmailRecord {
        email_id: id.to_bytes(),
        thread_id: thread.to_bytes(),
        body_id: message.body_id.to_bytes(),
        envelope: new.envelope.clone(),
        preview: new.preview.clone(),
        size: new.size,
        has_attachments: new.has_attachments,
        parts: new.parts.clone(),
        pieces: new.pieces.clone(),
        received_ms: now,
        message_id_hash: new.message_id_hash.clone(),
        reference_hashes: new.reference_hashes.clone(),
        mail_from: message.mail_from.to_owned(),
        ..Default::default()
    }
}

/// A message as it is stored: its row, and its line of lists.
pub(crate) struct Stored {
    pub(crate) id: EmailId,
    pub(crate) email: EmailRecord,
    pub(crate) line: ListRow,
}

impl Stored {
    /// `None` when the user has no such message.
    pub(crate) fn find(rows: &impl Reader, user: UserId, id: EmailId) -> Result<Option<Self>, Broken> {
        let Some(email) = row::get::<EmailRecord>(rows, Key::Email(user, id))? else { return Ok(None) };
        let line = row::need(rows, Key::FolderEmail(user, FolderId(email.folder_id), id))?;
        Ok(Some(Self { id, email, line }))
    }

    /// A message that another row names.
    pub(crate) fn need(rows: &impl Reader, user: UserId, id: EmailId) -> Result<Self, Broken> {
        Self::find(rows, user, id)?.ok_or_else(|| Broken::missing(Key::Email(user, id)))
    }

    /// What is written into lists when the message has changed so, bytes.
    pub(crate) fn list_bytes(&self, wanted: &Wanted) -> usize {
        // In its folder, in the index of its flag, maybe among the flagged, and in its thread's line.
        (4 + wanted.labels.len()) * self.line.encoded_len()
    }
}

/// What a message is to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) keywords: Keywords,
    pub(crate) folder: FolderId,
    /// Rising, each once.
    pub(crate) labels: Vec<u32>,
}

impl Wanted {
    /// What the message is.
    pub(crate) fn of(email: &EmailRecord) -> Self {
        Self { keywords: Keywords(email.keywords), folder: FolderId(email.folder_id), labels: email.labels.clone() }
    }
}

/// Changes a message's keywords, labels and folder. Its body and attachments are not touched; in another folder it has a new UID.
/// Nothing happens, and no modseq is taken, when it is so already.
pub(crate) fn alter(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    folders: &mut Folders,
    labels: &mut Labels,
    stored: Stored,
    wanted: Wanted,
) -> Result<(), Broken> {
    let Stored { id, mut email, mut line } = stored;
    let was = Wanted::of(&email);
    if was == wanted {
        return Ok(());
    }
    let (user, key) = (mailbox.user, Key::Email(mailbox.user, id));
    list_row::remove(turn.rows, user, id, &line);
    labels.count_out(turn.rows, user, &line)?;
    row::delete(turn.rows, Key::Uid(user, was.folder, Uid(email.uid)));
    let (was_read, is_read) = (was.keywords.is_read(), wanted.keywords.is_read());
    folder::count_out(user, folders.need(turn.rows, user, was.folder)?, was_read)?;
    let target = folders.need(turn.rows, user, wanted.folder)?;
    match was.folder == wanted.folder {
        true => folder::count_back(target, is_read),
        false => email.uid = folder::count_in(user, target, is_read)?.0,
    }
    email.keywords = wanted.keywords.0;
    email.folder_id = wanted.folder.0;
    email.labels = wanted.labels;
    let previous = ModSeq(email.modseq);
    email.modseq = change::of_message(turn, mailbox, ChangeKind::MessageUpdated, &email, Some(previous))?.0;
    list_row::follow(&mut line, &email);
    labels.count_in(turn.rows, user, &line)?;
    list_row::put(turn.rows, user, id, &line);
    put_uid(turn.rows, user, &email);
    let (thread, record) = threads::of_message(turn.rows, user, key, &email)?;
    if was.folder == wanted.folder {
        thread_list::update(turn.rows, user, was.folder, (thread, &record), id, &line, was_read)?;
    } else {
        let mut others = threads::without(user, thread, record, id)?;
        thread_list::remove(turn.rows, user, was.folder, (thread, &others), id, was_read)?;
        thread_list::add(turn.rows, user, wanted.folder, (thread, &others), id, &line)?;
        threads::put_member(turn.rows, user, thread, &mut others, id, wanted.folder);
    }
    row::put(turn.rows, key, &email);
    Ok(())
}

/// Removes a message for good, its reference to the body with it.
pub(crate) fn erase(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    folders: &mut Folders,
    labels: &mut Labels,
    stored: Stored,
) -> Result<(), Broken> {
    let Stored { id, email, line } = stored;
    let is_read = Keywords(email.keywords).is_read();
    let (user, key) = (mailbox.user, Key::Email(mailbox.user, id));
    let folder_id = FolderId(email.folder_id);
    let (thread, record) = threads::of_message(turn.rows, user, key, &email)?;
    let rest: ThreadRecord = threads::without(user, thread, record, id)?;
    thread_list::remove(turn.rows, user, folder_id, (thread, &rest), id, is_read)?;
    threads::leave(turn.rows, user, thread, &rest, &threads::mentions_of(key, &email)?)?;
    list_row::remove(turn.rows, user, id, &line);
    labels.count_out(turn.rows, user, &line)?;
    references::remove(turn.rows, user, id, &email);
    row::delete(turn.rows, Key::Uid(user, folder_id, Uid(email.uid)));
    for (place, _) in attachments(&email.parts) {
        row::delete(turn.rows, Key::Attachment(user, id, place));
    }
    row::delete(turn.rows, key);
    let_go(turn, key, &email)?;
    folder::count_out(user, folders.need(turn.rows, user, folder_id)?, is_read)?;
    let account = &mut mailbox.account;
    let below = || Broken::corrupt(Key::Account(user), "a counter would fall below zero");
    account.used_bytes = account.used_bytes.checked_sub(email.size).ok_or_else(below)?;
    account.messages = account.messages.checked_sub(1).ok_or_else(below)?;
    change::of_message(turn, mailbox, ChangeKind::MessageDeleted, &email, Some(ModSeq(email.modseq)))?;
    Ok(())
}

/// Gives back what a message shares with others.
pub(crate) fn let_go(turn: &mut Turn<'_, impl Rows>, key: Key, email: &EmailRecord) -> Result<(), Broken> {
    body::release(turn, row::id::<BodyId>(key, &email.body_id)?)
}

/// Writes the message's row of `uids`.
pub(crate) fn put_uid(rows: &mut impl Rows, user: UserId, email: &EmailRecord) {
    let key = Key::Uid(user, FolderId(email.folder_id), Uid(email.uid));
    row::put(rows, key, &uid_record(email));
}

/// The row of a message in `uids`.
pub(crate) fn uid_record(email: &EmailRecord) -> UidRecord {
    UidRecord {
        email_id: email.email_id.clone(),
        keywords: email.keywords,
        modseq: email.modseq,
        labels: email.labels.clone(),
    }
}

fn put_attachments(rows: &mut impl Rows, user: UserId, id: EmailId, parts: &[Part]) {
    for (place, part) in attachments(parts) {
        row::put(rows, Key::Attachment(user, id, place), &attachment_record(part));
    }
}

/// The parts that have a row in `attachments`: files, and whatever else was cut out to a blob.
pub(crate) fn attachments(parts: &[Part]) -> impl Iterator<Item = (u32, &Part)> {
    (0u32..).zip(parts).filter(|(_, part)| part.is_attachment || !part.blob.is_empty())
}

/// The row of a part in `attachments`.
pub(crate) fn attachment_record(part: &Part) -> AttachmentRecord {
    AttachmentRecord {
        filename: part.filename.clone(),
        content_type: part.content_type.clone(),
        size: part.decoded_size,
        blob: part.blob.clone(),
    }
}
