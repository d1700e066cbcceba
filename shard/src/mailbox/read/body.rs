//! What it takes to give back the raw message.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{EmailRecord, GetBody, Missing, StoredBody};

use crate::key::Key;
use crate::mailbox::body;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &GetBody) -> Result<Answer, QueryError> {
    let key = Key::Email(id(&query.user_id, "user_id")?, id(&query.email_id, "email_id")?);
    let Some(email) = row::get::<EmailRecord>(reader, key)? else { return Ok(missing(Missing::Message)) };
    let stored = body::read(reader, row::id(key, &email.body_id)?)?;
    Ok(Answer::Body(StoredBody { pieces: email.pieces, parts: email.parts, body: Some(stored) }))
}
