//! `POST /v1/messages`: composed, its blobs durable, then one command on the sender's shard (P-1, P-6); for recipients of other
//! residency zones one in each of those before it, see [`crossing`].
//!
//! Invariant: the sender is the account itself. No field of a request names another one.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, State};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::request::Parts;
use http::{HeaderMap, Request, StatusCode};
use postrider_api::address::{Address, AddressError, RemoteAddress};
use postrider_api::env::{self, Clock, Entropy};
use postrider_api::id::{BodyId, EmailId, ModSeq, ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AddressStatus, answer, outcome};
use serde::Serialize;
use utoipa::ToSchema;

use crate::account::Intent;
use crate::limits::{LimitKind, Limiter};
use crate::rest::bodies::Bodies;
use crate::rest::crossing::{self, Abroad, Resident};
use crate::rest::extract::{check_json_head, parse_json};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::{CLUSTER_CALL_MAX, LOOK_UPS_AT_ONCE, SEND_BODY_BYTES_MAX, SENDS_MAX, SENDS_PER_USER_MAX};
use crate::rest::mailboxes::{Caller, Mailboxes, Written, wrong_answer};
use crate::rest::messages::{record, stored_body};
use crate::rest::openapi::SendProblems;
use crate::rest::outgoing::{Outgoing, Times, To};
use crate::rest::problem::{Kind, Problem};
use crate::rest::profile::get_account;
use crate::rest::turns::{Turn, Turns};
use crate::rest::upload::{Memory, Share, take_in};
use crate::rest::uploads::{UploadIds, fetch};
use crate::rest::view::Id;
use crate::suppressed;
use postrider_mime::{self as mime, Compose, ComposeError, IngestLimits, Ingested};

/// What sending needs beside the mailbox.
#[derive(Clone)]
pub(crate) struct Outbox {
    pub(crate) bodies: Bodies,
    pub(crate) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(crate) memory: Memory,
    turns: Turns,
    pub(crate) limiter: Limiter,
    pub(crate) uploads: UploadIds,
}

impl Outbox {
    /// Blobs go through `bodies`; `uploads` says what was uploaded before.
    pub(crate) fn new(
        bodies: Bodies,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        limiter: Limiter,
        uploads: UploadIds,
    ) -> Self {
        let turns = Turns::new(SENDS_MAX, SENDS_PER_USER_MAX);
        Self { bodies, clock, entropy, memory: Memory::new(), turns, limiter, uploads }
    }

    /// The caller's turn at what takes memory.
    pub(crate) async fn turn(&self, caller: &Caller) -> Result<Turn, Problem> {
        self.turns.take(caller.user).await
    }

    /// Counts a message that is about to be sent, by its recipients too, those also beyond the limit: the next one waits for them.
    async fn count(&self, caller: &Caller, recipients: usize) -> Result<(), Problem> {
        let of_recipients = self.limiter.of_user(LimitKind::SentRecipients, caller.user);
        let of_messages = self.limiter.of_user(LimitKind::SentMessages, caller.user);
        let within = async {
            self.limiter.check(of_recipients.as_slice())?;
            self.limiter.take_all(of_messages.as_slice()).await
        };
        within.await.map_err(|refused| Problem::limited(Kind::SentTooMuch, &refused))?;
        (0..recipients).for_each(|_| self.limiter.count(of_recipients.as_slice()));
        Ok(())
    }
}

/// What somebody wants to send or to keep, and who it is.
pub(crate) struct Submission {
    pub(crate) caller: Caller,
    pub(crate) sender: Sender,
    pub(crate) repeat: Repeat,
    pub(crate) message: Outgoing,
    /// Held until the message is stored.
    pub(crate) share: Share,
    pub(crate) turn: Turn,
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
        let check = |headers: &HeaderMap| check_json_head(headers, SEND_BODY_BYTES_MAX);
        let Admitted { caller, sender, repeat, turn } = Admitted::of(&mut parts, state, check).await?;
        let (bytes, share) = take_in(body, Outbox::from_ref(state).memory).await?;
        let message = parse_json(bytes).await?;
        Ok(Self { caller, sender, repeat, message, share, turn })
    }
}

/// Somebody who may send what may be large, before anything of it has been taken in.
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) sender: Sender,
    pub(crate) repeat: Repeat,
    /// Held until it is stored.
    pub(crate) turn: Turn,
}

