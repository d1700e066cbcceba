//! Entries and the error queue, by number.

use postrider_api::id::EntryId;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    BodyRecord, FailedPage, FailedRecord, GetQueueEntry, ListFailed, ListQueue, Missing, NewMessage, QueueEntry,
    QueuePage, QueueRecord,
};
use prost::Message as _;

use crate::key::{Key, KeyRange, Table, name_hash};
use crate::mailbox::body;
use crate::query::{QueryError, missing};
use crate::queue::{body_of, destination, who};
use crate::sending::read::hinder;
use crate::store::Reader;
use crate::{Broken, page, row};

/// What a byte of a list counts for beside one that was only read. A list is many small strings, and the threads that carry
/// heartbeats write it: a page has a megabyte of them at most, as a lease call has.
pub(crate) const LISTED_BYTE_WEIGHT: usize = 5;

/// Who waits, by entry, whether for all or for one destination; fewer than asked for where they are large.
pub(crate) fn answer_waiting(reader: &impl Reader, query: &ListQueue) -> Result<Answer, QueryError> {
    let after = EntryId(query.after_entry);
    let line = |read: usize, mut record: QueueRecord| {
        record.message = record.message.map(listed);
        let weight = read + LISTED_BYTE_WEIGHT * record.encoded_len();
        (record, weight)
    };
    let page = if query.destination.is_empty() {
        let range = KeyRange::entries_behind(Table::Queue, after);
        page::read(reader, &range, query.limit, |key, value| {
            let read = value.len();
            Ok(line(read, row::decode_row(key, value)?.1))
        })?
    } else {
        let range = KeyRange::destination_entries(name_hash(&query.destination), after);
        page::read(reader, &range, query.limit, |key, _| {
            let entry = destination::entry_of(Key::decode(key.as_ref())?)?;
            let record: QueueRecord = row::need(reader, Key::Queue(entry))?;
            Ok(line(record.encoded_len(), record))
        })?
    };
    Ok(Answer::Queue(QueuePage { entries: page.rows, more: page.more }))
}

/// The error queue, by entry.
pub(crate) fn answer_failed(reader: &impl Reader, query: &ListFailed) -> Result<Answer, QueryError> {
    let range = KeyRange::entries_behind(Table::Failed, EntryId(query.after_entry));
    let page = page::read(reader, &range, query.limit, |key, value| {
        let read = value.len();
        let mut record: FailedRecord = row::decode_row(key, value)?.1;
        record.message = record.message.map(listed);
        let weight = read + LISTED_BYTE_WEIGHT * record.encoded_len();
        Ok((record, weight))
    })?;
    Ok(Answer::Failed(FailedPage { entries: page.rows, more: page.more }))
}

/// What a list says of a message. A thousand parts, and as many addresses in its header, are half a megabyte each.
fn listed(message: NewMessage) -> NewMessage {
    NewMessage {
        size: message.size,
        has_attachments: message.has_attachments,
        body: message.body,
        message_id_hash: message.message_id_hash,
        ..Default::default()
    }
}

/// One entry, with all that is known of its message.
pub(crate) fn answer_entry(reader: &impl Reader, query: &GetQueueEntry) -> Result<Answer, QueryError> {
    let entry = EntryId(query.entry);
    let waiting: Option<QueueRecord> = row::get(reader, Key::Queue(entry))?;
    let failed: Option<FailedRecord> = row::get(reader, Key::Failed(entry))?;
    let message = match (&waiting, &failed) {
        (Some(waiting), _) => (Key::Queue(entry), waiting.message.as_ref()),
        (None, Some(failed)) => (Key::Failed(entry), failed.message.as_ref()),
        (None, None) => return Ok(missing(Missing::Entry)),
    };
    let body = match query.with_body {
        true => Some(body::read(reader, body_of(message.0, message.1)?)?),
        false => None,
    };
    Ok(Answer::QueueEntry(QueueEntry { waiting, failed, body }))
}

/// Whether somebody outside waits in an entry, and when it was made, milliseconds of the shard's time; `None` when it has gone.
///
/// # Errors
/// When its row is corrupt.
pub fn made(reader: &impl Reader, entry: EntryId) -> Result<Option<Made>, Broken> {
    let record = row::get::<QueueRecord>(reader, Key::Queue(entry))?;
    Ok(record.map(|record| Made {
        at_ms: record.created_ms,
        for_outside: record.pending.iter().any(who::is_remote),
        bytes: record.encoded_len(),
    }))
}

/// What a leader asks of an entry before it leases it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// When it was made, milliseconds of the shard's time.
    pub at_ms: i64,
    /// Somebody outside waits in it.
    pub for_outside: bool,
    /// Of its row.
    pub bytes: usize,
}

/// An entry with its body and those who are due by `now_ms`: what a lease hands to a worker. Whoever is parked among them is not to be
/// tried: his sender is to be told. `None` when it has gone, or nobody is due.
///
/// # Errors
/// When a row is corrupt, or the body is missing.
pub fn entry(reader: &impl Reader, entry: EntryId, now_ms: i64) -> Result<Option<(QueueRecord, BodyRecord)>, Broken> {
    let key = Key::Queue(entry);
    let Some(mut record) = row::get::<QueueRecord>(reader, key)? else { return Ok(None) };
    record.pending.retain(|pending| pending.due_ms <= now_ms);
    if record.pending.is_empty() {
        return Ok(None);
    }
    hinder(reader, entry, &mut record, now_ms)?;
    let body = body::read(reader, body_of(key, record.message.as_ref())?)?;
    Ok(Some((record, body)))
}
