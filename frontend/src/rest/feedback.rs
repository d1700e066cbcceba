//! `/v1/feedback` and `/v1/suppressions`: what came back of the account's mail to the outside, and to whom it does not send any more.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use postrider_api::address::RemoteAddress;
use postrider_api::id::EmailId;
use postrider_api::limit::{FEEDBACK_DETAIL_BYTES_MAX, PAGE_ROWS_MAX};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, FeedbackKind, FeedbackSource, SuppressionReason, answer, outcome, query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::rest::cursor::{Cursors, List, Place};
use crate::rest::extract::{JsonBody, Params, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::PAGE_ROWS_DEFAULT;
use crate::rest::mailboxes::{Caller, Mailboxes, wrong_answer};
use crate::rest::openapi::{ReadProblems, SuppressionProblems};
use crate::rest::outbox::{Pages, entry_of, position};
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;
use crate::rest::view::Id;

/// What came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// There is no such recipient, now or later.
    Hard,
    /// Something else was in the way.
    Soft,
    /// The recipient did not want it.
    Complaint,
}

impl What {
    fn of(kind: FeedbackKind) -> Option<Self> {
        match kind {
            FeedbackKind::Hard => Some(Self::Hard),
            FeedbackKind::Soft => Some(Self::Soft),
            FeedbackKind::Complaint => Some(Self::Complaint),
            FeedbackKind::Unspecified => None,
        }
    }
}

/// By what it came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// A host said so when the message was sent.
    Reply,
    /// A delivery status notification came back.
    Report,
    /// Some other letter came back.
    Letter,
    /// A complaint came.
    Complaint,
}

/// Something that came back of a message.
#[derive(Serialize, ToSchema)]
pub(crate) struct Feedback {
    /// When it did.
    at: Time,
    /// What it was.
    kind: What,
    /// How it came to be known.
    by: By,
    /// Of whom; null: of one of the message's recipients, and nobody knows which.
    #[schema(example = "bob@far.example")]
    recipient: Option<String>,
    /// Enhanced status (RFC 3463); null where none was said.
    #[schema(example = "5.1.1")]
    code: Option<String>,
    /// What was said.
    #[schema(example = "550 5.1.1 No such user")]
    detail: String,
    /// The copy in Sent, for as long as that is there.
    message_id: Option<Id>,
}

/// What came back.
#[derive(Serialize, ToSchema)]
pub(crate) struct FeedbackPage {
    /// The newest first.
    feedback: Vec<Feedback>,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// Why an address is not sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    /// No host knew it.
    Hard,
    /// A complaint came from there.
    Complaint,
    /// Somebody wants it.
    Manual,
    /// The recipient has unsubscribed.
    Unsubscribed,
}

/// An address that is not sent to.
#[derive(Serialize, ToSchema)]
pub(crate) struct Suppression {
    /// Which.
    #[schema(example = "bob@far.example")]
    address: String,
    /// Why.
    reason: Reason,
    /// What was said.
    detail: String,
    /// Since when.
    since: Time,
    /// Until when; null: until it is taken from the list.
    until: Option<Time>,
}

/// Addresses that are not sent to.
#[derive(Serialize, ToSchema)]
pub(crate) struct SuppressionPage {
    /// In no certain order.
    suppressions: Vec<Suppression>,
    /// For `after` of the next page; null at the end.
    next_after: Option<String>,
}

/// Why an address is to be on the list.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"detail": "asked on the telephone"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSuppression {
    /// In whatever words, at most 500 bytes.
    #[serde(default)]
    pub(crate) detail: String,
}

/// `?limit=&after=`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Behind {
    /// Addresses of a page: 1 to 200, 50 unless given.
    pub(crate) limit: Option<u32>,
    /// `next_after` of the page before.
    pub(crate) after: Option<String>,
}

/// List what came back of the account's mail.
#[utoipa::path(
    get, path = "/v1/feedback", operation_id = "list_feedback", tag = "messages", params(Pages),
    responses((status = 200, description = "Bounces and complaints", body = FeedbackPage), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    caller: Caller,
    Params(pages): Params<Pages>,
) -> Result<Json<FeedbackPage>, Problem> {
    let limit = rows(pages.limit)?;
    let place = Place { user: caller.user, number: 0, list: List::Feedback };
    let behind = pages.cursor.map(|cursor| cursors.open(place, &cursor)).transpose()?;
    let after = behind.map(|at: EmailId| pb::FeedbackPlace { user_id: caller.user.to_bytes(), sequence: entry_of(at) });
    let ask = pb::ListFeedback { user_id: caller.user.to_bytes(), limit, after };
    let read = mailboxes.read_consistent(&caller, query::Query::ListFeedback(ask)).await?;
    let answer::Answer::Feedback(page) = read.answer else { return Err(wrong_answer()) };
    let records: Vec<pb::FeedbackRecord> = page.lines.into_iter().filter_map(|line| line.feedback).collect();
    let last = records.last().filter(|_| page.more);
    let next_cursor = last.map(|last| cursors.seal(place, position(last.sequence)));
    let feedback = records.into_iter().filter_map(|record| shown(record).transpose()).collect::<Result<_, _>>()?;
    Ok(Json(FeedbackPage { feedback, next_cursor }))
}

