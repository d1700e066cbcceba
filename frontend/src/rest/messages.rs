//! `GET /v1/messages/{message_id}` and `GET /v1/messages/{message_id}/raw`.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use postrider_api::id::EmailId;
use postrider_api::pb;
use postrider_api::pb::{answer, query};

use crate::rest::bodies::{Bodies, held, unreadable};
use crate::rest::conditional::Conditional;
use crate::rest::extract::{Params, PathId};
use crate::rest::json::Json;
use crate::rest::mailboxes::{Caller, Freshness, Mailboxes, wrong_answer};
use crate::rest::near::Opened;
use crate::rest::openapi::{FileProblems, IfNoneMatch, MinModseq, NotModified, ReadProblems};
use crate::rest::problem::Problem;
use crate::rest::view::{Message, Rendering};
use postrider_mime as mime;

/// Whatever a browser makes of the bytes that others sent, it runs nothing of them (P-9).
pub(crate) const SANDBOX: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// The row of a message.
pub(crate) async fn record(
    mailboxes: &Mailboxes,
    caller: &Caller,
    message: EmailId,
    min_modseq: u64,
) -> Result<(pb::EmailRecord, Freshness), Problem> {
    get_message(mailboxes, caller, message, false, min_modseq).await
}

/// What may change of a message.
pub(crate) async fn state(
    mailboxes: &Mailboxes,
    caller: &Caller,
    message: EmailId,
    min_modseq: u64,
) -> Result<(pb::EmailRecord, Freshness), Problem> {
    get_message(mailboxes, caller, message, true, min_modseq).await
}

async fn get_message(
    mailboxes: &Mailboxes,
    caller: &Caller,
    message: EmailId,
    without_content: bool,
    min_modseq: u64,
) -> Result<(pb::EmailRecord, Freshness), Problem> {
    let get = pb::GetMessage { user_id: caller.user.to_bytes(), email_id: message.to_bytes(), without_content };
    let read = mailboxes.read(caller, query::Query::GetMessage(get), min_modseq).await?;
    match read.answer {
        answer::Answer::Message(record) => Ok((record, read.freshness)),
        _ => Err(wrong_answer()),
    }
}

/// What it takes to give back the bytes of a message.
pub(crate) async fn stored_body(
    mailboxes: &Mailboxes,
    caller: &Caller,
    message: EmailId,
    min_modseq: u64,
) -> Result<(pb::StoredBody, Freshness), Problem> {
    let get = pb::GetBody { user_id: caller.user.to_bytes(), email_id: message.to_bytes() };
    let read = mailboxes.read(caller, query::Query::GetBody(get), min_modseq).await?;
    match read.answer {
        answer::Answer::Body(stored) => Ok((stored, read.freshness)),
        _ => Err(wrong_answer()),
    }
}

/// Read a message.
#[utoipa::path(
    get, path = "/v1/messages/{message_id}", operation_id = "read_message", tag = "messages",
    params(("message_id" = String, Path, description = "The message"), MinModseq, IfNoneMatch),
    responses((status = 200, description = "The message", body = Message), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn read(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    caller: Caller,
    conditional: Conditional,
    PathId(message): PathId<EmailId>,
    Params(params): Params<MinModseq>,
) -> Result<Response, Problem> {
    if conditional.may_know_message() {
        let (state, freshness) = state(&mailboxes, &caller, message, params.get()).await?;
        if let Some(unchanged) = conditional.unchanged(&caller, &state, freshness) {
            return Ok(unchanged.into_response());
        }
    }
    let opened = bodies.near().open(&mailboxes, &bodies, &caller, message, params.get()).await?;
    let Opened { record, rendered, freshness, turn } = opened;
    let tag = conditional.tag(&caller, &record);
    let rendering = Rendering {
        text: rendered.text,
        html: rendered.html,
        headers: rendered.headers,
        is_truncated: rendered.is_truncated,
    };
    let message = Json(Message::of(caller.user, record, rendering)?);
    Ok(held((freshness, tag, message).into_response(), turn))
}

/// Read the bytes of a message, as they arrived.
#[utoipa::path(
    get, path = "/v1/messages/{message_id}/raw", operation_id = "read_raw_message", tag = "messages",
    params(("message_id" = String, Path, description = "The message"), MinModseq),
    responses(
        (status = 200, description = "RFC 5322 bytes", body = Vec<u8>, content_type = "message/rfc822"),
        FileProblems
    ),
    security(("token" = [])),
)]
pub(crate) async fn raw(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    caller: Caller,
    PathId(message): PathId<EmailId>,
    Params(params): Params<MinModseq>,
) -> Result<Response, Problem> {
    let turn = bodies.early_turn(&mailboxes, &caller).await?;
    let read = bodies.near().stored(&mailboxes, &bodies, &caller, message, params.get()).await?;
    let (stored, blobs, freshness) = read;
    let turn = turn.or_now(&bodies, &caller).await?;
    let size: u64 = stored.pieces.iter().map(|piece| piece.raw_length).sum();
    let bytes = mime::raw(&stored, &blobs).await.map_err(|error| unreadable(&error))?;
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("message/rfc822")),
        (CONTENT_LENGTH, HeaderValue::from(size)),
        (CONTENT_SECURITY_POLICY, SANDBOX),
    ];
    Ok(held((freshness, headers, Body::from_stream(logged(bytes))).into_response(), turn))
}

/// An error behind the head of an answer can only break it off: it is logged here, nobody else sees it.
pub(crate) fn logged(bytes: mime::ByteStream) -> impl futures::Stream<Item = Result<Bytes, mime::RawError>> {
    futures::TryStreamExt::inspect_err(bytes, |error| tracing::error!(%error, "a message broke off while it was read"))
}