impl Admitted {
    /// `check` looks at what the head announces.
    pub(crate) async fn of<S>(
        parts: &mut Parts,
        state: &S,
        check: impl FnOnce(&HeaderMap) -> Result<(), Problem>,
    ) -> Result<Self, Problem>
    where
        Mailboxes: FromRef<S>,
        Outbox: FromRef<S>,
        S: Send + Sync,
    {
        let caller = Caller::from_request_parts(parts, state).await?;
        let repeat = Repeat::from_request_parts(parts, state).await?;
        check(&parts.headers)?;
        // The shard has checked the session before anything is held for it: a token that only names a user gets nothing.
        let sender = sender(&Mailboxes::from_ref(state), &caller).await?;
        let turn = Outbox::from_ref(state).turn(&caller).await?;
        Ok(Self { caller, sender, repeat, turn })
    }
}

/// A message on its way.
#[derive(Serialize, ToSchema)]
pub(crate) struct SentReceipt {
    /// The copy in Sent.
    id: Id,
    /// The conversation that it is in.
    thread_id: Id,
    /// Where it stands in the outbox while somebody waits for it; null: everybody has it.
    outbox_id: Option<String>,
}

/// The answer to whoever sends.
pub(crate) type Receipt = (StatusCode, Written, Json<SentReceipt>);

/// Send a message to anybody, here or elsewhere, now or later.
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
) -> Result<Receipt, Problem> {
    let Submission { caller, sender, repeat, message: mut body, mut share, turn: _turn } = submission;
    body.check()?;
    let times = body.later().times(outbox.clock.wall_ms())?;
    let intent;
    (intent, body) = intended(intents, &caller, repeat, body).await?;
    let planned = match first(&mailboxes, &caller, &intent).await? {
        ControlFlow::Break(receipt) => return Ok(receipt),
        ControlFlow::Continue(planned) => planned,
    };
    let answered = body.in_reply_to.take();
    let marked = answered_id(answered.as_deref());
    let (everybody, answered) = tokio::try_join!(
        recipients(&mailboxes, &caller, body.recipients()),
        outbox.conversation(&mailboxes, &caller, answered.as_deref()),
    )?;
    fetch(&outbox, &caller, &mut body, &mut share).await?;
    let mailbox = sender.mailbox.clone();
    let parcel = Parcel { intent, planned, sender, everybody, answered: marked, draft: Bytes::new(), times };
    let writing = async |(date_ms, message_id): (i64, [u8; 16])| {
        outbox.write(body, mailbox, answered, (date_ms, &message_id), false).await
    };
    dispatch((&mailboxes, &outbox), &caller, parcel, writing).await
}

/// What became of a request that was made before: its answer, or the plan of it where it was begun.
pub(crate) async fn first(
    mailboxes: &Mailboxes,
    caller: &Caller,
    intent: &Intent,
) -> Result<ControlFlow<Receipt, Option<pb::SendPlan>>, Problem> {
    let plan = match mailboxes.first_outcome(caller, intent).await? {
        Some(Ok(outcome::Result::SendPlanned(plan))) => plan,
        Some(outcome) => return receipt(outcome).map(ControlFlow::Break),
        None => return Ok(ControlFlow::Continue(None)),
    };
    match mailboxes.first_outcome(caller, &crossing::last(intent)).await? {
        Some(outcome) => receipt(outcome).map(ControlFlow::Break),
        None => Ok(ControlFlow::Continue(Some(plan))),
    }
}

/// Everything about a message that is to be sent but its bytes.
pub(crate) struct Parcel {
    pub(crate) intent: Intent,
    /// What was planned by an earlier attempt.
    pub(crate) planned: Option<pb::SendPlan>,
    pub(crate) sender: Sender,
    pub(crate) everybody: Recipients,
    /// The message that it answers, as a command names it.
    pub(crate) answered: Bytes,
    /// The draft that it is made of, the same.
    pub(crate) draft: Bytes,
    pub(crate) times: Times,
}

