//! Where a new account goes: of two shards of its domain's policy at home in this frontend's region, drawn by chance, the one that has more room.
//!
//! So a new shard fills up sooner than the others, and nobody has to know what all of them hold.

use std::time::Duration;

use postrider_api::address::Address;
use postrider_api::env;
use postrider_api::id::{ShardId, UserId, ZoneId};
use postrider_api::pb::{self, answer::Answer, query::Query};
use postrider_router::ReadMode;

use crate::account::Accounts;

/// What asking a shard for its room may take: one that is slow has none.
const ROOM_MAX: Duration = Duration::from_millis(800);

impl Accounts {
    /// A new user's id and shard; `None`: there is no shard that the domain may use.
    pub(super) async fn place(&self, zone: ZoneId, address: &Address) -> Option<(UserId, ShardId)> {
        let draw = || {
            let user = UserId::new(zone, address.slot(), env::random(&*self.entropy));
            Some((user, self.cluster.place_user(&self.region, address.domain(), user)?))
        };
        let (first, second) = (draw()?, draw()?);
        if first.1 == second.1 {
            return Some(first);
        }
        let (held, other) = tokio::join!(self.held(first.1), self.held(second.1));
        Some(if has_more_room(other, held) { second } else { first })
    }

    /// Bytes and users of a shard, where it says so in time.
    async fn held(&self, shard: ShardId) -> Option<(u64, u64)> {
        let stats = Query::GetShardStats(pb::GetShardStats {});
        let answered = self.cluster.query(shard, None, stats, ReadMode::StaleOk, 0, ROOM_MAX).await.ok()?;
        match answered.answer.answer {
            Some(Answer::ShardStats(stats)) => Some((stats.bytes, stats.users)),
            _ => None,
        }
    }
}

/// Whether a shard with `other` should be taken instead of one with `held`.
fn has_more_room(other: Option<(u64, u64)>, held: Option<(u64, u64)>) -> bool {
    match (other, held) {
        (Some(other), Some(held)) => other < held,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptier_one_is_taken_and_one_that_is_silent_is_not() {
        assert!(has_more_room(Some((5, 9)), Some((6, 1))));
        assert!(has_more_room(Some((0, 1)), Some((0, 2))), "those that have nothing yet, by their users");
        assert!(!has_more_room(Some((6, 1)), Some((5, 9))) && !has_more_room(Some((5, 9)), Some((5, 9))));
        assert!(has_more_room(Some((6, 1)), None) && !has_more_room(None, Some((6, 1))) && !has_more_room(None, None));
    }
}
