//! `/v1/outbox`: what was sent and somebody still waits for, and why; and taking it back.

use axum::Json;
use axum::extract::State;
use postrider_api::id::{EmailId, EntryId};
use postrider_api::limit::{CANCEL_MARGIN_MS, PAGE_ROWS_MAX};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{QueueLine, answer, outcome, query};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

use crate::rest::cursor::{Cursors, List, Place};
use crate::rest::extract::{Params, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::PAGE_ROWS_DEFAULT;
use crate::rest::mailboxes::{Caller, Mailboxes, wrong_answer};
use crate::rest::openapi::{ReadProblems, SendProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::send::Outbox;
use crate::rest::time::Time;
use crate::rest::view::{Id, Mailbox};

/// How somebody who has not got a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Standing {
    /// Nobody gets it before its time.
    Scheduled,
    /// It is tried, or will be.
    Waiting,
    /// An operator holds it.
    Held,
    /// It was given up.
    Failed,
}

/// Somebody who has not got a message yet.
#[derive(Serialize, ToSchema)]
pub(crate) struct OutboxRecipient {
    /// Who.
    #[schema(example = "bob@far.example")]
    address: String,
    /// How it stands.
    state: Standing,
    /// Why, as one sentence.
    #[schema(example = "far.example took nothing when it was last tried (2 times so far).")]
    why: String,
    /// How often it was tried.
    attempts: u32,
    /// When it is tried next; null: not by itself.
    next_try_at: Option<Time>,
    /// What the other side said last; null: nothing.
    reply: Option<String>,
}

/// A message on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct OutboxMessage {
    /// Says which, here.
    #[schema(example = "17")]
    id: String,
    /// The copy in Sent, for as long as that is there.
    message_id: Option<Id>,
    /// Its subject.
    subject: String,
    /// Who is meant, as the message says it.
    to: Vec<Mailbox>,
    /// Bytes.
    size: u64,
    /// Whether it carries files.
    has_attachments: bool,
    /// When it was sent off.
    created_at: Time,
    /// Before that nobody gets it; null: at once.
    send_at: Option<Time>,
    /// Until then it can be taken back; null: not any more.
    cancel_until: Option<Time>,
    /// Everybody who has not got it.
    recipients: Vec<OutboxRecipient>,
}

/// Messages on their way.
#[derive(Serialize, ToSchema)]
pub(crate) struct OutboxPage {
    /// The oldest first.
    messages: Vec<OutboxMessage>,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// What was taken back.
#[derive(Serialize, ToSchema)]
pub(crate) struct Cancelled {
    /// The message as a draft; null where its copy in Sent was deleted for good.
    draft_id: Option<Id>,
}

/// `?limit=&cursor=`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Pages {
    /// Messages of a page: 1 to 200, 50 unless given.
    pub(crate) limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

/// The number of an entry in a path.
pub(crate) struct Number(EntryId);

impl std::str::FromStr for Number {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(|number| Self(EntryId(number)))
    }
}

/// List what is on its way.
#[utoipa::path(
    get, path = "/v1/outbox", operation_id = "list_outbox", tag = "messages", params(Pages),
    responses((status = 200, description = "What somebody still waits for", body = OutboxPage), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    State(outbox): State<Outbox>,
    caller: Caller,
    Params(pages): Params<Pages>,
) -> Result<Json<OutboxPage>, Problem> {
    let limit = pages.limit.unwrap_or(PAGE_ROWS_DEFAULT);
    if !(1..=PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::new(Kind::InvalidQuery).detail(format!("limit: 1 to {PAGE_ROWS_MAX}")));
    }
    let place = Place { user: caller.user, number: 0, list: List::Outbox };
    let after = pages.cursor.map(|cursor| cursors.open(place, &cursor)).transpose()?;
    let list = pb::ListOutbox { user_id: caller.user.to_bytes(), after_entry: after.map_or(0, entry_of), limit };
    let read = mailboxes.read_consistent(&caller, query::Query::ListOutbox(list)).await?;
    let answer::Answer::Queue(page) = read.answer else { return Err(wrong_answer()) };
    let last = page.entries.last().filter(|_| page.more);
    let next_cursor = last.map(|last| cursors.seal(place, position(last.entry)));
    let now_ms = outbox.clock.wall_ms();
    let messages =
        page.entries.into_iter().map(|entry| message(Some(entry), None, now_ms)).collect::<Result<_, _>>()?;
    Ok(Json(OutboxPage { messages, next_cursor }))
}

