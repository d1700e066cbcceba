//! `PATCH` and `DELETE /v1/messages/{message_id}`, `POST /v1/messages/batch`: one command, all or nothing.

use std::collections::HashSet;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use postrider_api::id::{EmailId, FolderId, LabelId, ModSeq};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{MESSAGE_LABELS_MAX, UPDATES_MAX};
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

/// Keywords to add and to remove.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"add": ["$forwarded"], "remove": ["$flagged"]}))]
#[serde(deny_unknown_fields)]
pub(crate) struct KeywordsPatch {
    /// `$seen`, `$flagged`, `$answered`, `$forwarded`, `$draft`, `$junk`, `$notjunk`, `$phishing` or `$mdnsent`. One of `$junk` and
    /// `$notjunk` takes the other's place.
    #[serde(default)]
    add: Vec<String>,
    /// Of the same.
    #[serde(default)]
    remove: Vec<String>,
}

/// Labels to add and to remove, by id.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"add": ["7"], "remove": []}))]
#[serde(deny_unknown_fields)]
pub(crate) struct LabelsPatch {
    /// Up to 20, as many as a message has.
    #[serde(default)]
    #[schema(max_items = 20)]
    add: Vec<String>,
    /// Up to 20.
    #[serde(default)]
    #[schema(max_items = 20)]
    remove: Vec<String>,
}

/// What changes of a message. A field that is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"is_read": true, "labels": {"add": ["7"]}}))]
#[serde(deny_unknown_fields)]
pub(crate) struct MessagePatch {
    /// Whether it was read.
    is_read: Option<bool>,
    /// Whether it is flagged.
    is_flagged: Option<bool>,
    /// The folder to move it to.
    folder_id: Option<String>,
    /// Labels to add and to remove.
    labels: Option<LabelsPatch>,
    /// Keywords to add and to remove.
    keywords: Option<KeywordsPatch>,
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
    /// Labels to add and to remove.
    labels: Option<LabelsPatch>,
    /// Keywords to add and to remove.
    keywords: Option<KeywordsPatch>,
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

/// What a body asks for.
#[derive(Default)]
struct Asked<'b> {
    is_read: Option<bool>,
    is_flagged: Option<bool>,
    folder: Option<&'b str>,
    labels: Option<&'b LabelsPatch>,
    keywords: Option<&'b KeywordsPatch>,
    delete: bool,
}

/// What the same for each message is of an update.
#[derive(Default)]
struct Wish {
    add: Keywords,
    remove: Keywords,
    folder: Option<FolderId>,
    labels_add: Vec<u32>,
    labels_remove: Vec<u32>,
    delete: bool,
}

impl Wish {
    fn of(asked: &Asked<'_>) -> Result<Self, Problem> {
        let mut wish = Self { delete: asked.delete, ..Self::default() };
        wish.mark(Keywords::SEEN, asked.is_read);
        wish.mark(Keywords::FLAGGED, asked.is_flagged);
        if let Some(keywords) = asked.keywords {
            wish.add = wish.add | named_keywords(&keywords.add)?;
            wish.remove = wish.remove | named_keywords(&keywords.remove)?;
        }
        if let Some(conflict) = Keywords::conflict(wish.add, wish.remove) {
            return Err(Problem::field("keywords", conflict));
        }
        if let Some(labels) = asked.labels {
            wish.labels_add = named_labels(&labels.add)?;
            wish.labels_remove = named_labels(&labels.remove)?;
        }
        if wish.labels_add.iter().any(|label| wish.labels_remove.contains(label)) {
            return Err(Problem::field("labels", "a label is added or removed, not both"));
        }
        // What is no folder id is no folder of the caller.
        let parse = |text: &str| text.parse().map_err(|_| Problem::new(Kind::FolderUnknown));
        wish.folder = asked.folder.map(parse).transpose()?;
        if wish.changes() == wish.delete {
            let detail = if wish.delete { "delete stands alone" } else { "nothing is to be changed" };
            return Err(Problem::new(Kind::InvalidBody).detail(detail));
        }
        Ok(wish)
    }

    /// A flag that has a field of its own.
    fn mark(&mut self, keyword: Keywords, wanted: Option<bool>) {
        match wanted {
            Some(true) => self.add = self.add | keyword,
            Some(false) => self.remove = self.remove | keyword,
            None => {}
        }
    }

    /// Whether it asks for anything but deletion.
    fn changes(&self) -> bool {
        let keywords = (self.add | self.remove) != Keywords::default();
        keywords || self.folder.is_some() || !self.labels_add.is_empty() || !self.labels_remove.is_empty()
    }

    fn update(&self, message: EmailId) -> pb::MessageUpdate {
        pb::MessageUpdate {
            email_id: message.to_bytes(),
            keywords_add: self.add.0,
            keywords_remove: self.remove.0,
            folder_id: self.folder.map(|folder| folder.0),
            delete: self.delete,
            labels_add: self.labels_add.clone(),
            labels_remove: self.labels_remove.clone(),
        }
    }
}

