//! The follower that keeps the indexes: a new message is read into terms once, and nothing that changes about it later touches it again.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postrider_api::id::{EmailId, ShardId, UserId};
use postrider_api::pb::ShardKind;
use postrider_shard::Broken;
use postrider_shard::store::Reader;
use postrider_shard::tail::{Object, Verb};
use tantivy::TantivyError;

use super::index::Doc;
use super::pace::Pace;
use super::shards::Progress;
use super::{Inner, build, extract, schema};
use crate::follow::{Batch, FollowError, Follower, Whole};

/// What is pending of one shard is committed at the latest when it takes so much, bytes.
const PENDING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Of all shards together: the largest is committed.
const ALL_PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// While it cannot be committed (a full disk), nothing more is taken in beyond this, bytes: queries read the rows instead.
const STUCK_BYTES_MAX: usize = 2 * PENDING_BYTES_MAX;
/// And when it has been pending for so long.
const PENDING_TIME_MAX: Duration = Duration::from_secs(10);
/// Messages between two rests.
const STEP: u32 = 16;

/// The watermark of a shard that has no mailboxes: it is always up to date. A follower goes on behind it.
const NOTHING_TO_INDEX: u64 = u64::MAX - 1;

/// The follower.
pub(crate) struct Indexer {
    inner: Arc<Inner>,
    builds: Vec<JoinHandle<()>>,
}

impl Indexer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, builds: Vec::new() }
    }

    fn keep_one(&self, shard: ShardId) -> Result<(), FollowError> {
        self.inner.shards.commit(shard).map_err(|error| {
            // It may have to be built anew.
            self.inner.wake(shard);
            self.kept(shard, error)
        })
    }

    fn kept(&self, shard: ShardId, error: TantivyError) -> FollowError {
        let source = match error {
            TantivyError::IoError(source) => io::Error::new(source.kind(), source.to_string()),
            other => io::Error::other(other.to_string()),
        };
        FollowError::Keep { path: self.inner.shards.dir(shard), source }
    }

    /// Commits the largest of all, where all together are too much.
    fn relieve(&self) -> Result<(), FollowError> {
        let pending: Vec<(usize, ShardId)> =
            self.inner.shards.all().into_iter().map(|(shard, state)| (state.lock().pending.bytes, shard)).collect();
        let total: usize = pending.iter().map(|(bytes, _)| bytes).sum();
        metrics::gauge!("postrider_node_search_pending_bytes").set(total as f64);
        match pending.into_iter().max() {
            Some((_, largest)) if total > ALL_PENDING_BYTES_MAX => self.keep_one(largest),
            _ => Ok(()),
        }
    }
}