/// Read how one message stands, also where everybody who waited was given up.
#[utoipa::path(
    get, path = "/v1/outbox/{outbox_id}", operation_id = "read_outbox", tag = "messages",
    params(("outbox_id" = String, Path, description = "Its id in the outbox")),
    responses((status = 200, description = "How it stands", body = OutboxMessage), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn read(
    State(mailboxes): State<Mailboxes>,
    State(outbox): State<Outbox>,
    caller: Caller,
    PathId(Number(entry)): PathId<Number>,
) -> Result<Json<OutboxMessage>, Problem> {
    let get = pb::GetOutbox { user_id: caller.user.to_bytes(), entry: entry.0 };
    let read = mailboxes.read_consistent(&caller, query::Query::GetOutbox(get)).await?;
    let answer::Answer::QueueEntry(entry) = read.answer else { return Err(wrong_answer()) };
    message(entry.waiting, entry.failed, outbox.clock.wall_ms()).map(Json)
}

/// Take back what nobody gets yet: it becomes a draft. It needs no Idempotency-Key, and may have one.
#[utoipa::path(
    post, path = "/v1/outbox/{outbox_id}/cancel", operation_id = "cancel_outbox", tag = "messages",
    params(
        ("outbox_id" = String, Path, description = "Its id in the outbox"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")
    ),
    responses((status = 200, description = "Nobody gets it", body = Cancelled), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn cancel(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(Number(entry)): PathId<Number>,
    repeat: Repeat,
) -> Result<Json<Cancelled>, Problem> {
    let intent = intents.without_body(caller.user, &repeat)?;
    let op = Op::CancelSend(pb::CancelSend { user_id: caller.user.to_bytes(), entry: entry.0 });
    match mailboxes.write(&caller, intent, op).await? {
        Ok(outcome::Result::SendCancelled(cancelled)) => {
            let draft_id = cancelled.draft.map(|draft| Id::of(&draft.email_id)).transpose()?;
            Ok(Json(Cancelled { draft_id }))
        }
        Ok(_) => Err(Problem::internal("a message was taken back with an outcome of another kind")),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// An entry's number where cursors have a message.
pub(crate) fn position(entry: u64) -> EmailId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&entry.to_be_bytes());
    EmailId(id)
}

pub(crate) fn entry_of(position: EmailId) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|n| position.0[n]))
}

fn message(
    waiting: Option<pb::QueueRecord>,
    failed: Option<pb::FailedRecord>,
    now_ms: i64,
) -> Result<OutboxMessage, Problem> {
    let mut recipients = Vec::new();
    let mut not_before_ms = 0;
    if let Some(waiting) = &waiting {
        not_before_ms = waiting.options.as_ref().map_or(0, |options| options.not_before_ms);
        recipients.extend(waiting.pending.iter().map(|pending| still(pending, not_before_ms, now_ms)));
    }
    recipients.extend(failed.iter().flat_map(|failed| &failed.recipients).map(given_up));
    let has_been_tried = waiting.as_ref().is_none_or(|waiting| waiting.attempts > 0);
    let record = waiting.map(|waiting| (waiting.entry, waiting.message, waiting.sent_copy, waiting.created_ms));
    let record = record
        .or_else(|| failed.map(|failed| (failed.entry, failed.message, failed.sent_copy, failed.created_ms)))
        .ok_or_else(wrong_answer)?;
    let (entry, message, sent_copy, created_ms) = record;
    let message = message.unwrap_or_default();
    let envelope = message.envelope.unwrap_or_default();
    let cancel_until = not_before_ms.saturating_sub(CANCEL_MARGIN_MS);
    Ok(OutboxMessage {
        id: entry.to_string(),
        message_id: if sent_copy.is_empty() { None } else { Some(Id::of(&sent_copy)?) },
        subject: envelope.subject,
        to: envelope.to.into_iter().map(Mailbox::from).collect(),
        size: message.size,
        has_attachments: message.has_attachments,
        created_at: Time(created_ms),
        send_at: (not_before_ms > 0).then_some(Time(not_before_ms)),
        cancel_until: (!has_been_tried && now_ms < cancel_until).then_some(Time(cancel_until)),
        recipients,
    })
}

