//! What is asked of a user's sending.

use postrider_api::id::{EntryId, UserId};
use postrider_api::limit::RECIPIENTS_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    AccountRecord, AccountState, CheckSuppressed, FeedbackLine, FeedbackPage, FeedbackRecord, GetSending, Hindrance,
    ListFeedback, ListSuppressions, Missing, QueueRecord, SuppressionRecord, Suppressions,
};
use prost::Message as _;

use crate::key::{Key, KeyRange, Table};
use crate::query::{QueryError, id, malformed, missing};
use crate::queue::{entry, who};
use crate::sending::{standing, suppression};
use crate::store::Reader;
use crate::{Broken, page, row};

/// What came back, of one user or of all.
pub(crate) fn answer_feedback(reader: &impl Reader, query: &ListFeedback) -> Result<Answer, QueryError> {
    let mut range = match query.user_id.is_empty() {
        true => KeyRange::table(Table::Feedback),
        false => KeyRange::user(Table::Feedback, id(&query.user_id, "user_id")?),
    };
    if let Some(after) = &query.after {
        range = range.behind(Key::Feedback(id(&after.user_id, "after.user_id")?, after.sequence));
    }
    // Rows of a user stand together.
    let mut last: Option<(UserId, String)> = None;
    let page = page::read(reader, &range, query.limit, |key, value| {
        let (Key::Feedback(user, _), feedback) = row::decode_row::<FeedbackRecord>(key, value)? else {
            return Err(Broken::corrupt(Key::decode(key.as_ref())?, "stands in the range of feedback"));
        };
        if last.as_ref().is_none_or(|(known, _)| *known != user) {
            let account = row::get::<AccountRecord>(reader, Key::Account(user))?;
            last = Some((user, account.map(|account| account.address).unwrap_or_default()));
        }
        let sender = last.as_ref().map(|(_, address)| address.clone()).unwrap_or_default();
        let line = FeedbackLine { user_id: user.to_bytes(), sender, feedback: Some(feedback) };
        let bytes = line.encoded_len();
        Ok((line, bytes))
    })?;
    Ok(Answer::Feedback(FeedbackPage { lines: page.rows, more: page.more }))
}

pub(crate) fn answer_suppressions(reader: &impl Reader, query: &ListSuppressions) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let mut range = KeyRange::user(Table::Suppressions, user);
    if !query.after.is_empty() {
        range = range.behind(suppression::key(user, &query.after));
    }
    let page = page::read(reader, &range, query.limit, |key, value| {
        let bytes = value.len();
        Ok((row::decode_row::<SuppressionRecord>(key, value)?.1, bytes))
    })?;
    Ok(Answer::Suppressions(Suppressions { suppressions: page.rows, more: page.more }))
}

/// Those of the addresses that are not sent to now.
pub(crate) fn answer_suppressed(
    reader: &impl Reader,
    now_ms: i64,
    query: &CheckSuppressed,
) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    if query.addresses.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("addresses: at most {RECIPIENTS_MAX}")));
    }
    let mut suppressions = Vec::new();
    for address in &query.addresses {
        suppressions.extend(suppression::find(reader, user, address, now_ms)?);
    }
    Ok(Answer::Suppressions(Suppressions { suppressions, more: false }))
}

pub(crate) fn answer_sending(reader: &impl Reader, query: &GetSending) -> Result<Answer, QueryError> {
    let user: UserId = id(&query.user_id, "user_id")?;
    if row::get::<AccountRecord>(reader, Key::Account(user))?.is_none() {
        return Ok(missing(Missing::User));
    }
    Ok(Answer::Sending(standing::get(reader, user)?))
}

/// Says of each recipient outside of a leased entry what keeps him from being sent to.
pub(crate) fn hinder(
    reader: &impl Reader,
    entry: EntryId,
    record: &mut QueueRecord,
    now_ms: i64,
) -> Result<(), Broken> {
    let Some(sender) = entry::sender(Key::Queue(entry), record)? else { return Ok(()) };
    if !record.pending.iter().any(who::is_remote) {
        return Ok(());
    }
    let account = row::get::<AccountRecord>(reader, Key::Account(sender))?;
    let is_suspended = account.is_some_and(|account| account.state() == AccountState::Suspended);
    for pending in record.pending.iter_mut().filter(|pending| who::is_remote(pending)) {
        if let Some(found) = suppression::find(reader, sender, &pending.address, now_ms)? {
            pending.hindrance = Hindrance::Suppressed.into();
            pending.hindrance_why = suppression::sentence(&pending.address, &found);
        } else if is_suspended {
            pending.hindrance = Hindrance::SenderSuspended.into();
        }
    }
    Ok(())
}
