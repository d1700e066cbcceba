//! The error queue: who was given up, why, when, and the message for him. One row an entry, with one reference to its body.
//!
//! Nothing leaves it by itself: the mail was acknowledged. [`ShardRecord::failed_entries`] says how many rows there are.
//!
//! [`ShardRecord::failed_entries`]: postrider_api::pb::ShardRecord

use postrider_api::id::EntryId;
use postrider_api::pb::{FailedRecipient, FailedRecord, QueueRecord};

use crate::key::Key;
use crate::store::Rows;
use crate::turn::Turn;
use crate::{Broken, row};

/// Keeps recipients of an entry who were given up. Whether the entry has a new row here: it takes a reference to the body.
pub(crate) fn keep(
    turn: &mut Turn<'_, impl Rows>,
    entry: &QueueRecord,
    recipients: Vec<FailedRecipient>,
) -> Result<bool, Broken> {
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
    });
    record.recipients.extend(recipients);
    row::put(turn.rows, key, &record);
    turn.state.failed_entries += u64::from(is_new);
    Ok(is_new)
}
