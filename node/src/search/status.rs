//! What an operator is told of an index, and may have done to it.

use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_shard::tail;

use super::Search;
use super::index::Opened;
use crate::replicas::Replicas;

impl Search {
    /// How the index of each mailbox shard of this node is doing.
    pub(crate) fn status(&self, replicas: &Replicas) -> Vec<pb::SearchStatus> {
        if !self.inner.enabled {
            return Vec::new();
        }
        let shards = replicas.host.groups().into_iter().map(|group| ShardId(group.0));
        let mailboxes = shards.filter(|shard| shard.kind() == Some(pb::ShardKind::Mailbox));
        mailboxes.map(|shard| self.of(replicas, shard)).collect()
    }

    fn of(&self, replicas: &Replicas, shard: ShardId) -> pb::SearchStatus {
        let newest = replicas.read(shard, |rows| tail::newest(rows)).ok().flatten().unwrap_or(0);
        let view = Opened::open(&self.inner.shards.dir(shard)).and_then(|opened| opened.view()).ok();
        let state = self.inner.shards.state(shard);
        let state = state.lock();
        let through = state.through.unwrap_or(0);
        pb::SearchStatus {
            shard: shard.0,
            documents: view.as_ref().map_or(0, |view| view.docs),
            bytes: view.as_ref().map_or(0, |view| view.bytes),
            committed: state.committed.unwrap_or(0),
            watermark: through,
            newest,
            pending_bytes: state.pending.bytes as u64,
            rebuilding: state.building.is_some() || state.through.is_none(),
            rebuilt: state.building.map_or(0, |progress| progress.done),
            to_rebuild: state.building.map_or(0, |progress| progress.of),
        }
    }

    /// Has an index thrown away and built anew. Whether there are any here.
    pub(crate) fn rebuild(&self, shard: ShardId) -> bool {
        if !self.inner.enabled {
            return false;
        }
        self.inner.shards.state(shard).lock().damaged = true;
        self.inner.wake(shard);
        true
    }
}
