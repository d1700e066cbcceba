//! `/v1/search`, `/v1/search/threads`, `/v1/search/suggest`.
//!
//! The language is [`crate::search`]'s; the shard's node finds. Here one becomes the other.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use postrider_api::env::Clock;
use postrider_api::id::EmailId;
use postrider_api::keyword::Keywords;
use postrider_api::limit::SUGGESTIONS_MAX;
use postrider_api::pb;
use postrider_api::pb::search_node::Node;
use postrider_api::pb::{answer, query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::rest::conditional::{Conditional, Conditioned, EntityTag};
use crate::rest::cursor::{Cursors, SearchPlace};
use crate::rest::extract::Params;
use crate::rest::found::{Acquaintance, FoundMessage, FoundThread, Total};
use crate::rest::json::Json;
use crate::rest::limit::{SEARCHES_MAX, SEARCHES_PER_USER_MAX, SUGGEST_PREFIX_BYTES_MAX, SUGGESTIONS_DEFAULT};
use crate::rest::lists::page_rows;
use crate::rest::mailboxes::{Caller, Mailboxes, Read, wrong_answer};
use crate::rest::openapi::{IfNoneMatch, NotModified, SearchProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::turns::{Turn, Turns};
use crate::search::{self, Asked, Reading, SyntaxError};

/// Turns at searching, and the time that ages count from.
#[derive(Clone)]
pub(crate) struct Searches {
    turns: Turns,
    clock: Arc<dyn Clock>,
}

impl Searches {
    /// Bounded by [`SEARCHES_MAX`] and [`SEARCHES_PER_USER_MAX`].
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { turns: Turns::new(SEARCHES_MAX, SEARCHES_PER_USER_MAX), clock }
    }

    /// The caller's turn. With a token that has opened nothing yet he takes none: they could be another's.
    async fn turn(&self, mailboxes: &Mailboxes, caller: &Caller) -> Result<Option<Turn>, Problem> {
        if mailboxes.is_proven(caller) { self.turns.take(caller.user).await.map(Some) } else { Ok(None) }
    }
}

/// In which order.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// Newest first.
    #[default]
    Date,
    /// Best first.
    Relevance,
}

/// What is looked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchParams {
    /// Words, phrases and conditions: `docs/api/rest.md`, "Search". Empty or absent: everything that the other parameters let through.
    q: Option<String>,
    /// As `in:`: `inbox`, `drafts`, `sent`, `archive`, `junk`, `trash`, `anywhere`, or a folder's name. Junk and Trash are searched only when they are named.
    #[serde(rename = "in")]
    folder: Option<String>,
    /// Only read, or only unread ones.
    is_read: Option<bool>,
    /// Only with, or only without files.
    has_attachment: Option<bool>,
    /// As `after:`: a date (UTC, with that day) or an RFC 3339 time.
    after: Option<String>,
    /// As `before:`: a date (UTC, without that day) or an RFC 3339 time.
    before: Option<String>,
    /// Newest first unless given.
    #[param(inline)]
    sort: Option<Sort>,
    /// The last word of `q` may go on: somebody is typing.
    as_you_type: Option<bool>,
    /// Hits of a page, 1 to 200; 50 unless given.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

impl SearchParams {
    /// What is asked for, of messages.
    fn asked(&self, now_ms: i64) -> Result<Asked, Problem> {
        let reading = Reading { as_you_type: self.as_you_type.unwrap_or(false), now_ms };
        let text = self.q.as_deref().unwrap_or_default();
        let mut asked = search::parse(text, reading).map_err(|error| not_understood("q", text, &error))?;
        let operators = [("in", &self.folder), ("after", &self.after), ("before", &self.before)];
        for (name, value) in operators {
            let Some(value) = value else { continue };
            let condition = search::parse_operator(name, value, reading);
            asked = asked.and(condition.map_err(|error| not_understood(name, value, &error))?);
        }
        let fixed =
            [(self.is_read, Node::Keywords(Keywords::SEEN.0)), (self.has_attachment, Node::HasAttachments(true))];
        for (wanted, node) in fixed {
            let node = pb::SearchNode { node: Some(node) };
            asked = match wanted {
                Some(true) => asked.with(node),
                Some(false) => asked.with(pb::SearchNode { node: Some(Node::Not(Box::new(node))) }),
                None => asked,
            };
        }
        Ok(asked)
    }