impl Follower for Indexer {
    fn name(&self) -> &'static str {
        "search"
    }

    fn shards(&self) -> Vec<ShardId> {
        self.inner.shards.kept()
    }

    fn watermark(&self, shard: ShardId) -> Option<u64> {
        match shard.kind() {
            Some(ShardKind::Mailbox) => self.inner.shards.watermark(shard),
            _ => Some(NOTHING_TO_INDEX),
        }
    }

    fn follow(&mut self, shard: ShardId, batch: &Batch<'_>) -> Result<(), FollowError> {
        let state = self.inner.shards.state(shard);
        // What cannot be written is not taken in without end.
        self.relieve()?;
        if state.lock().pending.bytes >= STUCK_BYTES_MAX {
            self.keep_one(shard)?;
        }
        let (mut pace, mut read_now) = (Pace::begin(), 0_u32);
        for change in batch.changes {
            match (change.object, change.verb) {
                (Object::Message(user, email), Verb::Created) => {
                    if let Some(doc) = read(batch.rows, user, email, change.modseq.0)? {
                        metrics::counter!("postrider_node_search_documents_total", "verb" => "added").increment(1);
                        state.lock().pending.add(doc);
                        read_now += 1;
                        if read_now.is_multiple_of(STEP) {
                            pace.rest();
                        }
                    }
                }
                (Object::Message(..), Verb::Updated) => {
                    // The text of a message never changes, and what changes is not in the index.
                    metrics::counter!("postrider_node_search_documents_total", "verb" => "passed_by").increment(1);
                }
                (Object::Message(user, email), Verb::Deleted) => {
                    metrics::counter!("postrider_node_search_documents_total", "verb" => "deleted").increment(1);
                    state.lock().pending.delete(user, schema::key(user, email));
                }
                (Object::Account(user), Verb::Deleted) => {
                    state.lock().pending.delete_all(user);
                    self.inner.mailboxes.forget(shard, user);
                }
                _ => {}
            }
        }
        let bytes = {
            let mut state = state.lock();
            state.through = Some(batch.through);
            if !state.pending.is_empty() {
                state.since.get_or_insert_with(Instant::now);
            }
            state.pending.bytes
        };
        if bytes >= PENDING_BYTES_MAX
            && let Err(error) = self.keep_one(shard)
        {
            tracing::error!(shard = shard.0, %error, "the search index cannot be written; mail is not held up by that");
            metrics::counter!("postrider_node_search_failures_total").increment(1);
        }
        // After a commit failed, what a query held may have to be read again.
        if state.lock().through == Some(batch.through) { Ok(()) } else { Err(FollowError::Stopping) }
    }

    fn rebuild(&mut self, shard: ShardId, whole: &Whole<'_>) -> Result<(), FollowError> {
        let state = self.inner.shards.state(shard);
        {
            let mut state = state.lock();
            if state.building.is_some() {
                return Err(FollowError::Later);
            }
            self.inner.shards.lose(shard, &mut state);
            state.building = Some(Progress::default());
        }
        tracing::info!(shard = shard.0, reason = ?whole.reason, "the search index is built anew from the rows");
        let (inner, gone) = (self.inner.clone(), whole.gone.clone());
        let build = std::thread::Builder::new().name("search-build".to_owned()).spawn(move || {
            build::build(&inner, shard, &gone);
        });
        match build {
            Ok(build) => {
                self.builds.retain(|build| !build.is_finished());
                self.builds.push(build);
                Err(FollowError::Later)
            }
            Err(source) => {
                state.lock().building = None;
                Err(FollowError::Keep { path: self.inner.shards.dir(shard), source })
            }
        }
    }

    fn restored(&mut self, shard: ShardId) {
        self.inner.mailboxes.forget_shard(shard);
    }

    fn removed(&mut self, shard: ShardId) -> Result<(), FollowError> {
        self.inner.mailboxes.forget_shard(shard);
        let path = self.inner.shards.dir(shard);
        self.inner.shards.forget(shard).map_err(|source| FollowError::Keep { path, source })
    }

    fn keep(&mut self, leaving: bool) -> Result<bool, FollowError> {
        let (mut is_all, mut failed) = (true, None);
        for (shard, state) in self.inner.shards.all() {
            let due = {
                let state = state.lock();
                let due = state.since.is_some_and(|since| leaving || since.elapsed() >= PENDING_TIME_MAX);
                is_all &= state.since.is_none() || due;
                due
            };
            if due && let Err(error) = self.keep_one(shard) {
                is_all = false;
                failed = Some(error);
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(is_all),
        }
    }
}

/// The node shuts down: what is being built reads the database.
impl Drop for Indexer {
    fn drop(&mut self) {
        for build in self.builds.drain(..) {
            // A panic was told of when it happened.
            drop(build.join());
        }
    }
}

/// A message as a document; `None` where it is not there any more.
pub(super) fn read(rows: &impl Reader, user: UserId, email: EmailId, sequence: u64) -> Result<Option<Doc>, Broken> {
    let found = extract::message(rows, user, email)?;
    Ok(found.map(|(record, words)| Doc { user, key: schema::key(user, email), sequence, size: record.size, words }))
}
