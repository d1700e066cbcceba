//! The change feed: one row per object at its newest modseq.
//!
//! A change takes the user's next modseq and replaces the object's row. A deletion leaves a tombstone; of those the newest
//! [`TOMBSTONES_MAX`] are kept, and the feed's floor rises to the newest that was dropped: who is behind it resyncs in full.
//! Rows of objects that live are never dropped.

use postrider_api::id::{EmailId, FolderId, LabelId, ModSeq};
use postrider_api::limit::TOMBSTONES_MAX;
use postrider_api::pb::{ChangeKind, ChangeRecord, EmailRecord, FolderRecord, LabelRecord};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::store::{Direction, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::Turn;
use crate::{Broken, row};

/// Tombstones that one command drops at most, per change that it makes.
const TOMBSTONES_TRIMMED_MAX: usize = 2;

/// Records a change of a message and gives its modseq, which the caller puts into the message's row. `previous` is the
/// modseq of the message's last change; `None` for a new message.
pub(crate) fn of_message(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    kind: ChangeKind,
    email: &EmailRecord,
    previous: Option<ModSeq>,
) -> Result<ModSeq, Broken> {
    let change = ChangeRecord {
        kind: kind.into(),
        email_id: email.email_id.clone(),
        folder_id: email.folder_id,
        thread_id: email.thread_id.clone(),
        keywords: email.keywords,
        labels: email.labels.clone(),
        ..Default::default()
    };
    let id = row::id::<EmailId>(Key::Account(mailbox.user), &email.email_id)?;
    put(turn, mailbox, Object::Message(mailbox.user, id), change, previous)
}

/// Records a change of a folder; as [`of_message`].
pub(crate) fn of_folder(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    kind: ChangeKind,
    folder: &FolderRecord,
    previous: Option<ModSeq>,
) -> Result<ModSeq, Broken> {
    let change = ChangeRecord { kind: kind.into(), folder_id: folder.folder_id, ..Default::default() };
    put(turn, mailbox, Object::Folder(mailbox.user, FolderId(folder.folder_id)), change, previous)
}

/// Records a change of a label; as [`of_message`].
pub(crate) fn of_label(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    kind: ChangeKind,
    label: &LabelRecord,
    previous: Option<ModSeq>,
) -> Result<ModSeq, Broken> {
    let change = ChangeRecord { kind: kind.into(), label_id: label.label_id, ..Default::default() };
    put(turn, mailbox, Object::Label(mailbox.user, LabelId(label.label_id)), change, previous)
}

/// Whether a change leaves a tombstone.
pub(crate) fn is_deletion(kind: ChangeKind) -> bool {
    matches!(kind, ChangeKind::MessageDeleted | ChangeKind::FolderDeleted | ChangeKind::LabelDeleted)
}

fn put(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    object: Object,
    mut change: ChangeRecord,
    previous: Option<ModSeq>,
) -> Result<ModSeq, Broken> {
    let user = mailbox.user;
    let modseq = mailbox.next_modseq();
    change.created_modseq = match previous {
        None => modseq.0,
        Some(previous) => {
            let old: ChangeRecord = row::need(turn.rows, Key::Change(user, previous))?;
            row::delete(turn.rows, Key::Change(user, previous));
            old.created_modseq
        }
    };
    row::put(turn.rows, Key::Change(user, modseq), &change);
    tail::push(turn, object, verb(change.kind()), modseq);
    if is_deletion(change.kind()) {
        row::put_empty(turn.rows, Key::Tombstone(user, modseq));
        mailbox.account.tombstones += 1;
        drop_oldest(turn, mailbox)?;
    }
    Ok(modseq)
}

fn verb(kind: ChangeKind) -> Verb {
    match kind {
        ChangeKind::MessageCreated | ChangeKind::FolderCreated | ChangeKind::LabelCreated => Verb::Created,
        ChangeKind::MessageDeleted | ChangeKind::FolderDeleted | ChangeKind::LabelDeleted => Verb::Deleted,
        ChangeKind::MessageUpdated | ChangeKind::FolderUpdated | ChangeKind::LabelUpdated | ChangeKind::Unspecified => {
            Verb::Updated
        }
    }
}

fn drop_oldest(turn: &mut Turn<'_, impl Rows>, mailbox: &mut Mailbox) -> Result<(), Broken> {
    if mailbox.account.tombstones <= TOMBSTONES_MAX {
        return Ok(());
    }
    let range = KeyRange::since(Table::Tombstones, mailbox.user, ModSeq(mailbox.account.changes_floor));
    let mut oldest = Vec::with_capacity(TOMBSTONES_TRIMMED_MAX);
    for found in turn.rows.scan(&range, Direction::Forward).take(TOMBSTONES_TRIMMED_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::Tombstone(_, modseq) => oldest.push(modseq),
            other => return Err(Broken::corrupt(other, "stands in the range of tombstones")),
        }
    }
    for modseq in oldest {
        if mailbox.account.tombstones <= TOMBSTONES_MAX {
            break;
        }
        row::delete(turn.rows, Key::Tombstone(mailbox.user, modseq));
        row::delete(turn.rows, Key::Change(mailbox.user, modseq));
        mailbox.account.tombstones -= 1;
        mailbox.account.changes_floor = modseq.0;
    }
    Ok(())
}
