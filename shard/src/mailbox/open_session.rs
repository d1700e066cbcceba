//! A log-in. A user has at most [`SESSIONS_MAX`] sessions: the first to expire makes room.

use postrider_api::limit::SESSIONS_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, SessionRecord};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::mailbox::session::token_hash;
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::OpenSession) -> Result<Made, Stop> {
    let hash = token_hash(&command.token_hash)?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if command.expires_at_ms <= turn.now {
        return Err(malformed("expires_at_ms: is not in the future"));
    }
    let key = Key::Session(mailbox.user, hash);
    if row::get::<SessionRecord>(turn.rows, key)?.is_some() {
        return Err(refuse(Refusal::Conflict, "token_hash: a session has this token"));
    }
    make_room(turn, &mut mailbox)?;
    row::put(turn.rows, key, &SessionRecord { expires_at_ms: command.expires_at_ms, created_ms: turn.now });
    mailbox.account.sessions += 1;
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}

/// Removes what has expired, and the first to expire when there is still no room.
fn make_room(turn: &mut Turn<'_, impl Rows>, mailbox: &mut Mailbox) -> Result<(), Broken> {
    let mut open = Vec::new();
    for found in turn.rows.scan(&KeyRange::user(Table::Sessions, mailbox.user), Direction::Forward) {
        let (key, value) = found?;
        let (key, session) = row::decode_row::<SessionRecord>(key, value)?;
        open.push((session.expires_at_ms, key));
    }
    if open.len() != mailbox.account.sessions as usize {
        let reason = format!("counts {} sessions, there are {}", mailbox.account.sessions, open.len());
        return Err(Broken::corrupt(Key::Account(mailbox.user), reason));
    }
    open.sort_unstable_by_key(|(expires_at_ms, key)| (*expires_at_ms, key.bytes()));
    let surplus = (open.len() + 1).saturating_sub(SESSIONS_MAX);
    for (place, (expires_at_ms, key)) in open.into_iter().enumerate() {
        if expires_at_ms <= turn.now || place < surplus {
            row::delete(turn.rows, key);
            mailbox.account.sessions -= 1;
        }
    }
    Ok(())
}
