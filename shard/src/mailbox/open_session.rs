//! A log-in. A user has at most [`SESSIONS_MAX`] sessions: the first to expire makes room.

use postrider_api::id::ModSeq;
use postrider_api::limit::{SESSIONS_MAX, USER_AGENT_BYTES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountState, Refusal, SessionRecord};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::mailbox::create_account::check_text;
use crate::mailbox::second_factor;
use crate::mailbox::session::{self, token_hash};
use crate::store::{Direction, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed, refuse};
use crate::{Broken, row};

/// An IP address as text, bytes.
const PEER_BYTES_MAX: usize = 64;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::OpenSession) -> Result<Made, Stop> {
    let hash = token_hash(&command.token_hash)?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if command.expires_at_ms <= turn.now {
        return Err(malformed("expires_at_ms: is not in the future"));
    }
    check_text("peer", &command.peer, PEER_BYTES_MAX, true)?;
    check_text("user_agent", &command.user_agent, USER_AGENT_BYTES_MAX, true)?;
    session::check_verified(&mailbox.account, &command.verified)?;
    if mailbox.account.state() == AccountState::Suspended {
        return Err(refuse(Refusal::AccountSuspended, "user_id: the account is suspended"));
    }
    let key = Key::Session(mailbox.user, hash);
    if row::get::<SessionRecord>(turn.rows, key)?.is_some() {
        return Err(refuse(Refusal::Conflict, "token_hash: a session has this token"));
    }
    second_factor::pass(turn, mailbox.user, command.second_factor.as_ref())?;
    make_room(turn, &mut mailbox)?;
    let session = SessionRecord {
        expires_at_ms: command.expires_at_ms,
        created_ms: turn.now,
        suspended: false,
        peer: command.peer.clone(),
        user_agent: command.user_agent.clone(),
        last_used_ms: 0,
    };
    row::put(turn.rows, key, &session);
    tail::push(turn, Object::Session(mailbox.user, hash), Verb::Created, ModSeq(0));
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
        let Key::Session(_, hash) = key else {
            return Err(Broken::corrupt(key, "stands in the range of sessions"));
        };
        open.push((session.expires_at_ms, hash));
    }
    if open.len() != mailbox.account.sessions as usize {
        let reason = format!("counts {} sessions, there are {}", mailbox.account.sessions, open.len());
        return Err(Broken::corrupt(Key::Account(mailbox.user), reason));
    }
    open.sort_unstable();
    let surplus = (open.len() + 1).saturating_sub(SESSIONS_MAX);
    for (place, (expires_at_ms, hash)) in open.into_iter().enumerate() {
        if expires_at_ms <= turn.now || place < surplus {
            row::delete(turn.rows, Key::Session(mailbox.user, hash));
            tail::push(turn, Object::Session(mailbox.user, hash), Verb::Deleted, ModSeq(0));
            mailbox.account.sessions -= 1;
        }
    }
    Ok(())
}
