//! What was deleted goes from the disk. A row that is deleted stays in the database's files until they are rewritten, and what
//! came in stays in the log's until they are used again: for an account that was deleted that is too long.
//!
//! Within [`VACUUM_WITHIN`] of the end of a deletion, every node that has a replica of its shard, or of the directory shard
//! that had its address, rewrites its log and its state once; deletions of a whole week share it. When that was done last is
//! in a file of the node's directory: losing it costs one rewrite too many.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_raft::GroupError;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::replicas::Replicas;
use crate::scan::ScanReader;
use crate::search::Search;

/// How long what was deleted may stay on the disk, beside the time that the rewrite takes.
pub(crate) const VACUUM_WITHIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(30 * 60);
/// The file that tells when the last one began, milliseconds since the Unix epoch.
const FILE: &str = "vacuumed";

/// Rewrites what this node has on its disk. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Vacuum {
    replicas: Replicas,
    search: Search,
    file: Arc<Path>,
    /// One at a time.
    turn: Arc<Mutex<()>>,
}

impl Vacuum {
    pub(crate) fn new(replicas: Replicas, search: Search, dir: PathBuf) -> Self {
        Self { replicas, search, file: dir.join(FILE).into(), turn: Arc::default() }
    }

    /// Rewrites when something that was deleted has waited for long enough.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if self.is_due().await
                && let Err(error) = self.now().await
            {
                tracing::error!(%error, "what was deleted stays on the disk for now");
            }
        }
    }

    /// Rewrites now.
    ///
    /// # Errors
    /// When the disk refuses; what is there stays whole.
    pub(crate) async fn now(&self) -> Result<(), GroupError> {
        let _turn = self.turn.lock().await;
        let began_ms = self.replicas.clock.wall_ms();
        self.search.vacuum(&self.replicas).await;
        self.replicas.host.vacuum().await?;
        if let Err(error) = std::fs::write(&self.file, began_ms.to_string()) {
            tracing::warn!(%error, "it will be done once too often: when it was done cannot be written down");
        }
        metrics::counter!("postrider_node_vacuums_total").increment(1);
        tracing::info!("what was deleted before has gone from the disk");
        Ok(())
    }

    async fn is_due(&self) -> bool {
        let last_ms = std::fs::read_to_string(&self.file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let Some(oldest_ms) = self.oldest_since(last_ms).await else { return false };
        let within_ms = i64::try_from(VACUUM_WITHIN.as_millis()).unwrap_or(i64::MAX);
        self.replicas.clock.wall_ms().saturating_sub(oldest_ms) >= within_ms
    }

    /// When the first deletion ended of those that ended after `since_ms`.
    async fn oldest_since(&self, since_ms: i64) -> Option<i64> {
        let mut oldest: Option<i64> = None;
        for group in self.replicas.host.groups() {
            let shard = ShardId(group.0);
            let Ok(place) = self.replicas.scans.search() else { continue };
            let read = move |rows: &ScanReader<'_>| postrider_shard::oldest_deletion(rows, since_ms);
            match self.replicas.scan(shard, place, read).await {
                Ok(Ok(found)) => oldest = oldest.into_iter().chain(found).min(),
                Ok(Err(error)) => tracing::error!(shard = shard.0, %error, "deletions cannot be looked for"),
                Err(_) => {} // the node is shutting down
            }
        }
        oldest
    }
}
