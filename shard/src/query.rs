//! One question, answered from the rows as they are at one moment.

use bytes::Bytes;
use postrider_api::id::{EmailId, IdError, ModSeq, ShardId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::query::Query as Ask;
use postrider_api::pb::{self, AccountRecord, Missing, NotFound, ShardKind, ShardRecord};
use thiserror::Error;

use crate::key::Key;
use crate::store::{Reader, StoreError};
use crate::{Broken, blobs, dedup, directory, format, mailbox, placement, queue, row, sending};

/// Why a query has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The question makes no sense: the caller is wrong.
    #[error("{detail}")]
    Malformed {
        /// Which field, and what is wrong with it.
        detail: String,
    },
    /// The rows are wrong: the replica must not serve.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl From<StoreError> for QueryError {
    fn from(error: StoreError) -> Self {
        Self::Broken(error.into())
    }
}

/// Answers `query`. `now_ms` is the replica's clock: sessions expire by it.
///
/// Pages have at most `PAGE_ROWS_MAX` rows, also where the query asks for more or, with 0, for no certain number.
///
/// # Errors
/// When the question makes no sense, or the rows are broken.
pub fn query(shard: ShardId, reader: &impl Reader, now_ms: i64, query: &pb::Query) -> Result<pb::Answer, QueryError> {
    let ask = query
        .query
        .as_ref()
        .ok_or_else(|| malformed("the query is empty, or of a kind that this build does not know"))?;
    let home = home(ask);
    if home.is_some() && shard.kind() != home {
        return Err(malformed(format!("shard {shard} does not answer queries of this kind")));
    }
    let state: ShardRecord = row::get(reader, Key::Shard)?.unwrap_or_default();
    format::check(&state)?;
    let answer = match ask {
        Ask::GetAccount(q) => mailbox::read::account::answer(reader, q),
        Ask::GetSession(q) => mailbox::read::session::answer(reader, now_ms, q),
        Ask::ListFolders(q) => mailbox::read::folders::answer(reader, q),
        Ask::ListMessages(q) => mailbox::read::messages::answer(reader, q),
        Ask::ListLabels(q) => mailbox::read::labels::answer(reader, q),
        Ask::ListLabelMessages(q) => mailbox::read::label_messages::answer(reader, q),
        Ask::GetMessage(q) => mailbox::read::message::answer(reader, q),
        Ask::GetBody(q) => mailbox::read::body::answer(reader, q),
        Ask::ListThreads(q) => mailbox::read::threads::answer(reader, q),
        Ask::GetThread(q) => mailbox::read::thread::answer(reader, q),
        Ask::ListChanges(q) => mailbox::read::changes::answer(reader, q),
        Ask::CheckRecipient(q) => mailbox::read::recipient::answer(reader, q),
        Ask::ListSessions(q) => mailbox::read::session::answer_all(reader, now_ms, q),
        Ask::ListDeletions(q) => mailbox::read::deletions::answer(reader, q),
        Ask::FindRecipient(q) => queue::drop_recipient::answer(reader, q),
        Ask::GetOutcome(q) => dedup::answer(reader, now_ms, q),
        Ask::FindMessageId(q) => mailbox::read::message_id::answer(reader, q),
        Ask::ListQueue(q) => queue::read::answer_waiting(reader, q),
        Ask::ListFailed(q) => queue::read::answer_failed(reader, q),
        Ask::GetQueueEntry(q) => queue::read::answer_entry(reader, q),
        Ask::ListAppPasswords(q) => mailbox::read::app_passwords::answer(reader, q),
        Ask::GetCredentials(q) => mailbox::read::app_passwords::answer_credentials(reader, q),
        Ask::GetSecondFactor(q) => mailbox::read::second_factor::answer(reader, q),
        Ask::ListBlobs(q) => blobs::read::answer(reader, q),
        Ask::GetShardStats(_) => Ok(Answer::ShardStats(state)),
        Ask::ListOutbox(q) => queue::outbox::answer(reader, q),
        Ask::GetOutbox(q) => queue::outbox::answer_one(reader, q),
        Ask::ListDestinations(q) => queue::destination::answer(reader, q),
        Ask::ListFeedback(q) => sending::read::answer_feedback(reader, q),
        Ask::ListSuppressions(q) => sending::read::answer_suppressions(reader, q),
        Ask::CheckSuppressed(q) => sending::read::answer_suppressed(reader, now_ms, q),
        Ask::GetSending(q) => sending::read::answer_sending(reader, q),
        Ask::Search(_) | Ask::Suggest(_) => Err(malformed("a shard has rows and no index: its node answers this")),
        Ask::LookUpAddress(q) => directory::look_up_address::answer(reader, q),
        Ask::LocateUser(q) => directory::locate_user::answer(reader, q),
        Ask::ListDomainSuppressions(q) => directory::suppression::answer(reader, q),
        Ask::CheckDomainSuppressed(q) => directory::suppression::answer_suppressed(reader, now_ms, q),
        Ask::GetShardMap(q) => placement::map::answer(reader, &state, q),
        Ask::ListAudit(q) => placement::record_audit::answer(reader, q),
        Ask::GetOperation(q) => placement::operation::answer(reader, q),
        Ask::ListOperations(q) => placement::operation::answer_all(reader, q),
        Ask::ListSweeps(_) => placement::sweep::answer(reader),
    };
    Ok(pb::Answer { answer: Some(answer?) })
}

