//! A user's second factor, for whoever checks what is shown.

use postrider_api::pb::GetSecondFactor;
use postrider_api::pb::answer::Answer;

use crate::mailbox::second_factor;
use crate::query::{QueryError, id};
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, query: &GetSecondFactor) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    Ok(Answer::SecondFactor(second_factor::of(reader, user)?.unwrap_or_default()))
}
