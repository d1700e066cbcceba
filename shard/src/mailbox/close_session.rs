//! A log-out. Nothing happens when the session has gone already.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, SessionRecord};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::session::{self, token_hash};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CloseSession) -> Result<Made, Stop> {
    let hash = token_hash(&command.token_hash)?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if row::get::<SessionRecord>(turn.rows, Key::Session(mailbox.user, hash))?.is_some() {
        session::end(turn, &mut mailbox, hash)?;
        mailbox.close(turn);
    }
    Ok(Made::Done(pb::Done {}))
}
