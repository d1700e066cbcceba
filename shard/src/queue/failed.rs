//! The error queue: who was given up, why, when, and the message for him. One row an entry, with one reference to its body.
//!
//! Nothing leaves it by itself: the mail was acknowledged. An operator has it tried again, or drops it ([`super::manage`]).
//! [`ShardRecord::failed_entries`] says how many rows there are; while there are [`FAILED_ENTRIES_MAX`] nobody more is given
//! up, and waits instead.
//!
//! [`ShardRecord::failed_entries`]: postrider_api::pb::ShardRecord

use postrider_api::id::{EntryId, ModSeq};
use postrider_api::limit::FAILED_ENTRIES_MAX;
use postrider_api::pb::{FailedRecipient, FailedRecord, QueueRecord};

use crate::key::Key;
use crate::mailbox::body;
use crate::queue::entry::OpenEntry;
use crate::queue::line::Line;
use crate::queue::{body_of, destination};
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::Turn;
use crate::{Broken, row};

/// What a command decided about an entry's recipients.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) given_up: Vec<FailedRecipient>,
    /// Lines of which somebody got through.
    pub(crate) answered: Vec<Line>,
    /// What destinations said, each with its name.
    pub(crate) replies: Vec<(String, String)>,
}

/// Whether somebody of this entry may be given up.
pub(crate) fn has_room(turn: &Turn<'_, impl Rows>, entry: EntryId) -> Result<bool, Broken> {
    Ok(turn.state.failed_entries < FAILED_ENTRIES_MAX || turn.rows.get(&Key::Failed(entry).bytes())?.is_some())
}

/// Keeps who was given up and what was said, and closes the entry. The body's references follow.
pub(crate) fn close(turn: &mut Turn<'_, impl Rows>, entry: OpenEntry, verdict: Verdict) -> Result<(), Broken> {
    let body = body_of(Key::Queue(entry.id), entry.record.message.as_ref())?;
    let refers_twice = keep(turn, &entry.record, verdict.given_up)?;
    let is_over = entry.record.pending.is_empty();
    match (is_over, refers_twice) {
        (true, false) => body::release(turn, body)?,
        (false, true) => body::retain(turn, body)?,
        // The row in the error queue takes over the entry's reference, or nothing has changed.
        (true, true) | (false, false) => {}
    }
    entry.close(turn, &verdict.answered)?;
    let now = turn.now;
    verdict.replies.iter().try_for_each(|(destination, reply)| destination::note(turn.rows, destination, reply, now))
}

/// Keeps recipients of an entry who were given up. Whether the entry has a new row here: it takes a reference to the body.
fn keep(turn: &mut Turn<'_, impl Rows>, entry: &QueueRecord, recipients: Vec<FailedRecipient>) -> Result<bool, Broken> {
    if recipients.is_empty() {
        return Ok(false);
    }
    let key = Key::Failed(EntryId(entry.entry));
    let known = row::get::<FailedRecord>(turn.rows, key)?;
    let is_new = known.is_none();
    let mut record = known.unwrap_or_else(|| FailedRecord {
        entry: entry.entry,
        mail_from: entry.mail_from.clone(),
        recipients: Vec::new(),
        message: entry.message.clone(),
        created_ms: entry.created_ms,
        sender_user_id: entry.sender_user_id.clone(),
        sent_copy: entry.sent_copy.clone(),
        options: entry.options.clone(),
    });
    record.recipients.extend(recipients);
    row::put(turn.rows, key, &record);
    turn.state.failed_entries += u64::from(is_new);
    let verb = if is_new { Verb::Created } else { Verb::Updated };
    tail::push(turn, Object::FailedEntry(EntryId(entry.entry)), verb, ModSeq(0));
    Ok(is_new)
}

/// Writes a row of the error queue after some of its recipients were taken out; without any it goes. Whether it has gone: its
/// reference to the body is the caller's now.
pub(crate) fn put_back(turn: &mut Turn<'_, impl Rows>, record: &FailedRecord) -> Result<bool, Broken> {
    let id = EntryId(record.entry);
    let key = Key::Failed(id);
    if !record.recipients.is_empty() {
        row::put(turn.rows, key, record);
        tail::push(turn, Object::FailedEntry(id), Verb::Updated, ModSeq(0));
        return Ok(false);
    }
    row::delete(turn.rows, key);
    tail::push(turn, Object::FailedEntry(id), Verb::Deleted, ModSeq(0));
    let entries = turn.state.failed_entries.checked_sub(1);
    turn.state.failed_entries =
        entries.ok_or_else(|| Broken::corrupt(Key::Shard, "failed_entries would fall below zero"))?;
    Ok(true)
}
