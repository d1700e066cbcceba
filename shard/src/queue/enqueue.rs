//! A new entry.

use postrider_api::id::{EntryId, UserId};
use postrider_api::pb::{Body, NewMessage, PendingRecipient, QueueRecord};

use crate::key::Key;
use crate::mailbox::incoming::Incoming;
use crate::store::Rows;
use crate::turn::Turn;
use crate::{Broken, row};

/// A recipient who does not have the message yet.
pub(crate) struct Waiting<'r> {
    pub(crate) user: UserId,
    pub(crate) address: &'r str,
    pub(crate) reason: &'static str,
}

/// Makes an entry for those who wait, due at once; `None` when nobody waits. The caller counts its reference to the body.
pub(crate) fn apply(
    turn: &mut Turn<'_, impl Rows>,
    incoming: &Incoming<'_>,
    waiting: Vec<Waiting<'_>>,
) -> Result<Option<EntryId>, Broken> {
    if waiting.is_empty() {
        return Ok(None);
    }
    turn.state.entry_last += 1;
    let entry = EntryId(turn.state.entry_last);
    let now = turn.now;
    let pending = waiting.into_iter().map(|waiting| PendingRecipient {
        user_id: waiting.user.to_bytes(),
        address: waiting.address.to_owned(),
        attempts: 0,
        reason: waiting.reason.to_owned(),
        undelivered_ms: now,
    });
    let record = QueueRecord {
        entry: entry.0,
        mail_from: incoming.mail_from.to_owned(),
        pending: pending.collect(),
        message: Some(without_text(incoming.new)),
        created_ms: now,
        due_ms: now,
        attempts: 0,
    };
    row::put(turn.rows, Key::Queue(entry), &record);
    row::put_empty(turn.rows, Key::QueueDue(record.due_ms, entry));
    turn.queue_due = Some(record.due_ms);
    Ok(Some(entry))
}

fn without_text(message: &NewMessage) -> NewMessage {
    let mut message = message.clone();
    message.body = message.body.map(|body| Body { text: Default::default(), ..body });
    message
}
