//! The shard-wide tail of changes (`changes_by_index`): what search and backup follow, by applied index.
//!
//! Whoever falls behind [`ShardRecord::tail_floor`] rebuilds from the rows.
//!
//! [`ShardRecord::tail_floor`]: postrider_api::pb::ShardRecord

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::TailRecord;

use crate::key::{Key, KeyRange};
use crate::store::{Direction, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// Applied indexes that the tail reaches back.
const TAIL_INDEXES_MAX: u64 = 1_000_000;
/// Indexes that wait to be trimmed together: a seek every so many commands, not at each.
const TAIL_INDEXES_SLACK: u64 = 64;
/// Rows that one command trims; more than any command adds on average over the slack, so the tail does not grow.
const TAIL_ROWS_TRIMMED_MAX: usize = 4096;

/// Adds one change of the running command.
pub(crate) fn push(turn: &mut Turn<'_, impl Rows>, user: UserId, modseq: ModSeq) {
    let key = Key::Tail(turn.index, turn.tail_next);
    turn.tail_next += 1;
    row::put(turn.rows, key, &TailRecord { user_id: user.to_bytes(), modseq: modseq.0 });
}

/// Drops what is older than the tail reaches, a bounded number of rows at a time.
pub(crate) fn trim(turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
    trim_to(turn, TAIL_INDEXES_MAX)
}

fn trim_to(turn: &mut Turn<'_, impl Rows>, indexes_max: u64) -> Result<(), Broken> {
    let keep_from = turn.index.saturating_sub(indexes_max);
    if keep_from < turn.state.tail_floor.saturating_add(TAIL_INDEXES_SLACK) {
        return Ok(());
    }
    let range = KeyRange::tail(turn.state.tail_floor, keep_from);
    let mut old = Vec::new();
    for found in turn.rows.scan(&range, Direction::Forward).take(TAIL_ROWS_TRIMMED_MAX) {
        old.push(found?.0);
    }
    turn.state.tail_floor = match old.last() {
        // The index of the last row may have more rows: it stays the floor's.
        Some(last) if old.len() == TAIL_ROWS_TRIMMED_MAX => match Key::decode(last.as_ref())? {
            Key::Tail(index, _) => index,
            other => return Err(Broken::corrupt(other, "stands in the range of changes_by_index")),
        },
        _ => keep_from,
    };
    for key in old {
        turn.rows.delete(key);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{MemoryStore, Reader, Txn};
    use postrider_api::id::ShardId;
    use postrider_api::pb;

    #[test]
    fn the_tail_is_trimmed_in_bounded_steps() {
        let mut store = MemoryStore::new();
        let user = UserId([1; 16]);
        for index in 1..=400u64 {
            let below = store.clone();
            let mut txn = Txn::new(&below);
            let mut turn = Turn::begin(ShardId::MAILBOX_FIRST, &mut txn, index, &pb::Command::default()).unwrap();
            push(&mut turn, user, ModSeq(index));
            push(&mut turn, user, ModSeq(index));
            trim_to(&mut turn, 100).unwrap();
            let state = turn.state;
            row::put(turn.rows, Key::Shard, &state);
            store.write(txn.into_writes());
            let held: Vec<_> = store
                .scan(&KeyRange::table(crate::key::Table::Tail), Direction::Forward)
                .map(|found| Key::decode(found.unwrap().0.as_ref()).unwrap())
                .collect();
            assert!(held.len() as u64 <= 2 * (100 + TAIL_INDEXES_SLACK + 1), "{}", held.len());
            assert!(held.len() as u64 >= 2 * index.min(100));
            assert!(held.iter().all(|key| matches!(key, Key::Tail(i, _) if *i >= state.tail_floor)));
        }
    }
}
