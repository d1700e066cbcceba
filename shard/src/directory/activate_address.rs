//! The mailbox is there: mail to the address may be accepted.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressStatus, Refusal};

use crate::directory::{address_hash, held_under};
use crate::key::Key;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ActivateAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let hash = address_hash(&command.address_hash)?;
    let mut record = held_under(turn.rows, hash, user)?
        .ok_or_else(|| refuse(Refusal::UnknownAddress, "address_hash: it is not reserved"))?;
    // A sign-up that is resumed long after its account was deleted brings nothing back.
    if matches!(record.status(), AddressStatus::Closed | AddressStatus::Quarantined) {
        return Err(refuse(Refusal::Conflict, "address_hash: its account was deleted"));
    }
    record.set_status(AddressStatus::Active);
    row::put(turn.rows, Key::Address(hash), &record);
    tail::push(turn, Object::Address(user, hash), Verb::Updated, ModSeq(0));
    Ok(Made::Done(pb::Done {}))
}
