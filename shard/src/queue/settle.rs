//! What became of a leased entry. The lease itself is checked by the leader before it proposes this.

use postrider_api::id::EntryId;
use postrider_api::limit::{ENTRY_AGE_MS_MAX, RECIPIENTS_MAX, RETRY_MS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FailedRecipient, PendingRecipient, QueueRecord, RecipientResult, Refusal, Settlement};

use crate::key::Key;
use crate::mailbox::body;
use crate::queue::{body_of, failed};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

/// A reason, bytes.
const REASON_BYTES_MAX: usize = 1000;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Settle) -> Result<Made, Stop> {
    check(&command.results)?;
    let entry = EntryId(command.entry);
    let key = Key::Queue(entry);
    let mut record: QueueRecord = row::get(turn.rows, key)?
        .ok_or_else(|| refuse(Refusal::UnknownEntry, format!("entry: there is no queue entry {entry}")))?;
    let body = body_of(key, record.message.as_ref())?;
    row::delete(turn.rows, Key::QueueDue(record.due_ms, entry));
    let given_up = settle(&mut record, &command.results, turn.now);
    let refers_twice = failed::keep(turn, &record, given_up)?;
    let is_over = record.pending.is_empty();
    match (is_over, refers_twice) {
        (true, false) => body::release(turn, body)?,
        (false, true) => body::retain(turn, body)?,
        // The row in the error queue takes over the entry's reference, or nothing has changed.
        (true, true) | (false, false) => {}
    }
    if is_over {
        row::delete(turn.rows, key);
    } else {
        record.attempts += 1;
        record.due_ms = turn.now.saturating_add(command.retry_ms.min(RETRY_MS_MAX).into());
        row::put_empty(turn.rows, Key::QueueDue(record.due_ms, entry));
        row::put(turn.rows, key, &record);
        turn.queue_due = Some(record.due_ms);
    }
    Ok(Made::Done(pb::Done {}))
}

fn check(results: &[RecipientResult]) -> Result<(), Stop> {
    if results.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("results: at most {RECIPIENTS_MAX}")));
    }
    for result in results {
        if result.settlement() == Settlement::Unspecified {
            return Err(malformed("results.settlement: is missing"));
        }
        if result.reason.len() > REASON_BYTES_MAX {
            return Err(malformed(format!("results.reason: at most {REASON_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

/// Takes out who is done with, and gives those of them who were given up. A result for somebody who does not wait is a
/// repetition, and means nothing.
fn settle(record: &mut QueueRecord, results: &[RecipientResult], now: i64) -> Vec<FailedRecipient> {
    let is_old = now.saturating_sub(record.created_ms) > ENTRY_AGE_MS_MAX;
    let mut given_up = Vec::new();
    record.pending.retain_mut(|pending| {
        let Some(result) = results.iter().find(|result| result.user_id == pending.user_id) else { return true };
        pending.attempts += 1;
        match result.settlement() {
            Settlement::Delivered => return false,
            Settlement::Failed => {
                given_up.push(failed_recipient(pending, result.reason.clone(), now));
                return false;
            }
            Settlement::Deferred if is_old => {
                let days = ENTRY_AGE_MS_MAX / (24 * 60 * 60 * 1000);
                given_up.push(failed_recipient(pending, format!("given up after {days} days: {}", result.reason), now));
                return false;
            }
            Settlement::Full => pending.undelivered_ms = now,
            // An unspecified one was refused above.
            Settlement::Deferred | Settlement::Held | Settlement::Unspecified => {}
        }
        pending.reason.clone_from(&result.reason);
        true
    });
    given_up
}

fn failed_recipient(pending: &PendingRecipient, reason: String, failed_ms: i64) -> FailedRecipient {
    FailedRecipient {
        user_id: pending.user_id.clone(),
        address: pending.address.clone(),
        attempts: pending.attempts,
        reason,
        failed_ms,
    }
}
