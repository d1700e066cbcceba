//! `POST /v1/messages`: composed, its blobs durable, then one command on the sender's shard (P-1, P-6); for recipients of other
//! residency zones one in each of those before it, see [`crossing`].
//!
//! Invariant: the sender is the account itself. No field of a request names another one.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, State};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::{Request, StatusCode};
use postrider_api::address::Address;
use postrider_api::env::{self, Clock, Entropy};
use postrider_api::id::{BodyId, EmailId, ModSeq, ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AddressStatus, answer, outcome};
use serde::Serialize;
use utoipa::ToSchema;

use crate::account::Intent;
use crate::rest::bodies::Bodies;
use crate::rest::crossing::{self, Abroad, Resident};
use crate::rest::extract::{check_json_head, parse_json};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::{CLUSTER_CALL_MAX, LOOK_UPS_AT_ONCE, SEND_BODY_BYTES_MAX, SENDS_MAX, SENDS_PER_USER_MAX};
use crate::rest::mailboxes::{Caller, Mailboxes, Written, wrong_answer};
use crate::rest::messages::{record, stored_body};
use crate::rest::openapi::SendProblems;
use crate::rest::outgoing::{Outgoing, To};
use crate::rest::problem::{Kind, Problem};
use crate::rest::profile::get_account;
use crate::rest::turns::{Turn, Turns};
use crate::rest::upload::{Memory, Share, take_in};
use crate::rest::view::Id;
use postrider_mime::{self as mime, Compose, ComposeError, IngestLimits, Ingested};

/// What sending needs beside the mailbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    bodies: Bodies,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    memory: Memory,
    turns: Turns,
}

impl Outbox {
    /// Blobs go through `bodies`.
    pub(crate) fn new(bodies: Bodies, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let turns = Turns::new(SENDS_MAX, SENDS_PER_USER_MAX);
        Self { bodies, clock, entropy, memory: Memory::new(), turns }
    }
}

/// What somebody wants to send, and who it is.
pub(crate) struct Submission {
    caller: Caller,
    sender: Sender,
    repeat: Repeat,
    message: Outgoing,
    /// Held until the message is sent.
    _held: (Share, Turn),
}

impl<S> FromRequest<S> for Submission
where
    Mailboxes: FromRef<S>,
    Outbox: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let repeat = Repeat::from_request_parts(&mut parts, state).await?;
        check_json_head(&parts.headers, SEND_BODY_BYTES_MAX)?;
        // The shard has checked the session before anything is held for it: a token that only names a user gets nothing.
        let sender = sender(&Mailboxes::from_ref(state), &caller).await?;
        let outbox = Outbox::from_ref(state);
        let turn = outbox.turns.take(caller.user).await?;
        let (bytes, share) = take_in(body, outbox.memory).await?;
        let message = parse_json(bytes).await?;
        Ok(Self { caller, sender, repeat, message, _held: (share, turn) })
    }
}

/// A message on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct SentReceipt {
    /// The copy in Sent.
    id: Id,
    /// The conversation that it is in.
    thread_id: Id,
}

