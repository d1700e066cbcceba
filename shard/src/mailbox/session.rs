//! Sessions: hashes of tokens, with an expiry.

use postrider_api::id::UserId;
use postrider_api::pb::{SessionProof, SessionRecord};

use crate::key::Key;
use crate::store::Reader;
use crate::turn::{Stop, malformed};
use crate::{Broken, row};

/// Whether the session is there and has not expired at `now_ms`. Ids of another length than ours name no session.
///
/// # Errors
/// When the row cannot be read.
pub fn session_valid(reader: &impl Reader, now_ms: i64, proof: &SessionProof) -> Result<bool, Broken> {
    let Ok(user) = UserId::try_from(&proof.user_id) else { return Ok(false) };
    let Ok(hash) = <[u8; 32]>::try_from(proof.token_hash.as_ref()) else { return Ok(false) };
    let session: Option<SessionRecord> = row::get(reader, Key::Session(user, hash))?;
    Ok(session.is_some_and(|session| session.expires_at_ms > now_ms))
}

/// A token's hash in a command.
pub(crate) fn token_hash(bytes: &[u8]) -> Result<[u8; 32], Stop> {
    bytes.try_into().map_err(|_| malformed("token_hash: 32 bytes are wanted"))
}