fn named_keywords(names: &[String]) -> Result<Keywords, Problem> {
    let mut keywords = Keywords::default();
    for name in names {
        let Some(keyword) = Keywords::named(name) else {
            let known: Vec<&str> = Keywords::ALL.names().collect();
            let detail = format!("a keyword is one of {}; words of one's own are labels", known.join(", "));
            return Err(Problem::field("keywords", detail));
        };
        keywords = keywords | keyword;
    }
    Ok(keywords)
}

/// Each label once. What is no label id is no label of the caller.
fn named_labels(ids: &[String]) -> Result<Vec<u32>, Problem> {
    let mut labels = Vec::with_capacity(ids.len().min(MESSAGE_LABELS_MAX));
    for id in ids {
        let LabelId(label) = id.parse().map_err(|_| Problem::new(Kind::LabelUnknown))?;
        if !labels.contains(&label) {
            if labels.len() == MESSAGE_LABELS_MAX {
                return Err(Problem::field("labels", format!("at most {MESSAGE_LABELS_MAX} labels")));
            }
            labels.push(label);
        }
    }
    Ok(labels)
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
        Err(refused) if refused.refusal() == Refusal::UnknownLabel => Err(Problem::new(Kind::LabelUnknown)),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// Mark, flag, label or move a message.
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
    let wish = Wish::of(&Asked {
        is_read: body.is_read,
        is_flagged: body.is_flagged,
        folder: body.folder_id.as_deref(),
        labels: body.labels.as_ref(),
        keywords: body.keywords.as_ref(),
        delete: false,
    })?;
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
    let wish = Wish { delete: true, ..Wish::default() };
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
    let wish = Wish::of(&Asked {
        is_read: body.is_read,
        is_flagged: body.is_flagged,
        folder: body.folder_id.as_deref(),
        labels: body.labels.as_ref(),
        keywords: body.keywords.as_ref(),
        delete: body.delete,
    })?;
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
        let kind = |asked: Asked<'_>| Wish::of(&asked).map(|_| ()).map_err(|problem| problem.kind());
        let nothing = Asked::default;
        assert_eq!(kind(nothing()), Err(Kind::InvalidBody));
        assert_eq!(kind(Asked { is_read: Some(true), delete: true, ..nothing() }), Err(Kind::InvalidBody));
        assert_eq!(kind(Asked { delete: true, ..nothing() }), Ok(()));
        assert_eq!(kind(Asked { folder: Some("x"), ..nothing() }), Err(Kind::FolderUnknown));
        assert_eq!(kind(Asked { folder: Some("3"), ..nothing() }), Ok(()));
        let labels = |add: &[&str], remove: &[&str]| LabelsPatch {
            add: add.iter().map(|&id| id.to_owned()).collect(),
            remove: remove.iter().map(|&id| id.to_owned()).collect(),
        };
        let of_labels = |patch: LabelsPatch| kind(Asked { labels: Some(&patch), ..nothing() });
        assert_eq!(of_labels(labels(&[], &[])), Err(Kind::InvalidBody));
        assert_eq!(of_labels(labels(&["7", "7"], &["8"])), Ok(()));
        assert_eq!(of_labels(labels(&["7"], &["7"])), Err(Kind::InvalidBody));
        assert_eq!(of_labels(labels(&["07"], &[])), Err(Kind::LabelUnknown));
        let many: Vec<String> = (1..=21).map(|id| id.to_string()).collect();
        assert_eq!(of_labels(LabelsPatch { add: many, remove: Vec::new() }), Err(Kind::InvalidBody));
    }

    #[test]
    fn flags_are_views_of_keywords() {
        let patch = |add: &[&str], remove: &[&str]| KeywordsPatch {
            add: add.iter().map(|&name| name.to_owned()).collect(),
            remove: remove.iter().map(|&name| name.to_owned()).collect(),
        };
        let wish = |is_read, patch: KeywordsPatch| {
            let wish = Wish::of(&Asked { is_read, keywords: Some(&patch), ..Asked::default() });
            wish.map(|wish| (wish.add, wish.remove)).map_err(|problem| problem.kind())
        };
        let (seen, flagged) = (Keywords::SEEN, Keywords::FLAGGED);
        assert_eq!(wish(Some(true), patch(&["$Seen"], &["$flagged"])), Ok((seen, flagged)));
        assert_eq!(wish(Some(false), patch(&["$flagged"], &[])), Ok((flagged, seen)));
        for (is_read, patch) in [
            (Some(false), patch(&["$seen"], &[])),
            (Some(true), patch(&[], &["$seen"])),
            (None, patch(&["$seen"], &["$seen"])),
            (None, patch(&["$junk", "$notjunk"], &[])),
            (None, patch(&["seen"], &[])),
            (None, patch(&["$important"], &[])),
        ] {
            assert_eq!(wish(is_read, patch), Err(Kind::InvalidBody));
        }
    }
}
