//! A user's application passwords: without their keys for him to see, and with them for whoever lets his programs in.

use postrider_api::id::{AppPasswordId, UserId};
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{
    AccountRecord, AccountState, AppPassword, AppPasswordRecord, AppPasswords, Credentials, GetCredentials,
    ListAppPasswords, Missing,
};

use crate::key::Key;
use crate::mailbox::app_password;
use crate::query::{QueryError, id, missing};
use crate::store::Reader;
use crate::{Broken, row};

pub(crate) fn answer(reader: &impl Reader, query: &ListAppPasswords) -> Result<Answer, QueryError> {
    let all = newest_first(reader, id(&query.user_id, "user_id")?)?;
    let without_keys = |(id, record)| line((id, AppPasswordRecord { keys: None, ..record }));
    Ok(Answer::AppPasswords(AppPasswords { app_passwords: all.into_iter().map(without_keys).collect() }))
}

pub(crate) fn answer_credentials(reader: &impl Reader, query: &GetCredentials) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let account: Option<AccountRecord> = row::get(reader, Key::Account(user))?;
    let Some(account) = account.filter(|account| account.state() != AccountState::Deleting) else {
        return Ok(missing(Missing::User));
    };
    let mut all = newest_first(reader, user)?;
    all.retain(|(_, record)| record.scopes & query.scopes == query.scopes);
    Ok(Answer::Credentials(Credentials {
        suspended: account.state() == AccountState::Suspended,
        address: account.address,
        app_passwords: all.into_iter().map(line).collect(),
    }))
}

fn newest_first(reader: &impl Reader, user: UserId) -> Result<Vec<(AppPasswordId, AppPasswordRecord)>, Broken> {
    let mut all = app_password::all(reader, user)?;
    all.sort_by_key(|(id, record)| (std::cmp::Reverse(record.created_ms), *id));
    Ok(all)
}

fn line((id, record): (AppPasswordId, AppPasswordRecord)) -> AppPassword {
    AppPassword { app_password_id: id.to_bytes(), record: Some(record) }
}
