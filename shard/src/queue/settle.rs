//! What became of a leased entry. The lease itself is checked by the leader before it proposes this.

use postrider_api::id::{BodyId, EntryId};
use postrider_api::limit::RECIPIENTS_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, QueueRecord, RecipientResult, Refusal, Settlement};

use crate::key::Key;
use crate::mailbox::body;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// A reason, bytes.
const REASON_BYTES_MAX: usize = 1000;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Settle) -> Result<Made, Stop> {
    check(&command.results)?;
    let entry = EntryId(command.entry);
    let key = Key::Queue(entry);
    let mut record: QueueRecord = row::get(turn.rows, key)?
        .ok_or_else(|| refuse(Refusal::UnknownEntry, format!("entry: there is no queue entry {entry}")))?;
    let was_due = record.due_ms;
    settle(&mut record, &command.results);
    row::delete(turn.rows, Key::QueueDue(was_due, entry));
    if record.pending.is_empty() {
        row::delete(turn.rows, key);
        body::release(turn, body_of(key, &record)?)?;
    } else {
        record.attempts += 1;
        record.due_ms = command.due_ms.max(turn.now);
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

/// Drops who is done with. A result for somebody who does not wait is a repetition, and means nothing.
fn settle(record: &mut QueueRecord, results: &[RecipientResult]) {
    record.pending.retain_mut(|pending| {
        let Some(result) = results.iter().find(|result| result.user_id == pending.user_id) else { return true };
        let waits = result.settlement() == Settlement::Deferred;
        if waits {
            pending.attempts += 1;
            pending.reason.clone_from(&result.reason);
        }
        waits
    });
}

/// The body that an entry refers to.
pub(crate) fn body_of(key: Key, record: &QueueRecord) -> Result<BodyId, Broken> {
    let body = record.message.as_ref().and_then(|message| message.body.as_ref());
    row::id(key, &body.ok_or_else(|| Broken::corrupt(key, "has no body"))?.body_id)
}