/// Send a message to people of this service.
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "send_message", tag = "messages", request_body = Outgoing,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key sends once, for 24 hours")),
    responses((status = 202, description = "It is on its way, and in Sent", body = SentReceipt), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn send(
    State(mailboxes): State<Mailboxes>,
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    submission: Submission,
) -> Result<(StatusCode, Written, Json<SentReceipt>), Problem> {
    let Submission { caller, sender, repeat, message: mut body, _held } = submission;
    body.check()?;
    let mut intent;
    (intent, body) = intended(intents, &caller, repeat, body).await?;
    let planned = match mailboxes.first_outcome(&caller, &intent).await? {
        Some(Ok(outcome::Result::SendPlanned(plan))) => Some(plan),
        Some(outcome) => return receipt(outcome),
        None => None,
    };
    if planned.is_some()
        && let Some(outcome) = mailboxes.first_outcome(&caller, &crossing::last(&intent)).await?
    {
        return receipt(outcome);
    }
    let answered = body.in_reply_to.take();
    let marked = answered_id(answered.as_deref());
    let (Recipients { recipients, abroad }, answered) = tokio::try_join!(
        recipients(&mailboxes, &caller, &body),
        conversation(&mailboxes, &outbox.bodies, &caller, answered.as_deref()),
    )?;
    let Sender { mailbox: sender, room } = sender;
    let mail_from = sender.email.clone();
    let (date_ms, message_id) = (outbox.clock.wall_ms(), env::random::<16>(&*outbox.entropy));
    let ingested = if abroad.is_empty() {
        outbox.write(body, sender, answered, (date_ms, &message_id)).await?
    } else {
        let plan = match planned {
            Some(plan) => plan,
            None => crossing::plan(&mailboxes, &caller, &intent, &abroad, (date_ms, message_id)).await?,
        };
        let ingested = outbox.write(body, sender, answered, (plan.date_ms, &plan.message_id)).await?;
        if ingested.message.size > room {
            // The other zones would have it when the sender's own shard says so.
            return Err(Problem::new(Kind::QuotaExceeded));
        }
        crossing::hand_over((&mailboxes, &outbox.bodies), &intent, &plan, abroad, &mail_from, &ingested).await?;
        intent = crossing::last(&intent);
        ingested
    };
    let send = pb::Send {
        user_id: caller.user.to_bytes(),
        mail_from,
        recipients,
        message: Some(ingested.message),
        answered: marked,
        ..Default::default()
    };
    let at = (caller.shard, Some(&caller));
    receipt(mailboxes.deposit(at, &outbox.bodies, &ingested.blobs, intent, Op::Send(send)).await?)
}

/// The message that is answered, as a command names it. What is gone by then is not marked.
fn answered_id(reply: Option<&str>) -> Bytes {
    reply.and_then(|id| id.parse().ok()).map(EmailId::to_bytes).unwrap_or_default()
}

fn receipt(outcome: Result<outcome::Result, pb::Refused>) -> Result<(StatusCode, Written, Json<SentReceipt>), Problem> {
    let sent = match outcome {
        Ok(outcome::Result::Sent(sent)) => sent,
        Ok(_) => return Err(Problem::internal("a message was sent with an outcome of another kind")),
        Err(refused) => return Err(Problem::refused(&refused)),
    };
    let copy = sent.sent_copy.ok_or_else(|| Problem::internal("a message was sent without its copy"))?;
    let receipt = SentReceipt { id: Id::of(&copy.email_id)?, thread_id: Id::of(&copy.thread_id)? };
    Ok((StatusCode::ACCEPTED, Written(ModSeq(copy.modseq)), Json(receipt)))
}

/// The intent of a body that may be large: it is hashed away from the threads that serve others.
async fn intended(
    intents: Intents,
    caller: &Caller,
    repeat: Repeat,
    body: Outgoing,
) -> Result<(Intent, Outgoing), Problem> {
    let user = caller.user;
    let hashing = tokio::task::spawn_blocking(move || Ok((intents.of(user, &repeat, &body)?, body)));
    hashing.await.map_err(|_| Problem::internal("hashing a body ended early"))?
}

async fn sender(mailboxes: &Mailboxes, caller: &Caller) -> Result<Sender, Problem> {
    let read = mailboxes.read_consistent(caller, get_account(caller)).await?;
    match read.answer {
        answer::Answer::Account(account) => Ok(Sender {
            room: account.quota_bytes.saturating_sub(account.used_bytes),
            mailbox: pb::Mailbox { name: account.name, email: account.address },
        }),
        _ => Err(wrong_answer()),
    }
}

/// Who sends, and how many bytes his mailbox has left.
struct Sender {
    mailbox: pb::Mailbox,
    room: u64,
}

/// Everybody who gets a message.
struct Recipients {
    /// Of the sender's own zone.
    recipients: Vec<pb::Recipient>,
    abroad: Abroad,
}

/// Everybody who gets it, each once. All who cannot are named together.
async fn recipients(mailboxes: &Mailboxes, caller: &Caller, body: &Outgoing) -> Result<Recipients, Problem> {
    let addresses = addresses(mailboxes, body.recipients()).await?;
    let found: Vec<(Address, Option<pb::AddressRecord>)> = stream::iter(addresses)
        .map(async |address| {
            let record = mailboxes.cluster().look_up(&address, CLUSTER_CALL_MAX).await?;
            let active = record.filter(|record| record.status() == AddressStatus::Active);
            Ok::<_, Problem>((address, active))
        })
        .buffered(LOOK_UPS_AT_ONCE)
        .try_collect()
        .await?;
    let unknown: Vec<&str> =
        found.iter().filter(|(_, user)| user.is_none()).map(|(address, _)| address.as_str()).collect();
    if !unknown.is_empty() {
        return Err(Problem::new(Kind::RecipientUnknown).detail(unknown.join(", ")).member("recipients", unknown));
    }
    let mut seen = HashSet::with_capacity(found.len());
    let mut everybody = Recipients { recipients: Vec::new(), abroad: Abroad::new() };
    for (address, record) in found {
        let Some(record) = record else { continue };
        let user = UserId::try_from(&record.user_id)
            .map_err(|_| Problem::internal("the directory has an address without a user id"))?;
        if !seen.insert(user) {
            continue;
        }
        let recipient =
            pb::Recipient { user_id: record.user_id, address: address.as_str().to_owned(), ..Default::default() };
        if user.zone() == caller.user.zone() {
            everybody.recipients.push(recipient);
        } else {
            let resident = Resident { recipient, shard: ShardId(record.shard) };
            everybody.abroad.entry(user.zone()).or_default().push(resident);
        }
    }
    Ok(everybody)
}

async fn addresses(mailboxes: &Mailboxes, all: impl Iterator<Item = &To>) -> Result<Vec<Address>, Problem> {
    let mut addresses = Vec::new();
    let mut outside = Vec::new();
    for to in all {
        let address = Address::parse(&to.email).map_err(|error| {
            Problem::new(Kind::AddressInvalid).detail(error.to_string()).member("address", to.email.as_str())
        })?;
        match mailboxes.cluster().zone_of_domain(address.domain(), CLUSTER_CALL_MAX).await? {
            Some(_) => addresses.push(address),
            None => outside.push(to.email.as_str()),
        }
    }
    if outside.is_empty() {
        return Ok(addresses);
    }
    Err(Problem::new(Kind::RecipientOutside).detail(outside.join(", ")).member("recipients", outside))
}

/// The ids of the conversation that a message answers, oldest first; the last one is that of the answered message.
async fn conversation(
    mailboxes: &Mailboxes,
    bodies: &Bodies,
    caller: &Caller,
    answered: Option<&str>,
) -> Result<Vec<String>, Problem> {
    let Some(answered) = answered else { return Ok(Vec::new()) };
    let unknown = || Problem::new(Kind::ReplyUnknown).member("field", "in_reply_to");
    let message: EmailId = answered.parse().map_err(|_| unknown())?;
    let found = tokio::try_join!(record(mailboxes, caller, message, 0), stored_body(mailboxes, caller, message, 0));
    let ((record, _), (stored, _)) =
        found.map_err(|problem| if problem.kind() == Kind::NotFound { unknown() } else { problem })?;
    let (record, rendered) = bodies.render(caller.shard, record, stored).await?;
    let references = rendered.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("references"));
    let mut ids: Vec<String> = references.flat_map(|(_, value)| message_ids(value)).collect();
    let own = record.envelope.map(|envelope| envelope.message_id).unwrap_or_default();
    if is_message_id(&own) {
        ids.push(own);
    } else {
        // A message without an id cannot be named: the answer begins a conversation of its own.
        ids.clear();
    }
    Ok(ids)
}