/// The kind of shard that answers; `None` for what every shard answers.
fn home(ask: &Ask) -> Option<ShardKind> {
    match ask {
        Ask::GetAccount(_)
        | Ask::GetSession(_)
        | Ask::ListFolders(_)
        | Ask::ListMessages(_)
        | Ask::ListLabels(_)
        | Ask::ListLabelMessages(_)
        | Ask::GetMessage(_)
        | Ask::GetBody(_)
        | Ask::ListThreads(_)
        | Ask::GetThread(_)
        | Ask::ListChanges(_)
        | Ask::CheckRecipient(_)
        | Ask::GetOutcome(_)
        | Ask::FindMessageId(_)
        | Ask::ListQueue(_)
        | Ask::ListFailed(_)
        | Ask::GetQueueEntry(_)
        | Ask::ListSessions(_)
        | Ask::ListDeletions(_)
        | Ask::FindRecipient(_)
        | Ask::ListAppPasswords(_)
        | Ask::GetCredentials(_)
        | Ask::GetSecondFactor(_)
        | Ask::ListBlobs(_)
        | Ask::ListOutbox(_)
        | Ask::GetOutbox(_)
        | Ask::ListDestinations(_)
        | Ask::ListFeedback(_)
        | Ask::ListSuppressions(_)
        | Ask::CheckSuppressed(_)
        | Ask::GetSending(_)
        | Ask::Search(_)
        | Ask::Suggest(_) => Some(ShardKind::Mailbox),
        Ask::LookUpAddress(_) | Ask::LocateUser(_) | Ask::ListDomainSuppressions(_) | Ask::CheckDomainSuppressed(_) => {
            Some(ShardKind::Directory)
        }
        Ask::GetShardMap(_)
        | Ask::GetOperation(_)
        | Ask::ListOperations(_)
        | Ask::ListAudit(_)
        | Ask::ListSweeps(_) => Some(ShardKind::Placement),
        Ask::GetShardStats(_) => None,
    }
}

/// The newest modseq of a mailbox; `None` when the user has none here.
///
/// # Errors
/// When the row cannot be read.
pub fn modseq(reader: &impl Reader, user: UserId) -> Result<Option<ModSeq>, Broken> {
    let account: Option<AccountRecord> = row::get(reader, Key::Account(user))?;
    Ok(account.map(|account| ModSeq(account.modseq)))
}

pub(crate) fn malformed(detail: impl Into<String>) -> QueryError {
    QueryError::Malformed { detail: detail.into() }
}

/// The answer that there is no such thing.
pub(crate) fn missing(missing: Missing) -> Answer {
    Answer::NotFound(NotFound { missing: missing.into() })
}

/// An id in a query.
pub(crate) fn id<'b, T>(bytes: &'b Bytes, field: &str) -> Result<T, QueryError>
where
    T: TryFrom<&'b Bytes, Error = IdError>,
{
    T::try_from(bytes).map_err(|error| malformed(format!("{field}: {error}")))
}

/// Where a page begins: behind a message, or with the first.
pub(crate) fn cursor(bytes: &Bytes, field: &str) -> Result<Option<EmailId>, QueryError> {
    match bytes.is_empty() {
        true => Ok(None),
        false => id(bytes, field).map(Some),
    }
}
