//! A new entry.

use postrider_api::id::{EntryId, UserId};
use postrider_api::pb::{Body, NewMessage, PendingRecipient, QueueRecord};

use crate::Broken;
use crate::mailbox::incoming::Incoming;
use crate::queue::count;
use crate::queue::entry::OpenEntry;
use crate::queue::line::Line;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

/// A recipient who does not have the message yet.
pub(crate) struct Waiting<'r> {
    pub(crate) user: UserId,
    pub(crate) address: &'r str,
    pub(crate) cause: Cause,
}

/// Why he does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// His mailbox is in another shard.
    Elsewhere,
    /// His mailbox is in this shard, and too full.
    TooFull,
    /// His account is suspended and takes no mail.
    Suspended,
}

impl Cause {
    fn reason(self) -> &'static str {
        match self {
            Self::Elsewhere => "the mailbox is in another shard",
            Self::TooFull => "the mailbox is over its quota",
            Self::Suspended => "the account is suspended",
        }
    }
}

/// Refuses, before anything is written, an entry for which there is no room.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, incoming: &Incoming<'_>, waiting: &[Waiting<'_>]) -> Result<(), Stop> {
    count::check(turn, incoming.mail_from, waiting.iter().map(|waiting| waiting.user), incoming.new.size)
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
    let id = EntryId(turn.state.entry_last);
    let now = turn.now;
    let pending = waiting.into_iter().map(|waiting| {
        let mut pending = PendingRecipient {
            user_id: waiting.user.to_bytes(),
            address: waiting.address.to_owned(),
            reason: waiting.cause.reason().to_owned(),
            undelivered_ms: now,
            since_ms: now,
            ..PendingRecipient::default()
        };
        Line::set((waiting.cause == Cause::TooFull).then_some(Line::Mailbox(waiting.user)), &mut pending);
        pending
    });
    let record = QueueRecord {
        entry: id.0,
        mail_from: incoming.mail_from.to_owned(),
        pending: pending.collect(),
        message: Some(without_text(incoming.new)),
        created_ms: now,
        due_ms: now,
        attempts: 0,
        ..Default::default()
    };
    OpenEntry::create(id, record).close(turn, now, &[])?;
    Ok(Some(id))
}

fn without_text(message: &NewMessage) -> NewMessage {
    let mut message = message.clone();
    message.body = message.body.map(|body| Body { text: Default::default(), ..body });
    message
}
