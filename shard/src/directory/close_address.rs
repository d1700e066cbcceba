//! The account behind an address is being deleted: mail to it is turned away from now on, and the address is not free yet.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressStatus, Refusal};

use crate::directory::{address_hash, held_under};
use crate::key::Key;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CloseAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let hash = address_hash(&command.address_hash)?;
    let mut record = held_under(turn.rows, hash, user)?
        .ok_or_else(|| refuse(Refusal::UnknownAddress, "address_hash: nobody has it"))?;
    if record.status() != AddressStatus::Quarantined {
        record.set_status(AddressStatus::Closed);
        row::put(turn.rows, Key::Address(hash), &record);
        tail::push(turn, Object::Address(user, hash), Verb::Updated, ModSeq(0));
    }
    Ok(Made::Done(pb::Done {}))
}
