//! Application passwords: what a user's programs have instead of his own.
//!
//! Invariant: all of one user's have one salt, since a server names the salt before it knows which of them a program has
//! (RFC 5802 section 5.1).

use postrider_api::id::{AppPasswordId, UserId};
use postrider_api::limit::{SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN};
use postrider_api::pb::{AppPasswordRecord, AppScope, ScramKeys};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Reader};
use crate::turn::{Stop, malformed};
use crate::{Broken, row};

/// Every scope there is.
const SCOPES: u32 = AppScope::SmtpSubmission as u32 | AppScope::Imap as u32;
/// A salt, bytes.
const SALT_BYTES: usize = 16;
/// A key of SCRAM-SHA-256, bytes.
const KEY_BYTES: usize = 32;

/// All of a user's.
pub(crate) fn all(reader: &impl Reader, user: UserId) -> Result<Vec<(AppPasswordId, AppPasswordRecord)>, Broken> {
    let mut all = Vec::new();
    for found in reader.scan(&KeyRange::user(Table::AppPasswords, user), Direction::Forward) {
        let (key, value) = found?;
        match row::decode_row::<AppPasswordRecord>(key, value)? {
            (Key::AppPassword(_, id), record) => all.push((id, record)),
            (other, _) => return Err(Broken::corrupt(other, "stands in the range of app_passwords")),
        }
    }
    Ok(all)
}

/// Refuses scopes that there are not, and none at all.
pub(crate) fn check_scopes(scopes: u32) -> Result<(), Stop> {
    match scopes != 0 && scopes & !SCOPES == 0 {
        true => Ok(()),
        false => Err(malformed(format!("scopes: {scopes:#x} is none of bits {SCOPES:#x}"))),
    }
}

/// Refuses keys that no password was derived to.
pub(crate) fn check_keys(keys: &ScramKeys) -> Result<(), Stop> {
    if keys.salt.len() != SALT_BYTES {
        return Err(malformed(format!("keys.salt: {SALT_BYTES} bytes are wanted")));
    }
    if keys.stored_key.len() != KEY_BYTES || keys.server_key.len() != KEY_BYTES {
        return Err(malformed(format!("keys.stored_key, keys.server_key: {KEY_BYTES} bytes are wanted")));
    }
    if !(SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(&keys.iterations) {
        return Err(malformed(format!("keys.iterations: {SCRAM_ITERATIONS_MIN} to {SCRAM_ITERATIONS_MAX}")));
    }
    Ok(())
}
