//! A message's row: envelope, structure, flags.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{EmailRecord, GetMessage, Missing};

use crate::key::Key;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &GetMessage) -> Result<Answer, QueryError> {
    let key = Key::Email(id(&query.user_id, "user_id")?, id(&query.email_id, "email_id")?);
    let Some(email) = row::get::<EmailRecord>(reader, key)? else { return Ok(missing(Missing::Message)) };
    Ok(Answer::Message(if query.without_content { without_content(email) } else { email }))
}

/// What is left of the row is small, whatever the message is.
fn without_content(email: EmailRecord) -> EmailRecord {
    EmailRecord {
        envelope: None,
        preview: String::new(),
        parts: Vec::new(),
        pieces: Vec::new(),
        message_id_hash: Default::default(),
        reference_hashes: Vec::new(),
        mail_from: String::new(),
        ..email
    }
}
