//! Entries, by time and by number.

use postrider_api::id::EntryId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{BodyRecord, GetQueueEntry, ListQueue, Missing, QueuePage, QueueRecord};
use prost::Message;

use crate::key::{Key, KeyRange};
use crate::mailbox::body;
use crate::query::{PAGE_BYTES_MAX, QueryError, missing, page_rows};
use crate::queue::settle::body_of;
use crate::store::{Direction, Reader};
use crate::{Broken, row};

/// Entries that are due, the longest due first; fewer than asked for where they are large. `after_entry` continues behind
/// that entry; when it has gone meanwhile, from the beginning.
pub(crate) fn answer_due(reader: &impl Reader, query: &ListQueue) -> Result<Answer, QueryError> {
    let after = match query.after_entry {
        0 => None,
        entry => {
            row::get::<QueueRecord>(reader, Key::Queue(EntryId(entry)))?.map(|record| (record.due_ms, EntryId(entry)))
        }
    };
    let mut page = QueuePage::default();
    let mut bytes = 0;
    let range = KeyRange::due(query.due_until_ms, after);
    for found in reader.scan(&range, Direction::Forward).take(page_rows(query.limit)) {
        match Key::decode(found?.0.as_ref()).map_err(Broken::from)? {
            Key::QueueDue(_, entry) => {
                let record: QueueRecord = row::need(reader, Key::Queue(entry))?;
                bytes += record.encoded_len();
                page.entries.push(record);
            }
            other => return Err(Broken::corrupt(other, "stands in the range of queue_by_due").into()),
        }
        if bytes > PAGE_BYTES_MAX {
            break;
        }
    }
    Ok(Answer::Queue(page))
}

pub(crate) fn answer_entry(reader: &impl Reader, query: &GetQueueEntry) -> Result<Answer, QueryError> {
    let record: Option<QueueRecord> = row::get(reader, Key::Queue(EntryId(query.entry)))?;
    Ok(record.map_or_else(|| missing(Missing::Entry), Answer::QueueEntry))
}

/// An entry with its body: what a lease hands to a worker. `None` when it has gone.
///
/// # Errors
/// When a row is corrupt, or the body is missing.
pub fn entry(reader: &impl Reader, entry: EntryId) -> Result<Option<(QueueRecord, BodyRecord)>, Broken> {
    let key = Key::Queue(entry);
    let Some(record) = row::get::<QueueRecord>(reader, key)? else { return Ok(None) };
    let body = body::read(reader, body_of(key, &record)?)?;
    Ok(Some((record, body)))
}
