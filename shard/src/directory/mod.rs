//! The directory: which user and shard an address belongs to.
//!
//! Sign-up is `Reserve` here, `CreateAccount` in the mailbox shard, `Activate` here. Whoever finds it half done carries it on:
//! each step answers the same when it comes again. A reservation that nobody carried on is free again after
//! [`RESERVATION_MS`].
//!
//! Addresses come in canonical form: the tables behind that form (IDNA) change with the library's version, so it is made
//! before proposing.

pub(crate) mod activate_address;
pub(crate) mod locate_user;
pub(crate) mod look_up_address;
pub(crate) mod release_address;
pub(crate) mod reserve_address;

use postrider_api::limit::ADDRESS_BYTES_MAX;
use postrider_api::pb::AddressRecord;

use crate::key::{Key, name_hash};
use crate::store::Reader;
use crate::turn::{Stop, malformed};
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

fn find(reader: &impl Reader, address: &str) -> Result<Option<AddressRecord>, Broken> {
    let key = Key::Address(name_hash(address));
    match row::get::<AddressRecord>(reader, key)? {
        Some(record) if record.address != address => Err(Broken::corrupt(key, "holds another address")),
        found => Ok(found),
    }
}
