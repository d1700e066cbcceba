//! A log-out. Nothing happens when the session has gone already.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, SessionRecord};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::session::token_hash;
use crate::store::Rows;
use crate::turn::{Stop, Turn};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CloseSession) -> Result<Made, Stop> {
    let hash = token_hash(&command.token_hash)?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let key = Key::Session(mailbox.user, hash);
    if row::get::<SessionRecord>(turn.rows, key)?.is_some() {
        mailbox.account.sessions = mailbox
            .account
            .sessions
            .checked_sub(1)
            .ok_or_else(|| Broken::corrupt(Key::Account(mailbox.user), "sessions would fall below zero"))?;
        row::delete(turn.rows, key);
        mailbox.close(turn);
    }
    Ok(Made::Done(pb::Done {}))
}
