//! An operator's hand on an entry: tried now, held and released, sent elsewhere, given up, dropped, or taken out of the error queue to be
//! tried again.
//!
//! An entry keeps its number whatever happens to it, and a transfer's request id is made of that number (P-6): whoever has the
//! message from an attempt of which nobody heard does not get it twice when it is tried again.

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::limit::{QUEUE_REMARK_BYTES_MAX, RECIPIENTS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, FailedRecipient, FailedRecord, PendingRecipient, QueueAction, QueueRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::body;
use crate::queue::enqueue::Submission;
use crate::queue::entry::{self, NEVER_DUE_MS, OpenEntry};
use crate::queue::failed::{self, Verdict};
use crate::queue::line::Line;
use crate::queue::{body_of, settle, who};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// Where an operator has somebody sent, bytes: the longest name, brackets and a port.
const ROUTE_BYTES_MAX: usize = 261;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ManageQueue) -> Result<Made, Stop> {
    check(command)?;
    match command.failed {
        false => waiting(turn, command)?,
        true => given_up(turn, command)?,
    }
    Ok(Made::Done(pb::Done {}))
}

fn check(command: &pb::ManageQueue) -> Result<(), Stop> {
    for (field, named) in [("user_ids", command.user_ids.len()), ("addresses", command.addresses.len())] {
        if named > RECIPIENTS_MAX {
            return Err(malformed(format!("{field}: at most {RECIPIENTS_MAX}")));
        }
    }
    for (field, remark) in [("by", &command.by), ("why", &command.why)] {
        if remark.is_empty() || remark.len() > QUEUE_REMARK_BYTES_MAX {
            return Err(malformed(format!("{field}: 1 to {QUEUE_REMARK_BYTES_MAX} bytes")));
        }
    }
    if !is_route(&command.route) {
        return Err(malformed(format!("route: host or host:port of at most {ROUTE_BYTES_MAX} bytes is wanted")));
    }
    match (command.action(), command.failed) {
        (QueueAction::Unspecified, _) => Err(malformed("action: is missing")),
        (QueueAction::GiveUp, true) => Err(malformed("action: whoever is in the error queue was given up already")),
        (QueueAction::Hold | QueueAction::Release | QueueAction::Route, true) => {
            Err(malformed("action: is for those who wait; whoever is in the error queue is retried first"))
        }
        _ => Ok(()),
    }
}

/// A name or an address, in brackets where it has colons of its own, and a port. Whether anybody is there is the worker's to find out.
fn is_route(route: &str) -> bool {
    let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b':' | b'[' | b']');
    route.len() <= ROUTE_BYTES_MAX && route.bytes().all(is_inside)
}

/// Whether the command is about this recipient.
fn is_meant(command: &pb::ManageQueue, user_id: &Bytes, address: &str) -> bool {
    match user_id.is_empty() {
        _ if command.user_ids.is_empty() && command.addresses.is_empty() => true,
        false => command.user_ids.contains(user_id),
        true => command.addresses.iter().any(|named| named == address),
    }
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
    let action = command.action();
    let is_concerned = |pending: &PendingRecipient| {
        is_meant(command, &pending.user_id, &pending.address)
            // The way to our own shards is not the operator's to choose.
            && (action != QueueAction::Route || who::is_remote(pending))
            && (action != QueueAction::Release || pending.held)
    };
    if !entry.record.pending.iter().any(is_concerned) {
        return Err(nobody(command));
    }
    if action == QueueAction::GiveUp && !failed::has_room(turn, id)? {
        return Err(refuse(Refusal::QueueFull, "the error queue is full"));
    }
    // Not before the sender wants it.
    let now = Submission::not_before_ms(entry.record.options.as_ref()).max(turn.now);
    let mut verdict = Verdict::default();
    let mut stay = Vec::with_capacity(entry.record.pending.len());
    for mut pending in std::mem::take(&mut entry.record.pending) {
        match action {
            _ if !is_concerned(&pending) => {}
            QueueAction::Retry | QueueAction::Release => free(&mut pending, now),
            QueueAction::Hold => {
                Line::set(None, &mut pending);
                (pending.held, pending.due_ms) = (true, NEVER_DUE_MS);
                pending.reason = format!("held by {}: {}", command.by, command.why);
            }
            QueueAction::Route => {
                Line::set(None, &mut pending);
                pending.route.clone_from(&command.route);
                if !pending.held {
                    free(&mut pending, now);
                }
            }
            QueueAction::GiveUp => {
                let reason = format!("given up by {}: {}", command.by, command.why);
                verdict.given_up.push(settle::failed_recipient(&pending, reason, turn.now));
                continue;
            }
            // An unspecified one was refused above.
            QueueAction::Drop | QueueAction::Unspecified => continue,
        }
        stay.push(pending);
    }
    entry.record.pending = stay;
    failed::close(turn, entry, verdict)?;
    Ok(())
}

/// He is tried alone: whoever is still in the way lets him stand in line again.
fn free(pending: &mut PendingRecipient, now: i64) {
    Line::set(None, pending);
    (pending.held, pending.due_ms) = (false, now);
}

fn given_up(turn: &mut Turn<'_, impl Rows>, command: &pb::ManageQueue) -> Result<(), Stop> {
    let id = EntryId(command.entry);
    let key = Key::Failed(id);
    let mut record: FailedRecord = row::get(turn.rows, key)?.ok_or_else(|| nobody(command))?;
    let all = std::mem::take(&mut record.recipients);
    let (meant, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|recipient| is_meant(command, &recipient.user_id, &recipient.address));
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
    let id = EntryId(record.entry);
    // Not before the sender wants it.
    let now = Submission::not_before_ms(record.options.as_ref()).max(turn.now);
    let open = OpenEntry::open(turn.rows, id)?;
    let is_new = open.is_none();
    let mut entry = match open {
        Some(entry) => entry,
        None => OpenEntry::create(id, again(turn, record)?),
    };
    entry.record.pending.extend(recipients.into_iter().map(|recipient| PendingRecipient {
        user_id: recipient.user_id,
        address: recipient.address,
        attempts: 0,
        reason: format!("tried again after it had failed: {}", recipient.reason),
        undelivered_ms: now,
        since_ms: now,
        due_ms: now,
        notify: recipient.notify,
        original: recipient.original,
        reply: recipient.reply,
        code: recipient.code,
        unknown_attempts: recipient.unknown_attempts,
        number: recipient.number,
        ..PendingRecipient::default()
    }));
    entry.close(turn, &[])?;
    Ok(is_new)
}

/// An entry as it was, with nobody in it.
fn again(turn: &Turn<'_, impl Rows>, record: &FailedRecord) -> Result<QueueRecord, Broken> {
    let mut again = QueueRecord {
        entry: record.entry,
        mail_from: record.mail_from.clone(),
        pending: Vec::new(),
        message: record.message.clone(),
        created_ms: record.created_ms,
        due_ms: turn.now,
        attempts: 0,
        sender_user_id: record.sender_user_id.clone(),
        sent_copy: record.sent_copy.clone(),
        options: record.options.clone(),
    };
    let is_there = match entry::sender(Key::Failed(EntryId(record.entry)), &again)? {
        Some(sender) => Mailbox::open(turn, sender)?.is_some(),
        None => false,
    };
    if !is_there {
        // The account has gone meanwhile, and its outbox with it.
        again.sender_user_id.clear();
        again.sent_copy.clear();
    }
    Ok(again)
}
