//! Which shards had no quorum a moment ago, so that not everybody waits for them in turn.
//!
//! Invariant: a hint and no truth. It shortens waiting and never decides where a message is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::env::Clock;
use postrider_api::id::ShardId;

/// Shards that are remembered (P-13).
const SHARDS_MAX: usize = 10_000;

/// Remembers troubled shards for a while.
pub(crate) struct Troubled {
    clock: Arc<dyn Clock>,
    lasts: Duration,
    since: Mutex<BTreeMap<ShardId, Duration>>,
}

impl Troubled {
    /// Each is remembered for `lasts`.
    pub(crate) fn new(clock: Arc<dyn Clock>, lasts: Duration) -> Self {
        Self { clock, lasts, since: Mutex::default() }
    }

    /// Whether the shard had no quorum a moment ago.
    pub(crate) fn has(&self, shard: ShardId) -> bool {
        let now = self.clock.monotonic();
        self.since.lock().get(&shard).is_some_and(|since| now.saturating_sub(*since) < self.lasts)
    }

    /// The shard has no quorum now.
    pub(crate) fn add(&self, shard: ShardId) {
        let now = self.clock.monotonic();
        let mut since = self.since.lock();
        if since.len() >= SHARDS_MAX {
            since.retain(|_, since| now.saturating_sub(*since) < self.lasts);
        }
        if since.len() < SHARDS_MAX {
            since.insert(shard, now);
        }
    }

    /// The shard answered.
    pub(crate) fn remove(&self, shard: ShardId) {
        self.since.lock().remove(&shard);
    }
}
