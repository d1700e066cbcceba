//! An address is free again. Nothing happens when nobody holds it.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressStatus};

use crate::directory::{address_hash, held_under};
use crate::key::Key;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ReleaseAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    // One whose account was deleted has an end of its own.
    let hash = address_hash(&command.address_hash)?;
    let held = held_under(turn.rows, hash, user)?
        .filter(|record| !matches!(record.status(), AddressStatus::Closed | AddressStatus::Quarantined));
    if held.is_some() {
        row::delete(turn.rows, Key::Address(hash));
        row::delete(turn.rows, Key::UserAddress(user, hash));
        tail::push(turn, Object::Address(user, hash), Verb::Deleted, ModSeq(0));
    }
    Ok(Made::Done(pb::Done {}))
}
