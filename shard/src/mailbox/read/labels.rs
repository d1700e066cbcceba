//! The user's labels, by id.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{AccountRecord, Labels, ListLabels, Missing};

use crate::key::Key;
use crate::mailbox::label;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &ListLabels) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let labels = label::all(reader, user)?;
    // No labels, or no mailbox.
    if labels.is_empty() && row::get::<AccountRecord>(reader, Key::Account(user))?.is_none() {
        return Ok(missing(Missing::User));
    }
    Ok(Answer::Labels(Labels { labels }))
}