    /// Everything that shapes the order and the set of hits, and not which page of them is wanted.
    fn question(&self, threads: bool) -> [u8; 32] {
        let bool = |value: Option<bool>| u8::from(value.is_some()) + u8::from(value == Some(true));
        let sort = u8::from(matches!(self.sort, Some(Sort::Relevance)));
        let as_you_type = u8::from(self.as_you_type.unwrap_or(false));
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[u8::from(threads), sort, as_you_type, bool(self.is_read), bool(self.has_attachment)]);
        for text in [&self.q, &self.folder, &self.after, &self.before] {
            let text = text.as_deref().unwrap_or_default();
            hasher.update(&(text.len() as u64).to_be_bytes()).update(text.as_bytes());
        }
        *hasher.finalize().as_bytes()
    }
}

/// Where the text went wrong, in the units of [`crate::rest::found`].
fn not_understood(parameter: &'static str, text: &str, error: &SyntaxError) -> Problem {
    let units = |part: &str| part.encode_utf16().count();
    let before = text.get(..error.at.start).unwrap_or_default();
    let wrong = text.get(error.at.clone()).unwrap_or_default();
    Problem::new(Kind::InvalidSearch)
        .detail(error.to_string())
        .member("parameter", parameter)
        .member("position", units(before))
        .member("length", units(wrong))
}

/// A search on its way to the shard.
struct Question {
    search: pb::Search,
    place: SearchPlace,
    moves_with_time: bool,
    min_modseq: u64,
}

impl Question {
    fn new(
        searches: &Searches,
        cursors: &Cursors,
        caller: &Caller,
        params: &SearchParams,
        threads: bool,
    ) -> Result<Self, Problem> {
        let asked = params.asked(searches.clock.wall_ms())?;
        let place = SearchPlace { user: caller.user, question: params.question(threads) };
        let after = params.cursor.as_deref().map(|cursor| cursors.open_search(&place, cursor)).transpose()?;
        let sort = match params.sort.unwrap_or_default() {
            Sort::Date => pb::SearchSort::Date,
            Sort::Relevance => pb::SearchSort::Relevance,
        };
        let search = pb::Search {
            user_id: caller.user.to_bytes(),
            query: asked.node,
            sort: sort.into(),
            limit: page_rows(params.limit)?,
            after: after.map(|(email, score)| pb::SearchPosition { email_id: email.to_bytes(), score }),
            threads,
            without: asked.without.into_iter().map(Into::into).collect(),
        };
        Ok(Self { search, place, moves_with_time: asked.moves_with_time, min_modseq: params.min_modseq.unwrap_or(0) })
    }

    /// The page as `written` makes it of hits, total and cursor; or that the client has it.
    async fn answer<H, P>(
        self,
        (mailboxes, cursors, searches): (&Mailboxes, &Cursors, &Searches),
        caller: &Caller,
        conditional: &Conditional,
        written: impl FnOnce(Vec<H>, Total, Option<String>) -> P,
    ) -> Result<Response, Problem>
    where
        H: TryFrom<pb::SearchHit, Error = Problem>,
        P: Serialize,
    {
        let place = self.place;
        let _turn = searches.turn(mailboxes, caller).await?;
        let query = query::Query::Search(self.search);
        let conditioned = if self.moves_with_time {
            Conditioned::Changed(mailboxes.read(caller, query, self.min_modseq).await?, EntityTag::none())
        } else {
            conditional.read(mailboxes, caller, query, self.min_modseq).await?
        };
        let (page, freshness, tag) = match conditioned {
            Conditioned::Unchanged(unchanged) => return Ok(unchanged.into_response()),
            Conditioned::Changed(Read { answer: answer::Answer::Search(page), freshness, .. }, tag) => {
                (page, freshness, tag)
            }
            Conditioned::Changed(..) => return Err(wrong_answer()),
        };
        let next_cursor = next(cursors, &place, &page)?;
        let total = Total::of(&page);
        let hits = page.hits.into_iter().map(H::try_from).collect::<Result<_, _>>()?;
        Ok((freshness, tag, Json(written(hits, total, next_cursor))).into_response())
    }
}

/// The cursor of the page behind the last hit, where there is one.
fn next(cursors: &Cursors, place: &SearchPlace, page: &pb::SearchPage) -> Result<Option<String>, Problem> {
    let Some(last) = page.hits.last().filter(|_| page.more) else { return Ok(None) };
    let email = last.row.as_ref().and_then(|row| EmailId::try_from(&row.email_id).ok());
    let email = email.ok_or_else(|| Problem::internal("a hit without an id"))?;
    Ok(Some(cursors.seal_search(place, email, last.score)))
}

