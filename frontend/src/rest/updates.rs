//! `PATCH` and `DELETE /v1/messages/{message_id}`, `POST /v1/messages/batch`: one command, all or nothing.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use postrider_api::id::{EmailId, FolderId, ModSeq};
use postrider_api::limit::UPDATES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{Refusal, outcome};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Intent;
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::BATCH_BODY_BYTES_MAX;
use crate::rest::mailboxes::{Caller, Mailboxes, Written};
use crate::rest::openapi::WriteProblems;
use crate::rest::problem::{Kind, Problem};

/// What changes of a message. A field that is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"is_read": true}))]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagePatch {
    /// Whether it was read.
    is_read: Option<bool>,
    /// Whether it is flagged.
    is_flagged: Option<bool>,
    /// The folder to move it to.
    folder_id: Option<String>,
}

/// What changes of several messages.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"ids": ["0192f0c1a2b37c4d8e5f60718293a4b5"], "is_read": true}))]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    /// 1 to 1,000 messages; one that is named twice is changed once.
    #[schema(min_items = 1, max_items = 1000)]
    ids: Vec<String>,
    /// Whether they were read.
    is_read: Option<bool>,
    /// Whether they are flagged.
    is_flagged: Option<bool>,
    /// The folder to move them to.
    folder_id: Option<String>,
    /// To Trash; from Trash for good. Alone.
    #[serde(default)]
    delete: bool,
}

/// A change of the mailbox.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChangeReceipt {
    /// The change: a later read may ask for it as `min_modseq`.
    modseq: u64,
}

/// What the same for each message is of an update.
struct Wish {
    is_read: Option<bool>,
    is_flagged: Option<bool>,
    folder: Option<FolderId>,
    delete: bool,
}

impl Wish {
    fn of(
        is_read: Option<bool>,
        is_flagged: Option<bool>,
        folder: Option<&str>,
        delete: bool,
    ) -> Result<Self, Problem> {
        let changes = is_read.is_some() || is_flagged.is_some() || folder.is_some();
        if changes == delete {
            let detail = if delete { "delete stands alone" } else { "nothing is to be changed" };
            return Err(Problem::new(Kind::InvalidBody).detail(detail));
        }
        // What is no folder id is no folder of the caller.
        let parse = |text: &str| text.parse().map_err(|_| Problem::new(Kind::FolderUnknown));
        Ok(Self { is_read, is_flagged, folder: folder.map(parse).transpose()?, delete })
    }

    fn update(&self, message: EmailId) -> pb::MessageUpdate {
        pb::MessageUpdate {
            email_id: message.to_bytes(),
            is_read: self.is_read,
            is_flagged: self.is_flagged,
            folder_id: self.folder.map(|folder| folder.0),
            delete: self.delete,
        }
    }
}

