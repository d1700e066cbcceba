//! A bounded part of what an account that is being deleted has.
//!
//! Counters, indexes and threads are not kept right meanwhile: nobody reads them, and rows that contradict each other must not
//! keep a mailbox from going. What others share with it is: each message gives back what it refers to
//! ([`message::let_go`]), in the same apply as its row.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::limit::DRAIN_ROWS_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountRecord, AccountState, EmailRecord, Refusal};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::message;
use crate::queue::cancel;
use crate::sending::sent;
use crate::store::{Direction, Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DrainAccount) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    check_deleting(turn.rows, user)?;
    let mut left = DRAIN_ROWS_MAX;
    for table in Table::ALL.iter().filter(|table| table.is_of_mailbox()) {
        if left == 0 {
            break;
        }
        let mut rows = Vec::new();
        for found in turn.rows.scan(&KeyRange::user(*table, user), Direction::Forward).take(left) {
            rows.push(found?);
        }
        left -= rows.len();
        for (key, value) in rows {
            if *table == Table::Emails {
                let (key, email) = row::decode_row::<EmailRecord>(key, value)?;
                message::let_go(turn, key, &email)?;
            }
            if *table == Table::Outbox {
                let entry = cancel::entry_of(Key::decode(key.as_ref()).map_err(Broken::from)?, user)?;
                cancel::without_sender(turn, entry)?;
            }
            if *table == Table::SentMessages
                && let Key::SentMessage(user, entry) = Key::decode(key.as_ref()).map_err(Broken::from)?
            {
                sent::forget(turn, user, entry)?;
            }
            tell(turn, Key::decode(key.as_ref()).map_err(Broken::from)?);
            turn.rows.delete(key);
        }
    }
    let is_empty = left > 0 && has_nothing(turn.rows, user)?;
    Ok(Made::AccountDraining(pb::AccountDraining { is_empty }))
}

/// Followers are told of each object: what they keep of it goes with it.
fn tell(turn: &mut Turn<'_, impl Rows>, key: Key) {
    let object = match key {
        Key::Email(user, email) => Object::Message(user, email),
        Key::Folder(user, folder) => Object::Folder(user, folder),
        Key::Label(user, label) => Object::Label(user, label),
        Key::Session(user, hash) => Object::Session(user, hash),
        _ => return,
    };
    tail::push(turn, object, Verb::Deleted, ModSeq(0));
}

/// Refuses what is meant for an account that is being deleted and is not.
pub(crate) fn check_deleting(reader: &impl Reader, user: UserId) -> Result<(), Stop> {
    match row::get::<AccountRecord>(reader, Key::Account(user))? {
        Some(account) if account.state() == AccountState::Deleting => Ok(()),
        Some(_) => Err(refuse(Refusal::Conflict, format!("user {user} is not being deleted"))),
        None => Err(refuse(Refusal::UnknownUser, format!("user {user} has no mailbox in this shard"))),
    }
}

/// Whether no row of the user is left but the account's own.
pub(crate) fn has_nothing(reader: &impl Reader, user: UserId) -> Result<bool, Broken> {
    for table in Table::ALL.iter().filter(|table| table.is_of_mailbox()) {
        if reader.scan(&KeyRange::user(*table, user), Direction::Forward).next().transpose()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}