/// What stands between angle brackets in a References field.
fn message_ids(field: &str) -> impl Iterator<Item = String> + '_ {
    field
        .split('<')
        .skip(1)
        .filter_map(|rest| rest.split_once('>'))
        .map(|(id, _)| id.to_owned())
        .filter(|id| is_message_id(id))
}

/// An id that can be written again; bytes beyond this are not folded.
const MESSAGE_ID_BYTES_MAX: usize = 900;

fn is_message_id(id: &str) -> bool {
    let breaks = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>');
    !id.is_empty() && id.len() <= MESSAGE_ID_BYTES_MAX && !id.contains(breaks)
}

impl Outbox {
    /// Composes the message and cuts it up, away from the threads that serve others: both take time with its size.
    async fn write(
        &self,
        mut body: Outgoing,
        sender: pb::Mailbox,
        answered: Vec<String>,
        (date_ms, message_id): (i64, &[u8]),
    ) -> Result<Ingested, Problem> {
        let domain = sender.email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let message_id = format!("{}@{domain}", hex::encode(message_id));
        let body_id = BodyId(env::random(&*self.entropy));
        let work = move || {
            let attachments = body.take_attachments()?;
            let mailboxes = |list: Vec<To>| list.into_iter().map(pb::Mailbox::from).collect();
            let draft = Compose {
                from: sender,
                to: mailboxes(body.to),
                cc: mailboxes(body.cc),
                bcc: mailboxes(body.bcc),
                subject: body.subject,
                body: body.body,
                body_html: body.body_html,
                attachments,
                in_reply_to: answered.last().cloned(),
                references: answered,
                date_ms,
                message_id,
            };
            let raw = mime::compose(&draft).map_err(|error| not_composed(&error))?;
            drop(draft);
            Ok(mime::ingest(&Bytes::from(raw), body_id, &IngestLimits::default()))
        };
        let task = tokio::task::spawn_blocking(work);
        task.await.map_err(|_| Problem::internal("composing a message ended early"))?
    }
}

fn not_composed(error: &ComposeError) -> Problem {
    match error {
        ComposeError::TooLong { unit: "bytes, encoded", max, .. } => {
            Problem::new(Kind::MessageTooLarge).detail(error.to_string()).member("bytes_max", *max)
        }
        ComposeError::ControlCharacter { field }
        | ComposeError::Address { field, .. }
        | ComposeError::ContentType { field }
        | ComposeError::MessageId { field }
        | ComposeError::TooLong { field, .. } => Problem::field(field, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_references_field() {
        let ids = |field: &str| message_ids(field).collect::<Vec<_>>();
        assert_eq!(ids("<a@x> <b@y>\t<c d@z> <e@v"), ["a@x", "b@y"]);
        assert_eq!(ids("no brackets"), Vec::<String>::new());
        assert_eq!(ids("<><a>"), ["a"]);
    }
}
