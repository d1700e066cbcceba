//! The account behind an address is gone. What is left of the address is its hash, for as long as nobody else may have it.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::limit::ADDRESS_QUARANTINE_MS;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressRecord, AddressStatus, Refusal};

use crate::directory::{address_hash, held_under};
use crate::key::Key;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RetireAddress) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let hash = address_hash(&command.address_hash)?;
    let record = held_under(turn.rows, hash, user)?
        .ok_or_else(|| refuse(Refusal::UnknownAddress, "address_hash: nobody has it"))?;
    if record.status() != AddressStatus::Quarantined {
        let retired = AddressRecord {
            address: String::new(),
            status: AddressStatus::Quarantined.into(),
            reserved_ms: turn.now,
            ..record
        };
        row::put(turn.rows, Key::Address(hash), &retired);
        tail::push(turn, Object::Address(user, hash), Verb::Updated, ModSeq(0));
        row::put_empty(turn.rows, Key::QuarantineExpiry(turn.now.saturating_add(ADDRESS_QUARANTINE_MS), hash));
    }
    Ok(Made::Done(pb::Done {}))
}
