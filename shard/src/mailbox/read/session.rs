//! A session that has not expired.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{GetSession, Missing, SessionRecord};

use crate::key::Key;
use crate::query::{QueryError, id, missing};
use crate::row;
use crate::store::Reader;

pub(crate) fn answer(reader: &impl Reader, now_ms: i64, query: &GetSession) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let hash = <[u8; 32]>::try_from(query.token_hash.as_ref())
        .map_err(|_| QueryError::Malformed { detail: "token_hash: 32 bytes are wanted".to_owned() })?;
    let session: Option<SessionRecord> = row::get(reader, Key::Session(user, hash))?;
    Ok(match session {
        Some(session) if session.expires_at_ms > now_ms => Answer::Session(session),
        _ => missing(Missing::Session),
    })
}