/// Sends it: `write` makes the bytes for a Date and a Message-ID.
pub(crate) async fn dispatch(
    (mailboxes, outbox): (&Mailboxes, &Outbox),
    caller: &Caller,
    parcel: Parcel,
    write: impl AsyncFnOnce((i64, [u8; 16])) -> Result<Ingested, Problem>,
) -> Result<Receipt, Problem> {
    let Parcel { mut intent, planned, sender, everybody, answered, draft, times } = parcel;
    let Recipients { recipients, abroad } = if times.not_before_ms > 0 { everybody.later() } else { everybody };
    let abroad_count: usize = abroad.values().map(Vec::len).sum();
    let mail_from = sender.mailbox.email;
    check_suppressed(mailboxes, &mail_from, &recipients).await?;
    outbox.count(caller, recipients.len() + abroad_count).await?;
    let (date_ms, message_id) = (times.date_ms, env::random::<16>(&*outbox.entropy));
    let ingested = if abroad.is_empty() {
        write((date_ms, message_id)).await?
    } else {
        let plan = match planned {
            Some(plan) => plan,
            None => crossing::plan(mailboxes, caller, &intent, &abroad, (date_ms, message_id)).await?,
        };
        let planned_id = plan.message_id.as_ref().try_into();
        let planned_id = planned_id.map_err(|_| Problem::internal("a plan has a message id of another length"))?;
        let ingested = write((plan.date_ms, planned_id)).await?;
        if ingested.message.size > sender.room {
            // The other zones would have it when the sender's own shard says so.
            return Err(Problem::new(Kind::QuotaExceeded));
        }
        crossing::hand_over((mailboxes, &outbox.bodies), &intent, &plan, abroad, &mail_from, &ingested).await?;
        intent = crossing::last(&intent);
        ingested
    };
    let smtp_utf8 = recipients.iter().any(|recipient| recipient.user_id.is_empty() && !recipient.address.is_ascii());
    let category = pb::MailCategory::from(times.category).into();
    let not_before_ms = times.not_before_ms;
    let options = pb::SendOptions { not_before_ms, smtp_utf8, category, ..pb::SendOptions::default() };
    let send = pb::Send {
        user_id: caller.user.to_bytes(),
        mail_from,
        recipients,
        message: Some(ingested.message),
        answered,
        options: (options != pb::SendOptions::default()).then_some(options),
        draft,
        limits: outbox.limiter.sending(),
    };
    let at = (caller.shard, Some(caller));
    receipt(mailboxes.deposit(at, &outbox.bodies, &ingested.blobs, intent, Op::Send(send)).await?)
}

/// Refuses whom no account of the sender's domain sends to. His own list is looked at by his shard, in the command itself.
async fn check_suppressed(mailboxes: &Mailboxes, sender: &str, recipients: &[pb::Recipient]) -> Result<(), Problem> {
    let outside = recipients.iter().filter(|recipient| recipient.user_id.is_empty());
    let addresses = outside.map(|recipient| recipient.address.clone()).collect();
    let domain = sender.rsplit_once('@').map_or("", |(_, domain)| domain);
    let found = suppressed::for_domain(&**mailboxes.cluster(), domain, addresses, CLUSTER_CALL_MAX).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            // Whoever sends it asks again.
            tracing::debug!(%error, "suppressions of a domain not checked");
            return Ok(());
        }
    };
    match found.is_empty() {
        true => Ok(()),
        false => {
            let named: Vec<String> = found.iter().map(|record| suppressed::sentence(domain, record)).collect();
            Err(Problem::new(Kind::RecipientSuppressed).detail(named.join("; ")))
        }
    }
}

/// The message that is answered, as a command names it. What is gone by then is not marked.
fn answered_id(reply: Option<&str>) -> Bytes {
    reply.and_then(|id| id.parse().ok()).map(EmailId::to_bytes).unwrap_or_default()
}

fn receipt(outcome: Result<outcome::Result, pb::Refused>) -> Result<Receipt, Problem> {
    let sent = match outcome {
        Ok(outcome::Result::Sent(sent)) => sent,
        Ok(_) => return Err(Problem::internal("a message was sent with an outcome of another kind")),
        Err(refused) => return Err(Problem::refused(&refused)),
    };
    let copy = sent.sent_copy.ok_or_else(|| Problem::internal("a message was sent without its copy"))?;
    let receipt = SentReceipt {
        id: Id::of(&copy.email_id)?,
        thread_id: Id::of(&copy.thread_id)?,
        outbox_id: (sent.entry != 0).then(|| sent.entry.to_string()),
    };
    Ok((StatusCode::ACCEPTED, Written(ModSeq(copy.modseq)), Json(receipt)))
}

/// The intent of a body that may be large: it is hashed away from the threads that serve others.
pub(crate) async fn intended(
    intents: Intents,
    caller: &Caller,
    repeat: Repeat,
    body: Outgoing,
) -> Result<(Intent, Outgoing), Problem> {
    let user = caller.user;
    let hashing = tokio::task::spawn_blocking(move || Ok((intents.of(user, &repeat, &body)?, body)));
    hashing.await.map_err(|_| Problem::internal("hashing a body ended early"))?
}

