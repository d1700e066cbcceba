//! An account that has nothing left is gone. Its id stays, with the time: what comes for it late is nobody's, and is not taken
//! for mail to somebody who is just signing up.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DeletedRecord, Refusal};

use crate::key::Key;
use crate::mailbox::drain_account::{check_deleting, has_nothing};
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::FinishDeletion) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let deleted = Key::DeletedUser(user);
    if row::get::<DeletedRecord>(turn.rows, deleted)?.is_some() {
        // The same again: the same answer.
        return Ok(Made::Done(pb::Done {}));
    }
    check_deleting(turn.rows, user)?;
    if !has_nothing(turn.rows, user)? {
        return Err(refuse(Refusal::Conflict, format!("user {user} has rows left")));
    }
    turn.state.users =
        turn.state.users.checked_sub(1).ok_or_else(|| Broken::corrupt(Key::Shard, "users would fall below zero"))?;
    row::delete(turn.rows, Key::Account(user));
    tail::push(turn, Object::Account(user), Verb::Deleted, ModSeq(0));
    row::delete(turn.rows, Key::Deletion(user));
    row::put(turn.rows, deleted, &DeletedRecord { deleted_ms: turn.now });
    Ok(Made::Done(pb::Done {}))
}
