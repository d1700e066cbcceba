//! Entries, by time and by number, and the error queue.

use postrider_api::id::EntryId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    BodyRecord, FailedPage, FailedRecord, GetQueueEntry, ListFailed, ListQueue, Missing, QueueEntry, QueuePage,
    QueueRecord,
};
use prost::Message;

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::body;
use crate::query::{QueryError, missing};
use crate::queue::body_of;
use crate::store::Reader;
use crate::{Broken, page, row};

/// Entries that are due, the longest due first; fewer than asked for where they are large.
pub(crate) fn answer_due(reader: &impl Reader, query: &ListQueue) -> Result<Answer, QueryError> {
    let range = match &query.after {
        Some(after) => KeyRange::due_behind((after.due_ms, EntryId(after.entry)), query.due_until_ms),
        None => KeyRange::due(0, query.due_until_ms),
    };
    let page = page::read(reader, &range, query.limit, |key, _| match Key::decode(key.as_ref())? {
        Key::QueueDue(_, entry) => {
            let record: QueueRecord = row::need(reader, Key::Queue(entry))?;
            let bytes = record.encoded_len();
            Ok((record, bytes))
        }
        other => Err(Broken::corrupt(other, "stands in the range of queue_by_due")),
    })?;
    Ok(Answer::Queue(QueuePage { entries: page.rows, more: page.more }))
}

/// The error queue, by entry.
pub(crate) fn answer_failed(reader: &impl Reader, query: &ListFailed) -> Result<Answer, QueryError> {
    let range = match query.after_entry {
        0 => KeyRange::table(Table::Failed),
        entry => KeyRange::failed_behind(EntryId(entry)),
    };
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        Ok((row::decode_row::<FailedRecord>(key, value)?.1, bytes))
    })?;
    Ok(Answer::Failed(FailedPage { entries: page.rows, more: page.more }))
}

pub(crate) fn answer_entry(reader: &impl Reader, query: &GetQueueEntry) -> Result<Answer, QueryError> {
    let entry = EntryId(query.entry);
    let waiting: Option<QueueRecord> = row::get(reader, Key::Queue(entry))?;
    let failed: Option<FailedRecord> = row::get(reader, Key::Failed(entry))?;
    if waiting.is_none() && failed.is_none() {
        return Ok(missing(Missing::Entry));
    }
    Ok(Answer::QueueEntry(QueueEntry { waiting, failed }))
}

/// An entry with its body: what a lease hands to a worker. `None` when it has gone.
///
/// # Errors
/// When a row is corrupt, or the body is missing.
pub fn entry(reader: &impl Reader, entry: EntryId) -> Result<Option<(QueueRecord, BodyRecord)>, Broken> {
    let key = Key::Queue(entry);
    let Some(record) = row::get::<QueueRecord>(reader, key)? else { return Ok(None) };
    let body = body::read(reader, body_of(key, record.message.as_ref())?)?;
    Ok(Some((record, body)))
}
