//! A message's row: envelope, structure, flags.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{EmailRecord, GetMessage, Missing};

use crate::key::Key;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &GetMessage) -> Result<Answer, QueryError> {
    let key = Key::Email(id(&query.user_id, "user_id")?, id(&query.email_id, "email_id")?);
    let email: Option<EmailRecord> = row::get(reader, key)?;
    Ok(email.map_or_else(|| missing(Missing::Message), Answer::Message))
}
