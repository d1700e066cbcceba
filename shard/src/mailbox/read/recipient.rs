//! Whether a message of some size may be announced to a recipient: what RCPT asks.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, AccountState, CheckRecipient, RecipientState};

use crate::key::Key;
use crate::mailbox::account::over_quota;
use crate::query::{QueryError, id};
use crate::queue::count;
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &CheckRecipient) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let account: Option<AccountRecord> = row::get(reader, Key::Account(user))?;
    let account = account.filter(|account| account.state() != AccountState::Deleting);
    Ok(Answer::Recipient(RecipientState {
        active: account.is_some(),
        over_quota: account.as_ref().is_some_and(|account| over_quota(account, query.size)),
        queue_full: count::is_full_for(reader, user, query.size)?,
        suspended: account.is_some_and(|account| account.state() == AccountState::Suspended && account.refuses_mail),
    }))
}
