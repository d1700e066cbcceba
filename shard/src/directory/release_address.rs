//! An address is free again. Nothing happens when nobody holds it.

use postrider_api::id::UserId;
use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::directory::activate_address::held_by;
use crate::key::{Key, name_hash};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, id};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ReleaseAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    if held_by(turn.rows, &command.address, user)?.is_some() {
        let hash = name_hash(&command.address);
        row::delete(turn.rows, Key::Address(hash));
        row::delete(turn.rows, Key::UserAddress(user, hash));
    }
    Ok(Made::Done(pb::Done {}))
}
