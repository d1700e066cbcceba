//! Where the commands that made queue entries stand in their traces, so that whoever leases an entry goes on with the trace.
//!
//! In memory alone, on every replica that applied the command: a new leader knows it, a node that was started since does not, and nothing
//! of it is in any row (docs/adr/151-traces-are-decided-at-their-end.md).

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use postrider_api::id::{EntryId, ShardId};
use postrider_api::trace::Context;

/// Entries that a node remembers, of all shards: about 2 MB. The oldest go.
const ENTRIES_MAX: usize = 16_384;

type Key = (ShardId, EntryId);

/// Remembers them.
#[derive(Default)]
pub(crate) struct Trail(Mutex<Known>);

#[derive(Default)]
struct Known {
    contexts: HashMap<Key, Context>,
    order: VecDeque<Key>,
}

impl Trail {
    /// The command that made the entry stands there.
    pub(crate) fn remember(&self, shard: ShardId, entry: EntryId, context: Context) {
        let key = (shard, entry);
        let mut known = self.0.lock();
        if known.contexts.insert(key, context).is_some() {
            // Applied once more, after its shard's state was replaced.
            return;
        }
        known.order.push_back(key);
        if known.order.len() > ENTRIES_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.contexts.remove(&oldest);
        }
    }

    /// Where it stands, if that is known.
    pub(crate) fn of(&self, shard: ShardId, entry: EntryId) -> Option<Context> {
        self.0.lock().contexts.get(&(shard, entry)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(1000);

    #[test]
    fn remembers_the_newest_and_no_more_than_its_limit() {
        let context = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let trail = Trail::default();
        assert_eq!(trail.of(SHARD, EntryId(1)), None);
        for entry in 0..=ENTRIES_MAX as u64 {
            trail.remember(SHARD, EntryId(entry), context);
            trail.remember(SHARD, EntryId(entry), context);
        }
        assert_eq!(trail.of(SHARD, EntryId(0)), None);
        assert_eq!(trail.of(SHARD, EntryId(1)), Some(context));
        assert_eq!(trail.of(ShardId(1001), EntryId(1)), None);
        let known = trail.0.lock();
        assert_eq!((known.contexts.len(), known.order.len()), (ENTRIES_MAX, ENTRIES_MAX));
    }
}