pub(crate) async fn sender(mailboxes: &Mailboxes, caller: &Caller) -> Result<Sender, Problem> {
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
pub(crate) struct Sender {
    pub(crate) mailbox: pb::Mailbox,
    pub(crate) room: u64,
}

/// Everybody who gets a message.
pub(crate) struct Recipients {
    /// Of the sender's own zone, and those outside.
    recipients: Vec<pb::Recipient>,
    abroad: Abroad,
}

impl Recipients {
    pub(crate) fn is_empty(&self) -> bool {
        self.recipients.is_empty() && self.abroad.is_empty()
    }

    /// What is sent later waits in the sender's shard alone, which knows people of other zones by their addresses; the worker finds them when it
    /// is time (ADR 154).
    fn later(mut self) -> Self {
        let residents = std::mem::take(&mut self.abroad).into_values().flatten();
        let by_address =
            |resident: Resident| pb::Recipient { address: resident.recipient.address, ..pb::Recipient::default() };
        self.recipients.extend(residents.map(by_address));
        self
    }
}

/// Somebody who is named: one of ours, or somebody outside.
enum Named {
    Ours(Address),
    Outside(RemoteAddress),
}

/// Everybody who gets it, each once. All of ours who cannot are named together.
pub(crate) async fn recipients(
    mailboxes: &Mailboxes,
    caller: &Caller,
    named: Vec<(&'static str, String)>,
) -> Result<Recipients, Problem> {
    let mut everybody = Recipients { recipients: Vec::new(), abroad: Abroad::new() };
    let mut ours = Vec::new();
    let mut outside = HashSet::new();
    for (field, text) in named {
        match name(mailboxes, field, &text).await? {
            Named::Ours(address) => ours.push(address),
            Named::Outside(address) => {
                if outside.insert(address.clone()) {
                    let address = address.as_str().to_owned();
                    everybody.recipients.push(pb::Recipient { address, ..pb::Recipient::default() });
                }
            }
        }
    }
    let found: Vec<(Address, Option<pb::AddressRecord>)> = stream::iter(ours)
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
    for (address, record) in found {
        let Some(record) = record else { continue };
        let user = UserId::try_from(&record.user_id)
            .map_err(|_| Problem::internal("the directory has an address without a user id"))?;
        if !seen.insert(user) {
            continue;
        }
        let recipient =
            pb::Recipient { user_id: record.user_id, address: address.as_str().to_owned(), ..pb::Recipient::default() };
        if user.zone() == caller.user.zone() {
            everybody.recipients.push(recipient);
        } else {
            let resident = Resident { recipient, shard: ShardId(record.shard) };
            everybody.abroad.entry(user.zone()).or_default().push(resident);
        }
    }
    Ok(everybody)
}

/// Who an address is of: a domain of ours, or the outside.
async fn name(mailboxes: &Mailboxes, field: &'static str, text: &str) -> Result<Named, Problem> {
    let invalid = |error: AddressError| {
        let problem = Problem::new(Kind::AddressInvalid).detail(error.to_string());
        problem.member("field", field).member("address", text)
    };
    let remote = RemoteAddress::parse(text).map_err(invalid)?;
    match mailboxes.cluster().zone_of_domain(remote.domain(), CLUSTER_CALL_MAX).await? {
        Some(_) => Address::parse(text).map(Named::Ours).map_err(invalid),
        None => Ok(Named::Outside(remote)),
    }
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
    /// A random Message-ID, its left side.
    pub(crate) fn message_id(&self) -> [u8; 16] {
        env::random(&*self.entropy)
    }

    /// A name for what is stored of a message.
    pub(crate) fn body_id(&self) -> BodyId {
        BodyId(env::random(&*self.entropy))
    }

    /// The ids of the conversation that a message answers, oldest first; the last one is that of the answered message.
    pub(crate) async fn conversation(
        &self,
        mailboxes: &Mailboxes,
        caller: &Caller,
        answered: Option<&str>,
    ) -> Result<Vec<String>, Problem> {
        let Some(answered) = answered else { return Ok(Vec::new()) };
        let unknown = || Problem::new(Kind::ReplyUnknown).member("field", "in_reply_to");
        let message: EmailId = answered.parse().map_err(|_| unknown())?;
        let found = tokio::try_join!(record(mailboxes, caller, message, 0), stored_body(mailboxes, caller, message, 0));
        let ((record, _), (stored, _)) =
            found.map_err(|problem| if problem.kind() == Kind::NotFound { unknown() } else { problem })?;
        let (record, rendered) = self.bodies.render(caller.shard, record, stored).await?;
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

    /// Composes the message and cuts it up, away from the threads that serve others: both take time with its size.
    pub(crate) async fn write(
        &self,
        mut body: Outgoing,
        sender: pb::Mailbox,
        answered: Vec<String>,
        (date_ms, message_id): (i64, &[u8]),
        is_draft: bool,
    ) -> Result<Ingested, Problem> {
        let domain = sender.email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let message_id = format!("{}@{domain}", hex::encode(message_id));
        let body_id = self.body_id();
        let work = move || {
            let attachments = body.take_attachments()?;
            let mailboxes = |list: Vec<To>| list.into_iter().map(pb::Mailbox::from).collect();
            let draft = Compose {
                from: sender,
                to: mailboxes(body.to),
                cc: mailboxes(body.cc),
                bcc: mailboxes(body.bcc),
                is_draft,
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
