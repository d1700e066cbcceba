//! What a user has sent and somebody still waits for.

use postrider_api::id::{EntryId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{FailedRecord, GetOutbox, ListOutbox, Missing, NewMessage, QueueEntry, QueuePage, QueueRecord};
use prost::Message as _;

use crate::key::{Key, KeyRange};
use crate::query::{QueryError, id, missing};
use crate::queue::cancel::entry_of;
use crate::queue::read::LISTED_BYTE_WEIGHT;
use crate::store::Reader;
use crate::{page, row};

/// The user's entries by number; fewer than asked for where they are large.
pub(crate) fn answer(reader: &impl Reader, query: &ListOutbox) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let range = KeyRange::outbox(user, EntryId(query.after_entry));
    let page = page::read(reader, &range, query.limit, |key, _| {
        let entry = entry_of(Key::decode(key.as_ref())?, user)?;
        let mut record: QueueRecord = row::need(reader, Key::Queue(entry))?;
        let read = record.encoded_len();
        record.message = record.message.map(shown);
        let weight = read + LISTED_BYTE_WEIGHT * record.encoded_len();
        Ok((record, weight))
    })?;
    Ok(Answer::Queue(QueuePage { entries: page.rows, more: page.more }))
}

/// One of them, with whoever was given up in it. Another user's is none (P-9).
pub(crate) fn answer_one(reader: &impl Reader, query: &GetOutbox) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let entry = EntryId(query.entry);
    let mut waiting: Option<QueueRecord> = row::get(reader, Key::Queue(entry))?;
    let mut failed: Option<FailedRecord> = row::get(reader, Key::Failed(entry))?;
    waiting = waiting.filter(|record| record.sender_user_id == user.0[..]);
    failed = failed.filter(|record| record.sender_user_id == user.0[..]);
    if waiting.is_none() && failed.is_none() {
        return Ok(missing(Missing::Entry));
    }
    if let Some(record) = &mut waiting {
        record.message = record.message.take().map(shown);
    }
    if let Some(record) = &mut failed {
        record.message = record.message.take().map(shown);
    }
    Ok(Answer::QueueEntry(QueueEntry { waiting, failed, body: None }))
}

/// What its sender sees of a message here; the rest is in his copy.
fn shown(message: NewMessage) -> NewMessage {
    NewMessage {
        envelope: message.envelope,
        preview: message.preview,
        size: message.size,
        has_attachments: message.has_attachments,
        ..Default::default()
    }
}
