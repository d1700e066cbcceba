//! Sessions that have not expired: one by its token, and all of a user.

use postrider_api::pb::answer::Answer;
use postrider_api::pb::{GetSession, ListSessions, Missing, SessionLine, SessionRecord, Sessions};
use postrider_api::request::session_id;

use crate::key::Key;
use crate::mailbox::session;
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

/// The sessions of a user, the newest first.
pub(crate) fn answer_all(reader: &impl Reader, now_ms: i64, query: &ListSessions) -> Result<Answer, QueryError> {
    let user = id(&query.user_id, "user_id")?;
    let mut open = session::all(reader, user)?;
    open.retain(|(_, session)| session.expires_at_ms > now_ms);
    open.sort_by_key(|(hash, session)| (std::cmp::Reverse(session.created_ms), *hash));
    let line = |(hash, session): ([u8; 32], SessionRecord)| SessionLine {
        session_id: session_id(&hash).to_vec().into(),
        session: Some(session),
    };
    Ok(Answer::Sessions(Sessions { sessions: open.into_iter().map(line).collect() }))
}
