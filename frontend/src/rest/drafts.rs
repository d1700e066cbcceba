//! `/v1/drafts`: messages that are not sent yet, in Drafts with $draft. They are read and listed as every message is.
//!
//! Invariant: a draft says who gets it unseen; what is sent of it does not. Sending it takes the draft away in the same command.

use std::ops::ControlFlow;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRef, FromRequest, FromRequestParts, State};
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, LOCATION};
use http::{Request, StatusCode};
use postrider_api::id::{EmailId, ModSeq};
use postrider_api::keyword::Keywords;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{FolderRole, answer, outcome, query};
use postrider_mime::{self as mime, IngestLimits, Ingested};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::bodies::{Bodies, append, unreadable};
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::mailboxes::{Caller, Mailboxes, Written, wrong_answer};
use crate::rest::messages::{record, stored_body};
use crate::rest::openapi::{SendProblems, WriteProblems};
use crate::rest::outgoing::{Later, Outgoing};
use crate::rest::problem::{Kind, Problem};
use crate::rest::send::SentReceipt;
use crate::rest::send::{Outbox, Parcel, Receipt, Submission, dispatch, first, intended, recipients, sender};
use crate::rest::upload::Share;
use crate::rest::uploads::fetch;
use crate::rest::view::Id;
use crate::smtp::repair::of_draft;

/// A draft that was saved.
#[derive(Serialize, ToSchema)]
pub(crate) struct SavedDraft {
    /// The message in Drafts. What is in a message never changes: saved again, it has another id.
    id: Id,
    /// The conversation that it is in.
    thread_id: Id,
}

/// Keep a message that is not sent yet. All of it may be absent.
#[utoipa::path(
    post, path = "/v1/drafts", operation_id = "create_draft", tag = "messages", request_body = Outgoing,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "It is in Drafts", body = SavedDraft), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn create(
    State(mailboxes): State<Mailboxes>,
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    submission: Submission,
) -> Result<(StatusCode, [(http::HeaderName, String); 1], Written, Json<SavedDraft>), Problem> {
    let (id, written, saved) = save((&mailboxes, &outbox), intents, submission, Bytes::new()).await?;
    let location = [(LOCATION, format!("/v1/messages/{}", hex::encode(id.0)))];
    Ok((StatusCode::CREATED, location, written, Json(saved)))
}

/// Keep another version of a draft in its place. It has another id from then on.
#[utoipa::path(
    put, path = "/v1/drafts/{draft_id}", operation_id = "replace_draft", tag = "messages", request_body = Outgoing,
    params(
        ("draft_id" = String, Path, description = "The draft"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")
    ),
    responses((status = 200, description = "It is in Drafts, and the one before is not", body = SavedDraft), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn replace(
    State(mailboxes): State<Mailboxes>,
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    Replaced(draft, submission): Replaced,
) -> Result<(Written, Json<SavedDraft>), Problem> {
    let (_, written, saved) = save((&mailboxes, &outbox), intents, submission, draft.to_bytes()).await?;
    Ok((written, Json(saved)))
}

/// A draft and what comes in its place.
pub(crate) struct Replaced(EmailId, Submission);

impl<S> FromRequest<S> for Replaced
where
    Mailboxes: FromRef<S>,
    Outbox: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await;
        let draft = PathId::<EmailId>::from_request_parts(&mut parts, state).await;
        // Who asks comes first: without a session nothing is said of ids. Whether the draft is there, the shard says: whoever asks again
        // has replaced it already.
        let (_caller, PathId(draft)) = (caller?, draft?);
        let submission = Submission::from_request(Request::from_parts(parts, body), state).await?;
        Ok(Self(draft, submission))
    }
}