/// Somebody who waits.
fn still(pending: &pb::PendingRecipient, not_before_ms: i64, now_ms: i64) -> OutboxRecipient {
    let state = match pending {
        pending if pending.held => Standing::Held,
        pending if pending.attempts == 0 && now_ms < not_before_ms => Standing::Scheduled,
        _ => Standing::Waiting,
    };
    let is_due_by_itself = !pending.held && !pending.parked && (1..i64::MAX).contains(&pending.due_ms);
    OutboxRecipient {
        address: pending.address.clone(),
        state,
        why: why(pending, state),
        attempts: pending.attempts,
        next_try_at: is_due_by_itself.then_some(Time(pending.due_ms)),
        reply: text(&pending.reply),
    }
}

/// One sentence. What a shard or a worker notes of its own troubles is not for the sender: he is told what it means to him.
fn why(pending: &pb::PendingRecipient, state: Standing) -> String {
    let destination = pending.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let tries = match pending.attempts {
        1 => "once so far".to_owned(),
        attempts => format!("{attempts} times so far"),
    };
    match state {
        Standing::Held => "The operators of this service hold it; they have to release it.".to_owned(),
        Standing::Scheduled => "It is not sent before its time.".to_owned(),
        _ if pending.user_id.is_empty() => match pending.line() {
            QueueLine::Destination if pending.parked => {
                format!("{destination} takes nothing now; an older message for it is tried first.")
            }
            QueueLine::Destination => format!("{destination} took nothing when it was last tried ({tries})."),
            _ if pending.attempts == 0 => "It is about to be sent.".to_owned(),
            _ if pending.unknown_attempts > 0 => format!(
                "The connection to {destination} ended before it said whether it took the message; it is tried again ({tries})."
            ),
            _ => format!("{destination} asked to come again later ({tries})."),
        },
        _ => match pending.line() {
            QueueLine::Mailbox => "The mailbox is full; it is tried again when there may be room.".to_owned(),
            QueueLine::Shard => "The mailbox cannot be reached now; it is tried again.".to_owned(),
            _ if pending.attempts == 0 => "It is about to be delivered.".to_owned(),
            _ => format!("The mailbox took nothing when it was last tried ({tries})."),
        },
    }
}

/// Somebody who gets it no more.
fn given_up(failed: &pb::FailedRecipient) -> OutboxRecipient {
    OutboxRecipient {
        address: failed.address.clone(),
        state: Standing::Failed,
        why: "It could not be delivered and was given up.".to_owned(),
        attempts: failed.attempts,
        next_try_at: None,
        reply: text(&failed.reply),
    }
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending() -> pb::PendingRecipient {
        pb::PendingRecipient { address: "bob@far.example".to_owned(), due_ms: 5000, ..Default::default() }
    }

    #[test]
    fn why_it_waits_is_one_sentence() {
        let later = still(&pending(), 2000, 1000);
        assert_eq!((later.state, later.why.as_str()), (Standing::Scheduled, "It is not sent before its time."));
        let greylisted = pb::PendingRecipient { attempts: 2, reply: "451 4.7.1 later".to_owned(), ..pending() };
        let shown = still(&greylisted, 0, 1000);
        assert_eq!(shown.why, "far.example asked to come again later (2 times so far).");
        assert_eq!(shown.reply.as_deref(), Some("451 4.7.1 later"));
        assert_eq!(shown.next_try_at, Some(Time(5000)));
        let line = QueueLine::Destination.into();
        let parked = pb::PendingRecipient { parked: true, line, due_ms: i64::MAX, attempts: 1, ..pending() };
        let shown = still(&parked, 0, 1000);
        assert_eq!(shown.why, "far.example takes nothing now; an older message for it is tried first.");
        assert_eq!(shown.next_try_at, None);
        let held = pb::PendingRecipient { held: true, ..pending() };
        assert_eq!(still(&held, 2000, 1000).state, Standing::Held);
        let here = pb::PendingRecipient { user_id: vec![1; 16].into(), attempts: 1, ..pending() };
        for line in [QueueLine::None, QueueLine::Mailbox, QueueLine::Shard] {
            let shown = still(&pb::PendingRecipient { line: line.into(), ..here.clone() }, 0, 0);
            assert!(shown.why.ends_with('.') && shown.why.contains("mailbox"), "{}", shown.why);
        }
    }

    #[test]
    fn an_entry_in_a_cursor_comes_back() {
        for entry in [0, 1, u64::MAX] {
            assert_eq!(entry_of(position(entry)), entry);
        }
    }
}