pub(crate) fn shown(record: pb::FeedbackRecord) -> Result<Option<Feedback>, Problem> {
    let Some(kind) = What::of(record.kind()) else { return Ok(None) };
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok(Some(Feedback {
        at: Time(record.at_ms),
        kind,
        by: match record.source() {
            FeedbackSource::Reply | FeedbackSource::Unspecified => By::Reply,
            FeedbackSource::Report => By::Report,
            FeedbackSource::ReturnPath => By::Letter,
            FeedbackSource::Complaint => By::Complaint,
        },
        recipient: some(record.address),
        code: some(record.code),
        detail: record.detail,
        message_id: if record.sent_copy.is_empty() { None } else { Some(Id::of(&record.sent_copy)?) },
    }))
}

/// List to whom the account does not send.
#[utoipa::path(
    get, path = "/v1/suppressions", operation_id = "list_suppressions", tag = "messages", params(Behind),
    responses((status = 200, description = "Addresses that are not sent to", body = SuppressionPage), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn suppressions(
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    Params(behind): Params<Behind>,
) -> Result<Json<SuppressionPage>, Problem> {
    let limit = rows(behind.limit)?;
    let after = behind.after.unwrap_or_default();
    let ask = pb::ListSuppressions { user_id: caller.user.to_bytes(), limit, after };
    let read = mailboxes.read_consistent(&caller, query::Query::ListSuppressions(ask)).await?;
    let answer::Answer::Suppressions(page) = read.answer else { return Err(wrong_answer()) };
    Ok(Json(suppression_page(page)))
}

pub(crate) fn suppression_page(page: pb::Suppressions) -> SuppressionPage {
    let next_after = page.suppressions.last().filter(|_| page.more).map(|last| last.address.clone());
    SuppressionPage { suppressions: page.suppressions.into_iter().map(suppression).collect(), next_after }
}

/// What may stand beside an address on the list.
pub(crate) fn check_detail(new: &NewSuppression) -> Result<(), Problem> {
    match new.detail.len() > FEEDBACK_DETAIL_BYTES_MAX || new.detail.chars().any(char::is_control) {
        true => Err(Problem::field("detail", "at most 500 bytes and no control characters")),
        false => Ok(()),
    }
}

fn suppression(record: pb::SuppressionRecord) -> Suppression {
    Suppression {
        reason: match record.reason() {
            SuppressionReason::Hard => Reason::Hard,
            SuppressionReason::Complaint => Reason::Complaint,
            SuppressionReason::Unsubscribed => Reason::Unsubscribed,
            SuppressionReason::Manual | SuppressionReason::Unspecified => Reason::Manual,
        },
        address: record.address,
        detail: record.detail,
        since: Time(record.since_ms),
        until: (record.until_ms > 0).then_some(Time(record.until_ms)),
    }
}

/// Have the account send to an address no more.
#[utoipa::path(
    put, path = "/v1/suppressions/{address}", operation_id = "suppress", tag = "messages", request_body = NewSuppression,
    params(
        ("address" = String, Path, description = "Who"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")
    ),
    responses((status = 204, description = "It is not sent to"), SuppressionProblems),
    security(("token" = [])),
)]
pub(crate) async fn suppress(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(address): PathId<String>,
    repeat: Repeat,
    JsonBody(body): JsonBody<NewSuppression>,
) -> Result<StatusCode, Problem> {
    let address =
        RemoteAddress::parse(&address).map_err(|error| Problem::new(Kind::AddressInvalid).detail(error.to_string()))?;
    check_detail(&body)?;
    let intent = intents.of(caller.user, &repeat, &(address.as_str(), &body))?;
    let op = Op::Suppress(pb::Suppress {
        user_id: caller.user.to_bytes(),
        address: address.as_str().to_owned(),
        reason: SuppressionReason::Manual.into(),
        detail: body.detail,
        until_ms: 0,
    });
    done(mailboxes.write(&caller, intent, op).await?)
}

/// Let the account send to an address again. Whoever complained complains again.
#[utoipa::path(
    delete, path = "/v1/suppressions/{address}", operation_id = "unsuppress", tag = "messages",
    params(
        ("address" = String, Path, description = "Who"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")
    ),
    responses((status = 204, description = "It may be sent to"), SuppressionProblems),
    security(("token" = [])),
)]
pub(crate) async fn unsuppress(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(address): PathId<String>,
    repeat: Repeat,
) -> Result<StatusCode, Problem> {
    let intent = intents.of(caller.user, &repeat, &address)?;
    let op = Op::Unsuppress(pb::Unsuppress { user_id: caller.user.to_bytes(), address });
    done(mailboxes.write(&caller, intent, op).await?)
}

fn done(outcome: Result<outcome::Result, pb::Refused>) -> Result<StatusCode, Problem> {
    match outcome {
        Ok(outcome::Result::Done(_)) => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(Problem::internal("a suppression was changed with an outcome of another kind")),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

pub(crate) fn rows(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(PAGE_ROWS_DEFAULT);
    match (1..=PAGE_ROWS_MAX).contains(&limit) {
        true => Ok(limit),
        false => Err(Problem::new(Kind::InvalidQuery).detail(format!("limit: 1 to {PAGE_ROWS_MAX}"))),
    }
}