/// Throw a draft away for good.
#[utoipa::path(
    delete, path = "/v1/drafts/{draft_id}", operation_id = "delete_draft", tag = "messages",
    params(("draft_id" = String, Path, description = "The draft")),
    responses((status = 204, description = "It is gone"), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(draft): PathId<EmailId>,
    repeat: Repeat,
) -> Result<(Written, StatusCode), Problem> {
    let intent = intents.without_body(caller.user, &repeat)?;
    let save = pb::SaveDraft { user_id: caller.user.to_bytes(), message: None, replaces: draft.to_bytes() };
    match mailboxes.write(&caller, intent, Op::SaveDraft(save)).await? {
        Ok(outcome::Result::DraftSaved(saved)) => Ok((Written(ModSeq(saved.modseq)), StatusCode::NO_CONTENT)),
        Ok(_) => Err(Problem::internal("a draft was deleted with an outcome of another kind")),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// Send a draft, now or later. It is a draft no longer. The body may be absent.
#[utoipa::path(
    post, path = "/v1/drafts/{draft_id}/send", operation_id = "send_draft", tag = "messages", request_body = Later,
    params(
        ("draft_id" = String, Path, description = "The draft"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key sends once, for 24 hours")
    ),
    responses((status = 202, description = "It is on its way, and in Sent", body = SentReceipt), SendProblems),
    security(("token" = [])),
)]
pub(crate) async fn send(
    State(mailboxes): State<Mailboxes>,
    State(outbox): State<Outbox>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(draft): PathId<EmailId>,
    repeat: Repeat,
    Wanted(later): Wanted,
) -> Result<Receipt, Problem> {
    let times = later.times(outbox.clock.wall_ms())?;
    let intent = intents.of(caller.user, &repeat, &later)?;
    let planned = match first(&mailboxes, &caller, &intent).await? {
        ControlFlow::Break(receipt) => return Ok(receipt),
        ControlFlow::Continue(planned) => planned,
    };
    let record = check_draft(&mailboxes, &caller, draft).await?;
    let sender = sender(&mailboxes, &caller).await?;
    let envelope = record.envelope.unwrap_or_default();
    let lists = [("to", envelope.to), ("cc", envelope.cc), ("bcc", envelope.bcc)];
    let named = lists.into_iter().flat_map(|(field, list)| list.into_iter().map(move |one| (field, one.email)));
    let everybody = recipients(&mailboxes, &caller, named.collect()).await?;
    if everybody.is_empty() {
        return Err(Problem::field("to", "a draft is sent to somebody: name him in it"));
    }
    let _turn = outbox.turn(&caller).await?;
    let mut share = Share::new(outbox.memory.clone());
    share.grow_to(usize::try_from(record.size).unwrap_or(usize::MAX)).await?;
    let raw = raw(&mailboxes, &outbox.bodies, &caller, draft).await?;
    let parcel = Parcel { intent, planned, sender, everybody, answered: Bytes::new(), draft: draft.to_bytes(), times };
    let body_id = outbox.body_id();
    let writing = async |(date_ms, _): (i64, [u8; 16])| {
        let working = tokio::task::spawn_blocking(move || {
            let message = of_draft(&raw, date_ms)
                .map_err(|_| Problem::new(Kind::InvalidBody).detail("the draft's header is none: save it anew"))?;
            Ok::<Ingested, Problem>(mime::ingest(&message, body_id, &IngestLimits::default()))
        });
        working.await.map_err(|_| Problem::internal("writing a message ended early"))?
    };
    dispatch((&mailboxes, &outbox), &caller, parcel, writing).await
}

/// When a draft is sent; without a body at once.
pub(crate) struct Wanted(Later);

impl<S: Send + Sync> FromRequest<S> for Wanted {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        if !request.headers().contains_key(CONTENT_TYPE) {
            return Ok(Self(Later::default()));
        }
        <JsonBody<Later>>::from_request(request, state).await.map(|JsonBody(later)| Self(later))
    }
}

/// A draft's row; what is no draft is not there.
async fn check_draft(mailboxes: &Mailboxes, caller: &Caller, draft: EmailId) -> Result<pb::EmailRecord, Problem> {
    let (record, _) = record(mailboxes, caller, draft, 0).await?;
    let folders = query::Query::ListFolders(pb::ListFolders { user_id: caller.user.to_bytes() });
    let answer::Answer::Folders(folders) = mailboxes.read_consistent(caller, folders).await?.answer else {
        return Err(wrong_answer());
    };
    let is_in_drafts = folders
        .folders
        .iter()
        .any(|folder| folder.role() == FolderRole::Drafts && folder.folder_id == record.folder_id);
    if is_in_drafts && Keywords(record.keywords).has(Keywords::DRAFT) {
        Ok(record)
    } else {
        Err(Problem::new(Kind::NotFound))
    }
}

async fn raw(mailboxes: &Mailboxes, bodies: &Bodies, caller: &Caller, draft: EmailId) -> Result<Bytes, Problem> {
    let (stored, _) = stored_body(mailboxes, caller, draft, 0).await?;
    let blobs = bodies.of_shard(caller.shard)?;
    let stream = mime::raw(&stored, &blobs).await.map_err(|error| unreadable(&error))?;
    let mut raw = BytesMut::new();
    append(&mut raw, stream, |error| unreadable(&error)).await?;
    Ok(raw.freeze())
}

async fn save(
    (mailboxes, outbox): (&Mailboxes, &Outbox),
    intents: Intents,
    submission: Submission,
    replaces: Bytes,
) -> Result<(Id, Written, SavedDraft), Problem> {
    let Submission { caller, sender, repeat, message: body, mut share, turn: _turn } = submission;
    body.check_draft()?;
    let (intent, mut body) = intended(intents, &caller, repeat, body).await?;
    if let Some(outcome) = mailboxes.first_outcome(&caller, &intent).await? {
        return saved(outcome);
    }
    let answered = body.in_reply_to.take();
    let answered = outbox.conversation(mailboxes, &caller, answered.as_deref()).await?;
    fetch(outbox, &caller, &mut body, &mut share).await?;
    let (date_ms, message_id) = (outbox.clock.wall_ms(), outbox.message_id());
    let ingested = outbox.write(body, sender.mailbox, answered, (date_ms, &message_id), true).await?;
    let save = pb::SaveDraft { user_id: caller.user.to_bytes(), message: Some(ingested.message), replaces };
    let at = (caller.shard, Some(&caller));
    saved(mailboxes.deposit(at, &outbox.bodies, &ingested.blobs, intent, Op::SaveDraft(save)).await?)
}

fn saved(outcome: Result<outcome::Result, pb::Refused>) -> Result<(Id, Written, SavedDraft), Problem> {
    let saved = match outcome {
        Ok(outcome::Result::DraftSaved(saved)) => saved,
        Ok(_) => return Err(Problem::internal("a draft was saved with an outcome of another kind")),
        Err(refused) => return Err(Problem::refused(&refused)),
    };
    let draft = saved.draft.ok_or_else(|| Problem::internal("a draft was saved and is nowhere"))?;
    let id = Id::of(&draft.email_id)?;
    let view = SavedDraft { id, thread_id: Id::of(&draft.thread_id)? };
    Ok((id, Written(ModSeq(saved.modseq)), view))
}
