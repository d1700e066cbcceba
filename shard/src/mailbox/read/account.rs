//! The account's row.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, GetAccount, Missing};

use crate::key::Key;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &GetAccount) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let account: Option<AccountRecord> = row::get(reader, Key::Account(user))?;
    Ok(account.map_or_else(|| missing(Missing::User), Answer::Account))
}
