//! P-10: recomputes everything that can be derived, and names what differs.
//!
//! Nothing is repaired. A user is checked as a whole, in memory that grows with his messages and not with the shard; what
//! spans users (references to bodies) is compared by sums first, and counted out only where the sums differ.
//!
//! A row that nobody accounts for is found by counting: each table must hold exactly the rows that the checks expected.
//!
//! A row that does not decode is one difference. It is accounted for, and everything that does not depend on it is checked.

mod blobs;
mod bodies;
mod ledger;
mod orphans;
mod queue;
mod shard;
mod threads;
mod user;

use postrider_api::pb::{AccountRecord, AccountState, ShardRecord};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Reader};
use crate::verify::bodies::References;
use crate::verify::ledger::Ledger;
use crate::{Broken, format, row};

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Rows that were looked at.
    pub checked: u64,
    /// A sentence for each difference, with table and key; at most [`DIFFERENCES_MAX`].
    pub differences: Vec<String>,
}

/// Differences that are named; a shard with more is beyond naming them.
pub const DIFFERENCES_MAX: usize = 1000;

/// Compares every counter, index and reference of a shard with what it is derived from.
///
/// # Errors
/// When the store cannot be read, or is of a newer version. Corrupt rows are differences, not errors.
pub fn verify(reader: &impl Reader) -> Result<Verified, Broken> {
    let state: ShardRecord = row::get(reader, Key::Shard)?.unwrap_or_default();
    format::check(&state)?;
    let mut ledger = Ledger::default();
    count_rows(reader, &mut ledger)?;
    orphans::verify(reader, &mut ledger)?;
    let mut references = References::default();
    let mut users = 0;
    for found in reader.scan(&KeyRange::table(Table::Accounts), Direction::Forward) {
        let (key, value) = found?;
        users += 1;
        ledger.expect(Table::Accounts, 1);
        // What does not decode was named when the rows were counted.
        let Ok((Key::Account(user), account)) = row::decode_row::<AccountRecord>(key, value) else { continue };
        if account.state() == AccountState::Deleting {
            orphans::verify_leftovers(reader, user, &mut references, &mut ledger)?;
        } else {
            user::verify(reader, user, &account, &mut references, &mut ledger)?;
        }
    }
    shard::verify(reader, &state, users, &mut references, &mut ledger)?;
    bodies::verify(reader, &state, &references, &mut ledger)?;
    Ok(ledger.close())
}

/// Decodes every row and counts the rows of each table.
fn count_rows(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    for found in reader.scan(&KeyRange::all(), Direction::Forward) {
        let (key, value) = found?;
        match row::check(key.as_ref(), &value) {
            Ok(key) => ledger.count(key.table()),
            Err(broken) => {
                if let Some(table) = key.as_ref().first().copied().and_then(Table::of) {
                    ledger.count(table);
                }
                ledger.differ(broken.to_string());
            }
        }
    }
    Ok(())
}
