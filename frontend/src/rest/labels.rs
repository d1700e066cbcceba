//! `/v1/labels`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::LOCATION;
use postrider_api::id::{LabelId, ModSeq};
use postrider_api::limit::LABEL_NAME_BYTES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, outcome, query};
use postrider_api::request;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Intent;
use crate::rest::conditional::{Conditional, Conditioned};
use crate::rest::extract::{JsonBody, Params, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::json::Json;
use crate::rest::limit::DRAIN_ROUNDS_MAX;
use crate::rest::mailboxes::{Caller, Mailboxes, Written, wrong_answer};
use crate::rest::name;
use crate::rest::openapi::{IfNoneMatch, MinModseq, NotModified, ReadProblems, WriteProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::view::{Color, Label};

/// List the labels.
#[utoipa::path(
    get, path = "/v1/labels", operation_id = "list_labels", tag = "labels", params(MinModseq, IfNoneMatch),
    responses((status = 200, description = "All labels", body = Vec<Label>), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    conditional: Conditional,
    Params(params): Params<MinModseq>,
) -> Result<Response, Problem> {
    let query = query::Query::ListLabels(pb::ListLabels { user_id: caller.user.to_bytes() });
    let (read, tag) = match conditional.read(&mailboxes, &caller, query, params.get()).await? {
        Conditioned::Changed(read, tag) => (read, tag),
        Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
    };
    let answer::Answer::Labels(labels) = read.answer else { return Err(wrong_answer()) };
    let labels: Vec<_> = labels.labels.into_iter().map(Label::from).collect();
    Ok((read.freshness, tag, Json(labels)).into_response())
}

/// A label in the making.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"name": "Travel", "color": "#2e7d32"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLabel {
    /// 1 to 255 bytes, neither `/` nor control characters, no space at either end. No other label has it, in whatever case.
    name: String,
    /// `#rrggbb`.
    color: String,
}

/// What changes of a label. A field that is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"color": "#2e7d32"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelPatch {
    /// As of a new label.
    name: Option<String>,
    /// `#rrggbb`.
    color: Option<String>,
}

fn color(text: &str) -> Result<Color, Problem> {
    Color::parse(text).ok_or_else(|| Problem::field("color", "a colour is '#' and six hexadecimal digits"))
}

fn written(outcome: Result<outcome::Result, pb::Refused>) -> Result<(Written, Label), Problem> {
    match outcome {
        Ok(outcome::Result::LabelState(state)) => Ok((Written(ModSeq(state.modseq)), state.into())),
        Ok(_) => Err(Problem::internal("a label was written with an outcome of another kind")),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// Make a label.
#[utoipa::path(
    post, path = "/v1/labels", operation_id = "create_label", tag = "labels", request_body = NewLabel,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "The label exists", body = Label), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn create(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<NewLabel>,
) -> Result<(StatusCode, [(http::HeaderName, String); 1], Written, Json<Label>), Problem> {
    name::check(&body.name, LABEL_NAME_BYTES_MAX)?;
    let color = color(&body.color)?.0;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let create = pb::CreateLabel { user_id: caller.user.to_bytes(), name: body.name, color };
    let (written, label) = written(mailboxes.write(&caller, intent, Op::CreateLabel(create)).await?)?;
    let location = [(LOCATION, format!("/v1/labels/{}", label.id.0))];
    Ok((StatusCode::CREATED, location, written, Json(label)))
}

/// Rename a label, or give it another colour.
#[utoipa::path(
    patch, path = "/v1/labels/{label_id}", operation_id = "change_label", tag = "labels", request_body = LabelPatch,
    params(("label_id" = String, Path, description = "The label")),
    responses((status = 200, description = "The label as it is now", body = Label), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn patch(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(label): PathId<LabelId>,
    repeat: Repeat,
    JsonBody(body): JsonBody<LabelPatch>,
) -> Result<(Written, Json<Label>), Problem> {
    if body.name.is_none() && body.color.is_none() {
        return Err(Problem::new(Kind::InvalidBody).detail("nothing is to be changed"));
    }
    if let Some(name) = &body.name {
        name::check(name, LABEL_NAME_BYTES_MAX)?;
    }
    let color = body.color.as_deref().map(color).transpose()?.map(|color| color.0);
    let intent = intents.of(caller.user, &repeat, &body)?;
    let update = pb::UpdateLabel { user_id: caller.user.to_bytes(), label_id: label.0, name: body.name, color };
    let (written, label) = written(mailboxes.write(&caller, intent, Op::UpdateLabel(update)).await?)?;
    Ok((written, Json(label)))
}

/// Remove a label; its messages stay where they are.
#[utoipa::path(
    delete, path = "/v1/labels/{label_id}", operation_id = "delete_label", tag = "labels",
    params(("label_id" = String, Path, description = "The label")),
    responses((status = 204, description = "The label is gone"), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(label): PathId<LabelId>,
    repeat: Repeat,
) -> Result<(Written, StatusCode), Problem> {
    let whole = intents.without_body(caller.user, &repeat)?;
    let mut intent = whole.clone();
    for round in 0..DRAIN_ROUNDS_MAX {
        let delete = pb::DeleteLabel { user_id: caller.user.to_bytes(), label_id: label.0 };
        match mailboxes.write(&caller, intent, Op::DeleteLabel(delete)).await? {
            Ok(outcome::Result::Changed(changed)) => {
                return Ok((Written(ModSeq(changed.modseq)), StatusCode::NO_CONTENT));
            }
            // Each round is a step of its own, so that a client who asks again goes through the same ones.
            Ok(outcome::Result::LabelDraining(_)) => {
                let request = request::of_step(whole.request, &format!("drain {round}"));
                intent = Intent { request, ..whole.clone() };
            }
            Ok(_) => return Err(Problem::internal("a label was deleted with an outcome of another kind")),
            Err(refused) => return Err(Problem::refused(&refused)),
        }
    }
    Err(Problem::new(Kind::Busy).detail("the label has many messages: many are without it now, ask again"))
}
