//! What became of a leased entry. The lease itself is checked by the leader before it proposes this.

use postrider_api::id::{EntryId, ShardId};
use postrider_api::limit::{ENTRY_AGE_MS_MAX, FULL_AGE_MS_MAX, RECIPIENTS_MAX, RETRY_MS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FailedRecipient, PendingRecipient, RecipientResult, Refusal, Settlement};

use crate::Broken;
use crate::key::Key;
use crate::queue::entry::OpenEntry;
use crate::queue::failed::{self, Verdict};
use crate::queue::line::Line;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

/// A reason, bytes.
const REASON_BYTES_MAX: usize = 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Settle) -> Result<Made, Stop> {
    check(&command.results)?;
    if command.report.is_some() {
        return Err(malformed("report: this build does not send to the outside"));
    }
    let id = EntryId(command.entry);
    let mut entry = OpenEntry::open(turn.rows, id)?
        .ok_or_else(|| refuse(Refusal::UnknownEntry, format!("entry: there is no queue entry {id}")))?;
    let may_give_up = failed::has_room(turn, id)?;
    let verdict = settle(&mut entry, &command.results, turn.now, may_give_up)?;
    entry.record.attempts += 1;
    let due_ms = turn.now.saturating_add(command.retry_ms.min(RETRY_MS_MAX).into());
    failed::close(turn, entry, verdict, due_ms)?;
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

/// Takes out who is done with, and puts the others into the lines of what they wait for. A result for somebody who does not
/// wait is a repetition, and means nothing. Where nobody may be given up everybody else goes on waiting.
fn settle(entry: &mut OpenEntry, results: &[RecipientResult], now: i64, may_give_up: bool) -> Result<Verdict, Broken> {
    let key = Key::Queue(entry.id);
    let mut verdict = Verdict::default();
    let mut stay = Vec::with_capacity(entry.record.pending.len());
    for mut pending in std::mem::take(&mut entry.record.pending) {
        let Some(result) = results.iter().find(|result| result.user_id == pending.user_id) else {
            stay.push(pending);
            continue;
        };
        pending.attempts += 1;
        match result.settlement() {
            Settlement::Delivered => {
                verdict.answered.extend(answered(key, &pending, result)?);
                continue;
            }
            Settlement::Dropped => continue,
            Settlement::Waits => {
                stay.push(pending);
                continue;
            }
            _ => {}
        }
        if may_give_up && let Some(reason) = given_up(&pending, result, now) {
            verdict.given_up.push(failed_recipient(&pending, reason, now));
            continue;
        }
        if result.settlement() == Settlement::Full {
            pending.undelivered_ms = now;
        }
        Line::set(line(key, &pending, result)?, &mut pending);
        pending.reason.clone_from(&result.reason);
        stay.push(pending);
    }
    entry.record.pending = stay;
    Ok(verdict)
}

/// Why nobody goes on trying for this recipient.
fn given_up(pending: &PendingRecipient, result: &RecipientResult, now: i64) -> Option<String> {
    let after = |age_ms: i64| {
        let is_over = now.saturating_sub(pending.since_ms) > age_ms;
        is_over.then(|| format!("given up after {} days: {}", age_ms / DAY_MS, result.reason))
    };
    match result.settlement() {
        Settlement::Failed => Some(result.reason.clone()),
        Settlement::Deferred => after(ENTRY_AGE_MS_MAX),
        Settlement::Full => after(FULL_AGE_MS_MAX),
        // An unspecified one was refused above.
        Settlement::Held
        | Settlement::Waits
        | Settlement::Delivered
        | Settlement::Dropped
        | Settlement::Unspecified => None,
    }
}

/// What a recipient who was not delivered to waits for.
fn line(key: Key, pending: &PendingRecipient, result: &RecipientResult) -> Result<Option<Line>, Broken> {
    Ok(match result.settlement() {
        Settlement::Full => Some(Line::Mailbox(crate::row::id(key, &pending.user_id)?)),
        Settlement::Held if result.shard != 0 => Some(Line::Shard(ShardId(result.shard))),
        _ => None,
    })
}

/// The lines that a delivery shows to move again.
fn answered(key: Key, pending: &PendingRecipient, result: &RecipientResult) -> Result<Vec<Line>, Broken> {
    let mut lines = vec![Line::Mailbox(crate::row::id(key, &pending.user_id)?)];
    if result.shard != 0 {
        lines.push(Line::Shard(ShardId(result.shard)));
    }
    Ok(lines)
}

pub(crate) fn failed_recipient(pending: &PendingRecipient, reason: String, failed_ms: i64) -> FailedRecipient {
    FailedRecipient {
        user_id: pending.user_id.clone(),
        address: pending.address.clone(),
        attempts: pending.attempts,
        reason,
        failed_ms,
        ..Default::default()
    }
}