/// A page of messages that were found.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundMessages {
    /// In the order of the search.
    messages: Vec<FoundMessage>,
    /// How many match, on all pages.
    total: Total,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// Search messages.
#[utoipa::path(
    get, path = "/v1/search", operation_id = "search_messages", tag = "search", params(SearchParams, IfNoneMatch),
    responses((status = 200, description = "A page", body = FoundMessages), NotModified, SearchProblems),
    security(("token" = [])),
)]
pub(crate) async fn messages(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    State(searches): State<Searches>,
    caller: Caller,
    conditional: Conditional,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    let question = Question::new(&searches, &cursors, &caller, &params, false)?;
    let written = |messages, total, next_cursor| FoundMessages { messages, total, next_cursor };
    question.answer((&mailboxes, &cursors, &searches), &caller, &conditional, written).await
}

/// A page of conversations that were found.
#[derive(Serialize, ToSchema)]
pub(crate) struct FoundThreads {
    /// By the first of their hits in the order of the search.
    threads: Vec<FoundThread>,
    /// How many match, on all pages.
    total: Total,
    /// Of the next page; null on the last.
    next_cursor: Option<String>,
}

/// Search conversations: those in which a message matches.
#[utoipa::path(
    get, path = "/v1/search/threads", operation_id = "search_threads", tag = "search", params(SearchParams, IfNoneMatch),
    responses((status = 200, description = "A page", body = FoundThreads), NotModified, SearchProblems),
    security(("token" = [])),
)]
pub(crate) async fn threads(
    State(mailboxes): State<Mailboxes>,
    State(cursors): State<Arc<Cursors>>,
    State(searches): State<Searches>,
    caller: Caller,
    conditional: Conditional,
    Params(params): Params<SearchParams>,
) -> Result<Response, Problem> {
    let question = Question::new(&searches, &cursors, &caller, &params, true)?;
    let written = |threads, total, next_cursor| FoundThreads { threads, total, next_cursor };
    question.answer((&mailboxes, &cursors, &searches), &caller, &conditional, written).await
}

/// Whom to suggest.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SuggestParams {
    /// How a word of the name, the address or its domain begins; empty or absent: the likeliest of all.
    prefix: Option<String>,
    /// People, 1 to 50; 10 unless given.
    #[param(minimum = 1, maximum = 50)]
    limit: Option<u32>,
    /// Refuse to answer from a mailbox that is older than this change.
    min_modseq: Option<u64>,
}

/// People whom the user has written to or heard from.
#[derive(Serialize, ToSchema)]
pub(crate) struct Suggested {
    /// The likeliest first.
    people: Vec<Acquaintance>,
}

/// Suggest people whom one has written to or heard from.
#[utoipa::path(
    get, path = "/v1/search/suggest", operation_id = "suggest_people", tag = "search", params(SuggestParams),
    responses((status = 200, description = "The likeliest first", body = Suggested), SearchProblems),
    security(("token" = [])),
)]
pub(crate) async fn suggest(
    State(mailboxes): State<Mailboxes>,
    State(searches): State<Searches>,
    caller: Caller,
    Params(params): Params<SuggestParams>,
) -> Result<Response, Problem> {
    let limit = params.limit.unwrap_or(SUGGESTIONS_DEFAULT);
    if !(1..=SUGGESTIONS_MAX).contains(&limit) {
        return Err(Problem::new(Kind::InvalidQuery).detail(format!("limit is 1 to {SUGGESTIONS_MAX}")));
    }
    let prefix = params.prefix.unwrap_or_default();
    if prefix.len() > SUGGEST_PREFIX_BYTES_MAX {
        let detail = format!("prefix has at most {SUGGEST_PREFIX_BYTES_MAX} bytes");
        return Err(Problem::new(Kind::InvalidQuery).detail(detail));
    }
    let _turn = searches.turn(&mailboxes, &caller).await?;
    let suggest = pb::Suggest { user_id: caller.user.to_bytes(), prefix, limit };
    let read = mailboxes.read(&caller, query::Query::Suggest(suggest), params.min_modseq.unwrap_or(0)).await?;
    let answer::Answer::Suggestions(suggestions) = read.answer else { return Err(wrong_answer()) };
    let people = suggestions.suggestions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
    Ok((read.freshness, Json(Suggested { people })).into_response())
}
