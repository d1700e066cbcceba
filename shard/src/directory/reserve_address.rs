//! An address is taken for a user who is signing up.

use postrider_api::id::{ModSeq, ShardId, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AddressRecord, AddressStatus, Refusal, ShardKind};

use crate::directory::{RESERVATION_MS, check_address, find};
use crate::key::{Key, name_hash};
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ReserveAddress) -> Result<Made, Stop> {
    check_address(&command.address)?;
    let user: UserId = id(&command.user_id, "user_id")?;
    if ShardId(command.shard).kind() != Some(ShardKind::Mailbox) {
        return Err(malformed(format!("shard: {} is no mailbox shard", command.shard)));
    }
    let hash = name_hash(&command.address);
    if let Some(record) = find(turn.rows, &command.address)? {
        let holder: UserId = row::id(Key::Address(hash), &record.user_id)?;
        let was_deleted = matches!(record.status(), AddressStatus::Closed | AddressStatus::Quarantined);
        if was_deleted {
            return Err(refuse(Refusal::AddressTaken, "address: its account was deleted, and it is not free yet"));
        }
        if holder == user {
            // The same again: the same answer.
            return Ok(Made::Reserved(pb::Reserved { user_id: record.user_id, shard: record.shard }));
        }
        let abandoned =
            record.status() == AddressStatus::Reserved && turn.now.saturating_sub(record.reserved_ms) >= RESERVATION_MS;
        if !abandoned {
            return Err(refuse(Refusal::AddressTaken, "address: it is taken"));
        }
        row::delete(turn.rows, Key::UserAddress(holder, hash));
        tail::push(turn, Object::Address(holder, hash), Verb::Deleted, ModSeq(0));
    }
    let record = AddressRecord {
        address: command.address.clone(),
        user_id: user.to_bytes(),
        shard: command.shard,
        status: AddressStatus::Reserved.into(),
        reserved_ms: turn.now,
    };
    row::put(turn.rows, Key::Address(hash), &record);
    row::put_empty(turn.rows, Key::UserAddress(user, hash));
    tail::push(turn, Object::Address(user, hash), Verb::Created, ModSeq(0));
    Ok(Made::Reserved(pb::Reserved { user_id: record.user_id, shard: record.shard }))
}
