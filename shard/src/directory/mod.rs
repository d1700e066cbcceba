//! The directory: which user and shard an address belongs to.
//!
//! Sign-up is `Reserve` here, `CreateAccount` in the mailbox shard, `Activate` here. Whoever finds it half done carries it on:
//! each step answers the same when it comes again. A reservation that nobody carried on is free again after
//! [`RESERVATION_MS`].
//!
//! The end of an account is `Close` here, which turns mail away, its deletion in the mailbox shard, `Retire` here: nobody gets
//! the address for [`ADDRESS_QUARANTINE_MS`], so that mail which is meant for who had it does not reach who has it next.
//!
//! Addresses come in canonical form: the tables behind that form (IDNA) change with the library's version, so it is made
//! before proposing.

pub(crate) mod activate_address;
pub(crate) mod close_address;
pub(crate) mod locate_user;
pub(crate) mod look_up_address;
pub(crate) mod quarantine;
pub(crate) mod release_address;
pub(crate) mod reserve_address;
pub(crate) mod retire_address;
pub(crate) mod suppression;

use postrider_api::id::UserId;
use postrider_api::limit::ADDRESS_BYTES_MAX;
#[cfg(doc)]
use postrider_api::limit::ADDRESS_QUARANTINE_MS;
use postrider_api::pb::{AddressRecord, AddressStatus, Refusal};

use crate::key::{Key, NameHash, name_hash};
use crate::store::Reader;
use crate::turn::{Stop, malformed, refuse};
use crate::{Broken, row};

/// How long an address stays reserved for a sign-up that does not go on, milliseconds.
const RESERVATION_MS: i64 = 15 * 60 * 1000;

/// Checks what can be checked of an address without tables.
fn check_address(address: &str) -> Result<(), Stop> {
    let has_sides = address.rsplit_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    if !has_sides || address.len() > ADDRESS_BYTES_MAX {
        return Err(malformed(format!("address: local-part@domain of at most {ADDRESS_BYTES_MAX} bytes is wanted")));
    }
    if address.bytes().any(|byte| byte <= b' ' || byte == 0x7f || byte.is_ascii_uppercase()) {
        return Err(malformed("address: the canonical form has no spaces, control characters or upper-case letters"));
    }
    Ok(())
}

/// The hash by which a command names an address.
fn address_hash(bytes: &[u8]) -> Result<NameHash, Stop> {
    bytes.try_into().map_err(|_| malformed("address_hash: 32 bytes are wanted"))
}

/// The row under a hash, if this user holds it; refused when another does.
fn held_under(reader: &impl Reader, hash: NameHash, user: UserId) -> Result<Option<AddressRecord>, Stop> {
    match row::get::<AddressRecord>(reader, Key::Address(hash))? {
        Some(record) if record.user_id != user.0[..] => {
            Err(refuse(Refusal::AddressTaken, "address_hash: it belongs to another user"))
        }
        found => Ok(found),
    }
}

fn find(reader: &impl Reader, address: &str) -> Result<Option<AddressRecord>, Broken> {
    let key = Key::Address(name_hash(address));
    match row::get::<AddressRecord>(reader, key)? {
        // Only the hash of it is left.
        Some(record) if record.status() == AddressStatus::Quarantined => Ok(Some(record)),
        Some(record) if record.address != address => Err(Broken::corrupt(key, "holds another address")),
        found => Ok(found),
    }
}