async fn carry_out(
    mailboxes: &Mailboxes,
    caller: &Caller,
    intent: Intent,
    wish: &Wish,
    messages: impl IntoIterator<Item = EmailId>,
) -> Result<ModSeq, Problem> {
    let updates = messages.into_iter().map(|message| wish.update(message)).collect();
    let op = Op::UpdateMessages(pb::UpdateMessages { user_id: caller.user.to_bytes(), updates });
    match mailboxes.write(caller, intent, op).await? {
        Ok(outcome::Result::Changed(changed)) => Ok(ModSeq(changed.modseq)),
        Ok(_) => Err(Problem::internal("messages were changed with an outcome of another kind")),
        Err(refused) if refused.refusal() == Refusal::UnknownFolder => Err(Problem::new(Kind::FolderUnknown)),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// Mark, flag or move a message.
#[utoipa::path(
    patch, path = "/v1/messages/{message_id}", operation_id = "change_message", tag = "messages", request_body = MessagePatch,
    params(("message_id" = String, Path, description = "The message")),
    responses((status = 200, description = "It is changed", body = ChangeReceipt), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn patch(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(message): PathId<EmailId>,
    repeat: Repeat,
    JsonBody(body): JsonBody<MessagePatch>,
) -> Result<(Written, Json<ChangeReceipt>), Problem> {
    let wish = Wish::of(body.is_read, body.is_flagged, body.folder_id.as_deref(), false)?;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let modseq = carry_out(&mailboxes, &caller, intent, &wish, [message]).await?;
    Ok((Written(modseq), Json(ChangeReceipt { modseq: modseq.0 })))
}

/// Delete a message: to Trash; from Trash for good.
#[utoipa::path(
    delete, path = "/v1/messages/{message_id}", operation_id = "delete_message", tag = "messages",
    params(
        ("message_id" = String, Path, description = "The message"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key deletes once: without it, asking again deletes from Trash"),
    ),
    responses((status = 204, description = "It is in Trash, or gone"), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    PathId(message): PathId<EmailId>,
    repeat: Repeat,
) -> Result<(Written, StatusCode), Problem> {
    let wish = Wish { is_read: None, is_flagged: None, folder: None, delete: true };
    let intent = intents.without_body(caller.user, &repeat)?;
    let modseq = carry_out(&mailboxes, &caller, intent, &wish, [message]).await?;
    Ok((Written(modseq), StatusCode::NO_CONTENT))
}

/// Change up to 1,000 messages: all of them, or none.
#[utoipa::path(
    post, path = "/v1/messages/batch", operation_id = "change_messages", tag = "messages", request_body = Batch,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 200, description = "All are changed", body = ChangeReceipt), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn batch(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<Batch, BATCH_BODY_BYTES_MAX>,
) -> Result<(Written, Json<ChangeReceipt>), Problem> {
    let wish = Wish::of(body.is_read, body.is_flagged, body.folder_id.as_deref(), body.delete)?;
    let messages = named(&body.ids)?;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let modseq = carry_out(&mailboxes, &caller, intent, &wish, messages).await?;
    Ok((Written(modseq), Json(ChangeReceipt { modseq: modseq.0 })))
}

/// Each message once: one that is named twice would go to Trash first and for good then.
fn named(ids: &[String]) -> Result<Vec<EmailId>, Problem> {
    if ids.is_empty() || ids.len() > UPDATES_MAX {
        return Err(Problem::field("ids", format!("1 to {UPDATES_MAX} messages")));
    }
    let mut seen = HashSet::with_capacity(ids.len());
    let mut messages = Vec::with_capacity(ids.len());
    for id in ids {
        // What is no id is no message of the caller.
        let message: EmailId = id.parse().map_err(|_| Problem::new(Kind::NotFound))?;
        if seen.insert(message) {
            messages.push(message);
        }
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_once() {
        let id = |last: u8| EmailId::new(7, [last; 10]).to_string();
        assert_eq!(named(&[id(1), id(2), id(1)]).unwrap().len(), 2);
        assert_eq!(named(&[]).unwrap_err().kind(), Kind::InvalidBody);
        assert_eq!(named(&vec![id(1); 1001]).unwrap_err().kind(), Kind::InvalidBody);
        assert_eq!(named(&["x".to_owned()]).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_wish_is_something_and_delete_stands_alone() {
        let kind = |wish: Result<Wish, Problem>| wish.map(|_| ()).map_err(|problem| problem.kind());
        assert_eq!(kind(Wish::of(None, None, None, false)), Err(Kind::InvalidBody));
        assert_eq!(kind(Wish::of(Some(true), None, None, true)), Err(Kind::InvalidBody));
        assert_eq!(kind(Wish::of(None, None, None, true)), Ok(()));
        assert_eq!(kind(Wish::of(None, None, Some("x"), false)), Err(Kind::FolderUnknown));
        assert_eq!(kind(Wish::of(None, None, Some("3"), false)), Ok(()));
    }
}
