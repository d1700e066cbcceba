//! Addresses of deleted accounts, until they are free again.

use postrider_api::id::{ModSeq, ShardId, UserId};
use postrider_api::pb::{AddressRecord, ShardKind};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::Turn;
use crate::{Broken, row};

/// Between two looks for addresses that are free again, milliseconds.
const TRIM_EVERY_MS: i64 = 10_000;
/// Addresses that one command frees.
const TRIM_ROWS_MAX: usize = 64;

/// Removes what has been in quarantine for long enough, a bounded number at a time.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    let trimmed_ms = turn.state.quarantine_trimmed_ms;
    let is_directory = ShardId::kind(&turn.shard) == Some(ShardKind::Directory);
    if !is_directory || turn.now.saturating_sub(trimmed_ms) < TRIM_EVERY_MS {
        return Ok(());
    }
    let mut over = Vec::new();
    let range = KeyRange::expiring(Table::Quarantine, trimmed_ms, turn.now);
    for found in turn.rows.scan(&range, Direction::Forward).take(TRIM_ROWS_MAX) {
        match Key::decode(found?.0.as_ref())? {
            Key::QuarantineExpiry(ms, hash) => over.push((ms, hash)),
            other => return Err(Broken::corrupt(other, "stands in the range of quarantine_by_expiry")),
        }
    }
    turn.state.quarantine_trimmed_ms = match over.last() {
        // Others may be free in the same millisecond.
        Some((ms, _)) if over.len() == TRIM_ROWS_MAX => ms - 1,
        _ => turn.now,
    };
    for (ms, hash) in over {
        let key = Key::Address(hash);
        let record: AddressRecord = row::need(turn.rows, key)?;
        let user: UserId = row::id(key, &record.user_id)?;
        row::delete(turn.rows, key);
        row::delete(turn.rows, Key::UserAddress(user, hash));
        row::delete(turn.rows, Key::QuarantineExpiry(ms, hash));
        tail::push(turn, Object::Address(user, hash), Verb::Deleted, ModSeq(0));
    }
    Ok(())
}
