//! `/v1/folders/{folder_id}/messages`, `/v1/folders/{folder_id}/threads`, `/v1/labels/{label_id}/messages`,
//! `/v1/threads/{thread_id}`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use postrider_api::id::{EmailId, FolderId, LabelId, ThreadId};
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb;
use postrider_api::pb::{answer, query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::rest::bodies::{Bodies, held};
use crate::rest::conditional::{Conditional, Conditioned, EntityTag};
use crate::rest::cursor::{Cursors, List, Place};
use crate::rest::extract::{Params, PathId};
use crate::rest::json::Json;
use crate::rest::limit::PAGE_ROWS_DEFAULT;
use crate::rest::mailboxes::{Caller, Freshness, Mailboxes, wrong_answer};
use crate::rest::openapi::{IfNoneMatch, MinModseq, NotModified, ReadProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::view::{Id, MessageSummary, ThreadMessage, ThreadSummary};

/// Rows of a page, as asked for.
pub(crate) fn page_rows(limit: Option<u32>) -> Result<u32, Problem> {
    match limit.unwrap_or(PAGE_ROWS_DEFAULT) {
        limit @ 1..=PAGE_ROWS_MAX => Ok(limit),
        _ => Err(Problem::new(Kind::InvalidQuery).detail(format!("limit is 1 to {PAGE_ROWS_MAX}"))),
    }
}

fn before(cursors: &Cursors, place: Place, cursor: Option<&str>) -> Result<Bytes, Problem> {
    Ok(match cursor {
        Some(cursor) => cursors.open(place, cursor)?.to_bytes(),
        None => Bytes::new(),
    })
}

/// The cursor of the page behind `last`, where there is one.
fn next(cursors: &Cursors, place: Place, more: bool, last: Option<Id>) -> Option<String> {
    last.filter(|_| more).map(|Id(last)| cursors.seal(place, EmailId(last)))
}

/// Which messages of a folder.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct MessagesParams {
    /// Only read, or only unread ones.
    is_read: Option<bool>,
    /// Only flagged ones: `true` is all that it may be. Not together with `is_read`.
    is_flagged: Option<bool>,
    /// Messages of a page, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessagePage {
    /// Newest first.
    messages: Vec<MessageSummary>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// List the messages of a folder, newest first.
#[utoipa::path(
    get, path = "/v1/folders/{folder_id}/messages", operation_id = "list_messages", tag = "messages",
    params(("folder_id" = String, Path, description = "The folder"), MessagesParams, IfNoneMatch),
    responses((status = 200, description = "A page", body = MessagePage), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn messages(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    caller: Caller,
    conditional: Conditional,
    PathId(folder): PathId<FolderId>,
    Params(params): Params<MessagesParams>,
) -> Result<Response, Problem> {
    let is_flagged = params.is_flagged.unwrap_or(false);
    if params.is_flagged.is_some() && (!is_flagged || params.is_read.is_some()) {
        let detail = "is_flagged is true or is left out, and stands without is_read";
        return Err(Problem::new(Kind::InvalidQuery).detail(detail));
    }
    let list = if is_flagged { List::Flagged } else { List::Messages { is_read: params.is_read } };
    let place = Place { user: caller.user, number: folder.0, list };
    let list = pb::ListMessages {
        user_id: caller.user.to_bytes(),
        folder_id: folder.0,
        is_read: params.is_read,
        limit: page_rows(params.limit)?,
        before: before(&cursors, place, params.cursor.as_deref())?,
        is_flagged,
    };
    let min_modseq = params.min_modseq.unwrap_or(0);
    let read = conditional.read(&mailboxes, &caller, query::Query::ListMessages(list), min_modseq).await?;
    page(&cursors, place, read)
}

fn page(cursors: &Cursors, place: Place, read: Conditioned) -> Result<Response, Problem> {
    let (read, tag) = match read {
        Conditioned::Changed(read, tag) => (read, tag),
        Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
    };
    let answer::Answer::Messages(page) = read.answer else { return Err(wrong_answer()) };
    let messages: Vec<MessageSummary> = page.rows.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    let next_cursor = next(cursors, place, page.more, messages.last().map(|message| message.id));
    Ok((read.freshness, tag, Json(MessagePage { messages, next_cursor })).into_response())
}

/// Which messages of a label.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LabelledParams {
    /// Only read, or only unread ones.
    is_read: Option<bool>,
    /// Messages of a page, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

/// List the messages that have a label, newest first, in whatever folder but Trash and Junk.
#[utoipa::path(
    get, path = "/v1/labels/{label_id}/messages", operation_id = "list_label_messages", tag = "labels",
    params(("label_id" = String, Path, description = "The label"), LabelledParams, IfNoneMatch),
    responses((status = 200, description = "A page", body = MessagePage), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn labelled(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    caller: Caller,
    conditional: Conditional,
    PathId(label): PathId<LabelId>,
    Params(params): Params<LabelledParams>,
) -> Result<Response, Problem> {
    let place = Place { user: caller.user, number: label.0, list: List::Labelled { is_read: params.is_read } };
    let list = pb::ListLabelMessages {
        user_id: caller.user.to_bytes(),
        label_id: label.0,
        is_read: params.is_read,
        limit: page_rows(params.limit)?,
        before: before(&cursors, place, params.cursor.as_deref())?,
    };
    let min_modseq = params.min_modseq.unwrap_or(0);
    let read = conditional.read(&mailboxes, &caller, query::Query::ListLabelMessages(list), min_modseq).await?;
    page(&cursors, place, read)
}

/// Which conversations of a folder.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ThreadsParams {
    /// Conversations of a page, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

/// A page of conversations.
#[derive(Serialize, ToSchema)]
pub(crate) struct ThreadPage {
    /// By their newest message in the folder, newest first.
    threads: Vec<ThreadSummary>,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// List the conversations of a folder.
#[utoipa::path(
    get, path = "/v1/folders/{folder_id}/threads", operation_id = "list_threads", tag = "threads",
    params(("folder_id" = String, Path, description = "The folder"), ThreadsParams, IfNoneMatch),
    responses((status = 200, description = "A page", body = ThreadPage), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn threads(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    caller: Caller,
    conditional: Conditional,
    PathId(folder): PathId<FolderId>,
    Params(params): Params<ThreadsParams>,
) -> Result<Response, Problem> {
    let place = Place { user: caller.user, number: folder.0, list: List::Threads };
    let list = pb::ListThreads {
        user_id: caller.user.to_bytes(),
        folder_id: folder.0,
        limit: page_rows(params.limit)?,
        before: before(&cursors, place, params.cursor.as_deref())?,
    };
    let min_modseq = params.min_modseq.unwrap_or(0);
    let (read, tag) = match conditional.read(&mailboxes, &caller, query::Query::ListThreads(list), min_modseq).await? {
        Conditioned::Changed(read, tag) => (read, tag),
        Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
    };
    let answer::Answer::Threads(page) = read.answer else { return Err(wrong_answer()) };
    let threads: Vec<ThreadSummary> = page.rows.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    let next_cursor = next(&cursors, place, page.more, threads.last().map(|thread| thread.newest.id));
    Ok((read.freshness, tag, Json(ThreadPage { threads, next_cursor })).into_response())
}

/// Several pages are written as JSON away from the threads that serve others.
async fn written_elsewhere(thread: Thread) -> Result<Response, Problem> {
    let writing = tokio::task::spawn_blocking(move || Json(thread).into_response());
    writing.await.map_err(|_| Problem::internal("writing a conversation ended early"))
}

/// A conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Thread {
    /// The conversation.
    id: Id,
    /// Its messages in all folders, oldest first.
    messages: Vec<ThreadMessage>,
}

/// Read a conversation, across folders.
#[utoipa::path(
    get, path = "/v1/threads/{thread_id}", operation_id = "read_thread", tag = "threads",
    params(("thread_id" = String, Path, description = "The conversation"), MinModseq, IfNoneMatch),
    responses((status = 200, description = "The conversation", body = Thread), NotModified, ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn thread(
    State(mailboxes): State<Mailboxes>,
    State(bodies): State<Bodies>,
    caller: Caller,
    conditional: Conditional,
    PathId(thread): PathId<ThreadId>,
    Params(params): Params<MinModseq>,
) -> Result<Response, Problem> {
    let mut turn = Some(bodies.early_turn(&mailboxes, &caller).await?);
    let mut held_turn = None;
    let mut messages = Vec::new();
    let mut freshness: Option<Freshness> = None;
    // Of the first page: the others may be newer, which is one more answer than is needed.
    let mut first_tag = None;
    let mut after = Bytes::new();
    loop {
        let get = pb::GetThread { user_id: caller.user.to_bytes(), thread_id: thread.to_bytes(), after };
        let get = query::Query::GetThread(get);
        let read = if first_tag.is_some() {
            mailboxes.read(&caller, get, params.get()).await?
        } else {
            match conditional.read(&mailboxes, &caller, get, params.get()).await? {
                Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
                Conditioned::Changed(read, tag) => {
                    first_tag = Some(tag);
                    read
                }
            }
        };
        let answer::Answer::Thread(page) = read.answer else { return Err(wrong_answer()) };
        if let Some(turn) = turn.take() {
            held_turn = Some(turn.or_now(&bodies, &caller).await?);
        }
        let fresh = freshness.map_or(read.freshness, |before| before.and(read.freshness));
        freshness = Some(fresh);
        let last = page.messages.last().and_then(|message| message.row.as_ref());
        after = last.map(|row| row.email_id.clone()).unwrap_or_default();
        let is_large = page.more || !messages.is_empty();
        for message in page.messages {
            messages.push(ThreadMessage::try_from(message)?);
        }
        // A page that is not the last has a message, or it would be asked for again and again.
        if !page.more || after.is_empty() {
            let thread = Thread { id: Id::of(&page.thread_id)?, messages };
            let response = if is_large { written_elsewhere(thread).await? } else { Json(thread).into_response() };
            let response = (fresh, first_tag.unwrap_or_else(EntityTag::none), response).into_response();
            return Ok(match held_turn {
                Some(turn) => held(response, turn),
                None => response,
            });
        }
    }
}
