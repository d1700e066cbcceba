//! An application password is revoked: whoever has it has nothing any more.

use postrider_api::id::{AppPasswordId, ModSeq};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AppPasswordRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DeleteAppPassword) -> Result<Made, Stop> {
    let wanted: AppPasswordId = id(&command.app_password_id, "app_password_id")?;
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let key = Key::AppPassword(mailbox.user, wanted);
    if row::get::<AppPasswordRecord>(turn.rows, key)?.is_none() {
        return Err(refuse(Refusal::UnknownAppPassword, "app_password_id: there is no such application password"));
    }
    row::delete(turn.rows, key);
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    Ok(Made::Done(pb::Done {}))
}
