//! An operator's hand on an entry: tried now, given up, dropped, or taken out of the error queue to be tried again.
//!
//! An entry keeps its number whatever happens to it, and a transfer's request id is made of that number (P-6): whoever has the
//! message from an attempt of which nobody heard does not get it twice when it is tried again.

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::limit::{QUEUE_REMARK_BYTES_MAX, RECIPIENTS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FailedRecipient, FailedRecord, PendingRecipient, QueueAction, QueueRecord, Refusal};

use crate::key::Key;
use crate::mailbox::body;
use crate::queue::entry::OpenEntry;
use crate::queue::failed::{self, Verdict};
use crate::queue::line::Line;
use crate::queue::{body_of, settle};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ManageQueue) -> Result<Made, Stop> {
    check(command)?;
    match command.failed {
        false => waiting(turn, command)?,
        true => given_up(turn, command)?,
    }
    Ok(Made::Done(pb::Done {}))
}

fn check(command: &pb::ManageQueue) -> Result<(), Stop> {
    if command.user_ids.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("user_ids: at most {RECIPIENTS_MAX}")));
    }
    for (field, remark) in [("by", &command.by), ("why", &command.why)] {
        if remark.is_empty() || remark.len() > QUEUE_REMARK_BYTES_MAX {
            return Err(malformed(format!("{field}: 1 to {QUEUE_REMARK_BYTES_MAX} bytes")));
        }
    }
    match (command.action(), command.failed) {
        (QueueAction::Unspecified, _) => Err(malformed("action: is missing")),
        (QueueAction::Hold | QueueAction::Release | QueueAction::Route, _) => {
            Err(malformed("action: this build does not send to the outside"))
        }
        (QueueAction::GiveUp, true) => Err(malformed("action: whoever is in the error queue was given up already")),
        _ => Ok(()),
    }
}

/// Whether the command is about this recipient.
fn is_meant(command: &pb::ManageQueue, user_id: &Bytes) -> bool {
    command.user_ids.is_empty() || command.user_ids.contains(user_id)
}

fn nobody(command: &pb::ManageQueue) -> Stop {
    let place = if command.failed { "error queue" } else { "queue" };
    refuse(
        Refusal::UnknownEntry,
        format!("entry: nobody who is meant stands in entry {} of the {place}", command.entry),
    )
}

fn waiting(turn: &mut Turn<'_, impl Rows>, command: &pb::ManageQueue) -> Result<(), Stop> {
    let id = EntryId(command.entry);
    let mut entry = OpenEntry::open(turn.rows, id)?.ok_or_else(|| nobody(command))?;
    let all = std::mem::take(&mut entry.record.pending);
    let (meant, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|pending| is_meant(command, &pending.user_id));
    if meant.is_empty() {
        return Err(nobody(command));
    }
    entry.record.pending = others;
    let mut verdict = Verdict::default();
    match command.action() {
        QueueAction::Retry => {
            let again = meant.into_iter().map(|mut pending| {
                // Alone: whoever is still in the way lets him stand in line again.
                Line::set(None, &mut pending);
                pending
            });
            entry.record.pending.extend(again);
        }
        QueueAction::GiveUp if !failed::has_room(turn, id)? => {
            return Err(refuse(Refusal::QueueFull, "the error queue is full"));
        }
        QueueAction::GiveUp => {
            let reason = format!("given up by {}: {}", command.by, command.why);
            let gone = meant.iter().map(|pending| settle::failed_recipient(pending, reason.clone(), turn.now));
            verdict.given_up.extend(gone);
        }
        // The others were refused above.
        QueueAction::Drop
        | QueueAction::Unspecified
        | QueueAction::Hold
        | QueueAction::Release
        | QueueAction::Route => {}
    }
    let due_ms = turn.now;
    failed::close(turn, entry, verdict, due_ms)?;
    Ok(())
}

fn given_up(turn: &mut Turn<'_, impl Rows>, command: &pb::ManageQueue) -> Result<(), Stop> {
    let id = EntryId(command.entry);
    let key = Key::Failed(id);
    let mut record: FailedRecord = row::get(turn.rows, key)?.ok_or_else(|| nobody(command))?;
    let all = std::mem::take(&mut record.recipients);
    let (meant, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|recipient| is_meant(command, &recipient.user_id));
    if meant.is_empty() {
        return Err(nobody(command));
    }
    record.recipients = others;
    let body = body_of(key, record.message.as_ref())?;
    let has_gone = failed::put_back(turn, &record)?;
    let refers_anew = command.action() == QueueAction::Retry && wait_again(turn, &record, meant)?;
    match (has_gone, refers_anew) {
        (true, false) => body::release(turn, body)?,
        (false, true) => body::retain(turn, body)?,
        // The entry takes over the reference of the row that has gone, or both have one as before.
        (true, true) | (false, false) => {}
    }
    Ok(())
}

/// Puts recipients back into the queue, with a new beginning. Whether the entry is new there: it needs a reference to the body.
fn wait_again(
    turn: &mut Turn<'_, impl Rows>,
    record: &FailedRecord,
    recipients: Vec<FailedRecipient>,
) -> Result<bool, Broken> {
    let (id, now) = (EntryId(record.entry), turn.now);
    let open = OpenEntry::open(turn.rows, id)?;
    let is_new = open.is_none();
    let mut entry = open.unwrap_or_else(|| {
        let again = QueueRecord {
            entry: record.entry,
            mail_from: record.mail_from.clone(),
            pending: Vec::new(),
            message: record.message.clone(),
            created_ms: record.created_ms,
            due_ms: now,
            attempts: 0,
            ..Default::default()
        };
        OpenEntry::create(id, again)
    });
    entry.record.pending.extend(recipients.into_iter().map(|recipient| PendingRecipient {
        user_id: recipient.user_id,
        address: recipient.address,
        attempts: 0,
        reason: format!("tried again after it had failed: {}", recipient.reason),
        undelivered_ms: now,
        since_ms: now,
        ..PendingRecipient::default()
    }));
    entry.close(turn, now, &[])?;
    Ok(is_new)
}
