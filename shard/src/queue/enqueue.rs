//! A new entry.

use bytes::Bytes;
use postrider_api::id::{EntryId, UserId};
use postrider_api::pb::{Body, NewMessage, PendingRecipient, QueueRecord, Recipient, SendOptions};

use crate::Broken;
use crate::mailbox::incoming::Incoming;
use crate::queue::count;
use crate::queue::entry::OpenEntry;
use crate::queue::line::{self, Line};
use crate::queue::who::Who;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn};

/// A recipient who does not have the message yet.
pub(crate) struct Waiting {
    pub(crate) who: Who,
    pub(crate) recipient: Recipient,
    pub(crate) cause: Cause,
}

/// What an entry has of whoever sent its message from here.
#[derive(Default)]
pub(crate) struct Submission {
    pub(crate) sender: Option<UserId>,
    pub(crate) sent_copy: Bytes,
    pub(crate) options: Option<SendOptions>,
}

impl Submission {
    /// Before which nobody gets it, milliseconds.
    pub(crate) fn not_before_ms(options: Option<&SendOptions>) -> i64 {
        options.map_or(0, |options| options.not_before_ms)
    }
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
    /// He is outside.
    Outside,
    /// Nobody gets it yet.
    Later,
}

impl Cause {
    fn reason(self) -> &'static str {
        match self {
            Self::Elsewhere => "the mailbox is in another shard",
            Self::TooFull => "the mailbox is over its quota",
            Self::Suspended => "the account is suspended",
            Self::Outside => "it is to be sent to another host",
            Self::Later => "the sender wants it to be sent later",
        }
    }
}

/// Refuses, before anything is written, an entry for which there is no room.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, incoming: &Incoming<'_>, waiting: &[Waiting]) -> Result<(), Stop> {
    count::check(turn, incoming.mail_from, waiting, incoming.new.size)
}

/// Makes an entry for those who wait, due at once or when it may be sent; `None` when nobody waits. The caller counts its reference to
/// the body.
pub(crate) fn apply(
    turn: &mut Turn<'_, impl Rows>,
    incoming: &Incoming<'_>,
    waiting: Vec<Waiting>,
    submission: Submission,
) -> Result<Option<EntryId>, Broken> {
    if waiting.is_empty() {
        return Ok(None);
    }
    turn.state.entry_last += 1;
    let id = EntryId(turn.state.entry_last);
    let now = turn.now;
    // Nobody had it before, and nobody has waited before.
    let from_ms = Submission::not_before_ms(submission.options.as_ref()).max(now);
    let mut pending = Vec::with_capacity(waiting.len());
    let mut outside = 0;
    for waiting in waiting {
        let is_outside = waiting.who.user().is_none();
        outside += u32::from(is_outside);
        let number = if is_outside { outside } else { 0 };
        pending.push(PendingRecipient { number, ..recipient(turn.rows, waiting, from_ms)? });
    }
    let record = QueueRecord {
        entry: id.0,
        mail_from: incoming.mail_from.to_owned(),
        pending,
        message: Some(without_text(incoming.new)),
        created_ms: now,
        due_ms: from_ms,
        attempts: 0,
        sender_user_id: submission.sender.map(UserId::to_bytes).unwrap_or_default(),
        sent_copy: submission.sent_copy,
        options: submission.options,
    };
    OpenEntry::create(id, record).close(turn, &[])?;
    Ok(Some(id))
}

fn recipient(reader: &impl Reader, waiting: Waiting, from_ms: i64) -> Result<PendingRecipient, Broken> {
    let Waiting { who, recipient, cause } = waiting;
    let mut reason = cause.reason().to_owned();
    let line = match (&who, cause) {
        (Who::User(user), Cause::TooFull) => Some(Line::Mailbox(*user)),
        // Behind those who wait already, rather than to be told the same as they were.
        (Who::Remote(remote), Cause::Outside) => {
            let line = Line::to(remote.domain());
            line::first(reader, line)?.map(|_| {
                reason = format!("older mail for {} waits until it takes mail again", remote.domain());
                line
            })
        }
        _ => None,
    };
    let mut pending = PendingRecipient {
        user_id: recipient.user_id,
        address: recipient.address,
        notify: recipient.notify,
        original: recipient.original,
        reason,
        undelivered_ms: from_ms,
        since_ms: from_ms,
        due_ms: from_ms,
        ..PendingRecipient::default()
    };
    Line::set(line, &mut pending);
    Ok(pending)
}

fn without_text(message: &NewMessage) -> NewMessage {
    let mut message = message.clone();
    message.body = message.body.map(|body| Body { text: Default::default(), ..body });
    message
}
