//! Search: an index of the words of each mailbox shard on each of its replicas, and the queries that are asked of it.
//!
//! ```text
//!  changes_by_index ──▶ indexer ──▶ pending words ──▶ commit (with its watermark) ──▶ view ─┐
//!                                        │                                                  ▼
//!  rows of one snapshot ──▶ mailbox: what changes, from the change feed ─────────────────▶ ask ──▶ page
//!                       └─▶ words of what the indexer has not been told of yet ──────────────┘
//! ```
//!
//! The index holds what never changes of a message: its words, under the user's prefix. Whether the message is still there, its folder, its
//! keywords and its labels are joined from the rows at the moment of the query. It is derived: nothing of it is in the log, and it can be
//! deleted at any time.
//!
//! Invariant (P-2): a query sees everything that its replica has applied. A view and what is pending reach up to one index; the rows are
//! read after that, and the words of whatever changed in between are read from them. Where the index is not there, all words are.

mod ask;
mod bits;
mod build;
mod check;
mod extract;
mod fault;
mod index;
mod indexer;
mod mailbox;
mod pace;
mod page;
mod plan;
mod recent;
mod run;
mod schema;
mod shards;
mod snippet;
mod status;
mod suggest;
mod words;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postrider_api::id::ShardId;
use postrider_shard::tail;
use rocksdb::DB;
use tokio_util::sync::CancellationToken;

use crate::follow::Follow;
use crate::replicas::Replicas;
use mailbox::Mailboxes;
use shards::Shards;

pub(crate) use indexer::Indexer;

/// How often it is looked what nobody reads any more.
const TIDY_EVERY: Duration = Duration::from_secs(15);

/// How long a vacuum waits for an index that is behind, and how often it looks.
const VACUUM_PATIENCE: Duration = Duration::from_secs(60);
const VACUUM_LOOKS_EVERY: Duration = Duration::from_millis(20);

/// The indexes of this node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Search {
    inner: Arc<Inner>,
}

struct Inner {
    enabled: bool,
    shards: Shards,
    mailboxes: Mailboxes,
    /// Where indexes are built from, and who is woken when one is there.
    source: OnceLock<(Arc<DB>, Follow)>,
    /// One index is built at a time.
    builds: Mutex<()>,
}

impl Search {
    /// What is in the node's directory; without `enabled` there is no index, and queries read the rows.
    pub(crate) fn open(dir: &Path, enabled: bool) -> Self {
        let shards = Shards::new(dir.join("search"));
        Self {
            inner: Arc::new(Inner {
                enabled,
                shards,
                mailboxes: Mailboxes::default(),
                source: OnceLock::new(),
                builds: Mutex::default(),
            }),
        }
    }

    /// The follower that keeps the indexes, where there are any.
    pub(crate) fn indexer(&self) -> Option<Indexer> {
        self.inner.enabled.then(|| Indexer::new(self.inner.clone()))
    }

    /// Tells where the rows are, and whom to wake when an index has to be built anew.
    pub(crate) fn reads(&self, db: &Arc<DB>, follow: &Follow) {
        // Once, when the node starts.
        drop(self.inner.source.set((db.clone(), follow.clone())));
    }

    /// Takes what was deleted from the disk: segments that have it in them are rewritten. An index of which that cannot be done is thrown
    /// away.
    pub(crate) async fn vacuum(&self, replicas: &Replicas) {
        for shard in self.inner.shards.kept() {
            let newest = replicas.read(shard, |rows| tail::newest(rows)).ok().flatten();
            let began = Instant::now();
            // What was deleted has to be known here first.
            while self.inner.shards.watermark(shard) < newest && began.elapsed() < VACUUM_PATIENCE {
                self.inner.wake(shard);
                tokio::time::sleep(VACUUM_LOOKS_EVERY).await;
            }
            let inner = self.inner.clone();
            let work = move || {
                let is_behind = inner.enabled && inner.shards.watermark(shard) < newest;
                let done = if inner.enabled && !is_behind {
                    inner.shards.vacuum(shard).map_err(|error| error.to_string())
                } else {
                    Err("it is behind".to_owned())
                };
                if let Err(error) = done {
                    tracing::warn!(
                        shard = shard.0,
                        error,
                        "a search index is built anew, to be rid of what was deleted"
                    );
                    inner.shards.lose(shard, &mut inner.shards.state(shard).lock());
                    inner.wake(shard);
                }
            };
            // A panic has said so.
            drop(tokio::task::spawn_blocking(work).await);
        }
    }

    /// Closes what nobody reads any more, for as long as the node runs.
    pub(crate) async fn tidy(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_some() {
            let search = self.clone();
            // Unmapping files may take a moment.
            drop(
                tokio::task::spawn_blocking(move || {
                    search.inner.shards.tidy();
                    search.inner.mailboxes.tidy();
                })
                .await,
            );
        }
    }
}

impl Inner {
    fn wake(&self, shard: ShardId) {
        if let Some((_, follow)) = self.source.get() {
            follow.changed(shard);
        }
    }
}
