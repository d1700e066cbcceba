//! Accounts that are being deleted: what the shard's leader goes on with.

use postrider_api::limit::ADDRESS_QUARANTINE_MS;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, DeletedRecord, Deletion, DeletionRecord, Deletions, ListDeletions};

use crate::key::{Key, KeyRange, Table};
use crate::query::QueryError;
use crate::store::{Direction, Reader};
use crate::{Broken, page, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListDeletions) -> Result<Answer, QueryError> {
    let page = page::read(reader, &KeyRange::table(Table::Deletions), query.limit, |key, value| {
        let bytes = value.len();
        let (key, deletion) = row::decode_row::<DeletionRecord>(key, value)?;
        let Key::Deletion(user) = key else { return Err(Broken::corrupt(key, "stands in the table of deletions")) };
        let account: AccountRecord = row::need(reader, Key::Account(user))?;
        let deletion = Deletion { user_id: user.to_bytes(), address: account.address, since_ms: deletion.since_ms };
        Ok((deletion, bytes))
    })?;
    Ok(Answer::Deletions(Deletions { deletions: page.rows }))
}

/// When the first deletion ended of those that ended after `since_ms`, of accounts and of addresses; `None`: none did.
///
/// # Errors
/// When the rows cannot be read.
pub fn oldest_deletion(reader: &impl Reader, since_ms: i64) -> Result<Option<i64>, Broken> {
    let mut oldest: Option<i64> = None;
    let mut note = |ms: i64| {
        if ms > since_ms {
            oldest = oldest.into_iter().chain([ms]).min();
        }
    };
    for found in reader.scan(&KeyRange::table(Table::DeletedUsers), Direction::Forward) {
        let (key, value) = found?;
        note(row::decode_row::<DeletedRecord>(key, value)?.1.deleted_ms);
    }
    for found in reader.scan(&KeyRange::table(Table::Quarantine), Direction::Forward) {
        if let Key::QuarantineExpiry(expires_at_ms, _) = Key::decode(found?.0.as_ref())? {
            note(expires_at_ms.saturating_sub(ADDRESS_QUARANTINE_MS));
        }
    }
    Ok(oldest)
}
