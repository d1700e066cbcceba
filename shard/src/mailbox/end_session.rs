//! One of the user's sessions ends, by the id under which he sees it. At most [`SESSIONS_MAX`] are looked through.
//!
//! [`SESSIONS_MAX`]: postrider_api::limit::SESSIONS_MAX

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};
use postrider_api::request::session_id;

use crate::mailbox::account::Mailbox;
use crate::mailbox::session;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::EndSession) -> Result<Made, Stop> {
    let wanted: [u8; 16] =
        command.session_id.as_ref().try_into().map_err(|_| malformed("session_id: 16 bytes are wanted"))?;
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let open = session::all(turn.rows, mailbox.user)?;
    let hash = open.into_iter().map(|(hash, _)| hash).find(|hash| session_id(hash) == wanted);
    let Some(hash) = hash else { return Err(refuse(Refusal::UnknownSession, "session_id: there is no such session")) };
    session::end(turn, &mut mailbox, hash)?;
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}
