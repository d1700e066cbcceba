//! The mailbox is there: mail to the address may be accepted.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressRecord, AddressStatus, Refusal};

use crate::directory::{check_address, find};
use crate::key::{Key, name_hash};
use crate::row;
use crate::store::{Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ActivateAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let mut record = held_by(turn.rows, &command.address, user)?
        .ok_or_else(|| refuse(Refusal::UnknownAddress, "address: it is not reserved"))?;
    // A sign-up that is resumed long after its account was deleted brings nothing back.
    if matches!(record.status(), AddressStatus::Closed | AddressStatus::Quarantined) {
        return Err(refuse(Refusal::Conflict, "address: its account was deleted"));
    }
    record.set_status(AddressStatus::Active);
    let hash = name_hash(&command.address);
    row::put(turn.rows, Key::Address(hash), &record);
    tail::push(turn, Object::Address(user, hash), Verb::Updated, ModSeq(0));
    Ok(Made::Done(pb::Done {}))
}

/// The address's row, if this user holds it; refused when another does.
pub(crate) fn held_by(reader: &impl Reader, address: &str, user: UserId) -> Result<Option<AddressRecord>, Stop> {
    check_address(address)?;
    match find(reader, address)? {
        Some(record) if record.user_id != user.0[..] => {
            Err(refuse(Refusal::AddressTaken, "address: it belongs to another user"))
        }
        found => Ok(found),
    }
}
