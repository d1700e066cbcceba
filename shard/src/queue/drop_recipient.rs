//! A user who is gone: entries that wait for him, and those of the error queue that gave him up, hold him no longer; nor does the error
//! queue as whoever sent something. (Entries that wait forget their sender when his outbox is drained.)
//!
//! Who looks for the entries reads page by page ([`answer`]), and names what it found: a command costs what it changes.

use postrider_api::id::{EntryId, UserId};
use postrider_api::limit::DROPPED_ENTRIES_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FailedRecord, FindRecipient, QueueCount, QueueRecord, RecipientEntries};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::body;
use crate::query::{QueryError, id};
use crate::queue::body_of;
use crate::queue::entry::OpenEntry;
use crate::queue::failed::{self, Verdict};
use crate::row;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, malformed};
use crate::{Broken, page};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DropRecipient) -> Result<Made, Stop> {
    let user: UserId = crate::turn::id(&command.user_id, "user_id")?;
    if command.entries.len() > DROPPED_ENTRIES_MAX {
        return Err(malformed(format!("entries: at most {DROPPED_ENTRIES_MAX}")));
    }
    for entry in command.entries.iter().copied().map(EntryId) {
        drop_waiting(turn, user, entry)?;
        drop_failed(turn, user, entry)?;
    }
    Ok(Made::Done(pb::Done {}))
}

fn drop_waiting(turn: &mut Turn<'_, impl Rows>, user: UserId, id: EntryId) -> Result<(), Broken> {
    let Some(mut entry) = OpenEntry::open(turn.rows, id)? else { return Ok(()) };
    let waited = entry.record.pending.len();
    entry.record.pending.retain(|pending| pending.user_id != user.0[..]);
    if entry.record.pending.len() == waited {
        return Ok(());
    }
    failed::close(turn, entry, Verdict::default())
}

fn drop_failed(turn: &mut Turn<'_, impl Rows>, user: UserId, entry: EntryId) -> Result<(), Broken> {
    let key = Key::Failed(entry);
    let Some(mut record) = row::get::<FailedRecord>(turn.rows, key)? else { return Ok(()) };
    let given_up = record.recipients.len();
    record.recipients.retain(|recipient| recipient.user_id != user.0[..]);
    let was_sender = record.sender_user_id == user.0[..];
    if was_sender {
        record.sender_user_id.clear();
        record.sent_copy.clear();
    }
    if (was_sender || record.recipients.len() < given_up) && failed::put_back(turn, &record)? {
        body::release(turn, body_of(key, record.message.as_ref())?)?;
    }
    Ok(())
}

/// Looks at a page of the queue and at the same stretch of the error queue.
pub(crate) fn answer(reader: &impl Reader, query: &FindRecipient) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    let after = EntryId(query.after_entry);
    // What waits is counted by recipient: where nothing does, the queue need not be read.
    let waiting = match row::get::<QueueCount>(reader, Key::QueueRecipient(user))? {
        None => page::Page { rows: Vec::new(), more: false },
        Some(_) => page::read(reader, &KeyRange::entries_behind(Table::Queue, after), 0, |key, value| {
            let bytes = value.len();
            let (key, record) = row::decode_row::<QueueRecord>(key, value)?;
            let stands = record.pending.iter().any(|pending| pending.user_id == user.0[..]);
            Ok(((entry_of(key)?, stands), bytes))
        })?,
    };
    let failed = page::read(reader, &KeyRange::entries_behind(Table::Failed, after), 0, |key, value| {
        let bytes = value.len();
        let (key, record) = row::decode_row::<FailedRecord>(key, value)?;
        let is_sender = record.sender_user_id == user.0[..];
        let stands = is_sender || record.recipients.iter().any(|recipient| recipient.user_id == user.0[..]);
        Ok(((entry_of(key)?, stands), bytes))
    })?;
    // Where one of the two tables has more, only what lies before its last row was looked at in both.
    let until = |page: &page::Page<(u64, bool)>| page.more.then(|| page.rows.last().map(|row| row.0)).flatten();
    let bound = match (until(&waiting), until(&failed)) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let rows = waiting.rows.into_iter().chain(failed.rows);
    let seen: Vec<(u64, bool)> = rows.filter(|(entry, _)| bound.is_none_or(|bound| *entry <= bound)).collect();
    let mut entries: Vec<u64> = seen.iter().filter(|(_, stands)| *stands).map(|(entry, _)| *entry).collect();
    entries.sort_unstable();
    entries.dedup();
    let until_entry = bound.or(seen.iter().map(|(entry, _)| *entry).max()).unwrap_or(query.after_entry);
    Ok(Answer::RecipientEntries(RecipientEntries { entries, until_entry, more: bound.is_some() }))
}

fn entry_of(key: Key) -> Result<u64, Broken> {
    match key {
        Key::Queue(entry) | Key::Failed(entry) => Ok(entry.0),
        other => Err(Broken::corrupt(other, "stands among the entries of a queue")),
    }
}
