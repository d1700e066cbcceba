//! Sessions: hashes of tokens, with an expiry.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::{AccountRecord, Refusal, SessionProof, SessionRecord};
use postrider_api::request::password_digest;

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::store::{Direction, Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// What a proof is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It opens its user's mailbox.
    Valid,
    /// There is such a session, and its account is suspended.
    Suspended,
    /// There is no such session, or it has expired.
    Nothing,
}

/// Whether the session is there and has not expired at `now_ms`. Ids of another length than ours name no session.
///
/// # Errors
/// When the row cannot be read.
pub fn session_standing(reader: &impl Reader, now_ms: i64, proof: &SessionProof) -> Result<Standing, Broken> {
    let Ok(user) = UserId::try_from(&proof.user_id) else { return Ok(Standing::Nothing) };
    let Ok(hash) = <[u8; 32]>::try_from(proof.token_hash.as_ref()) else { return Ok(Standing::Nothing) };
    let session: Option<SessionRecord> = row::get(reader, Key::Session(user, hash))?;
    Ok(match session {
        Some(session) if session.expires_at_ms <= now_ms => Standing::Nothing,
        Some(session) if session.suspended => Standing::Suspended,
        Some(_) => Standing::Valid,
        None => Standing::Nothing,
    })
}

/// A token's hash in a command.
pub(crate) fn token_hash(bytes: &[u8]) -> Result<[u8; 32], Stop> {
    bytes.try_into().map_err(|_| malformed("token_hash: 32 bytes are wanted"))
}

/// Refuses what was verified against another password hash than the account has now. Empty: not verified, and not checked.
pub(crate) fn check_verified(account: &AccountRecord, verified: &[u8]) -> Result<(), Stop> {
    if verified.is_empty() || password_digest(&account.password_hash) == verified {
        return Ok(());
    }
    Err(refuse(Refusal::PasswordChanged, "verified: the password was changed meanwhile"))
}

/// All sessions of a user, also those that have expired.
pub(crate) fn all(reader: &impl Reader, user: UserId) -> Result<Vec<([u8; 32], SessionRecord)>, Broken> {
    let mut sessions = Vec::new();
    for found in reader.scan(&KeyRange::user(Table::Sessions, user), Direction::Forward) {
        let (key, value) = found?;
        match row::decode_row::<SessionRecord>(key, value)? {
            (Key::Session(_, hash), session) => sessions.push((hash, session)),
            (other, _) => return Err(Broken::corrupt(other, "stands in the range of sessions")),
        }
    }
    Ok(sessions)
}

/// Ends a session that is there.
pub(crate) fn end(turn: &mut Turn<'_, impl Rows>, mailbox: &mut Mailbox, hash: [u8; 32]) -> Result<(), Broken> {
    mailbox.account.sessions = mailbox
        .account
        .sessions
        .checked_sub(1)
        .ok_or_else(|| Broken::corrupt(Key::Account(mailbox.user), "sessions would fall below zero"))?;
    row::delete(turn.rows, Key::Session(mailbox.user, hash));
    tail::push(turn, Object::Session(mailbox.user, hash), Verb::Deleted, ModSeq(0));
    Ok(())
}

/// Ends every session but `keep`.
pub(crate) fn end_all(
    turn: &mut Turn<'_, impl Rows>,
    mailbox: &mut Mailbox,
    keep: Option<[u8; 32]>,
) -> Result<(), Broken> {
    for (hash, _) in all(turn.rows, mailbox.user)? {
        if Some(hash) != keep {
            end(turn, mailbox, hash)?;
        }
    }
    Ok(())
}

/// Sets what the sessions of an account say of its suspension: they are read with every request, the account is not.
pub(crate) fn mark_suspended(turn: &mut Turn<'_, impl Rows>, user: UserId, suspended: bool) -> Result<(), Broken> {
    for (hash, session) in all(turn.rows, user)? {
        row::put(turn.rows, Key::Session(user, hash), &SessionRecord { suspended, ..session });
        tail::push(turn, Object::Session(user, hash), Verb::Updated, ModSeq(0));
    }
    Ok(())
}
