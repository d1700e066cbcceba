//! What this node has of each shard's index: how far it is, what is not committed yet, and a view while somebody reads.
//!
//! Only the follower's thread changes it. A query takes a view and the messages behind it in one moment, and reads the rows after that.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postrider_api::id::{ShardId, UserId};
use tantivy::TantivyError;

use super::index::{Batch, Doc, Opened, View};
use super::schema::DocKey;

/// A view that nobody has asked for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What stands between a shard's committed index and its watermark.
#[derive(Default)]
pub(super) struct Pending {
    docs: BTreeMap<UserId, Vec<Arc<Doc>>>,
    deleted: Vec<DocKey>,
    gone: Vec<UserId>,
    pub(super) bytes: usize,
}

impl Pending {
    pub(super) fn add(&mut self, doc: Doc) {
        self.bytes += doc.bytes();
        self.docs.entry(doc.user).or_default().push(Arc::new(doc));
    }

    pub(super) fn delete(&mut self, user: UserId, key: DocKey) {
        if let Some(docs) = self.docs.get_mut(&user) {
            docs.retain(|doc| doc.key != key);
        }
        self.deleted.push(key);
        self.bytes += size_of::<DocKey>();
    }

    pub(super) fn delete_all(&mut self, user: UserId) {
        self.docs.remove(&user);
        self.gone.push(user);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.docs.is_empty() && self.deleted.is_empty() && self.gone.is_empty()
    }

    /// What came after it.
    fn append(&mut self, mut newer: Self) {
        for (user, mut docs) in std::mem::take(&mut newer.docs) {
            self.docs.entry(user).or_default().append(&mut docs);
        }
        for user in &newer.gone {
            self.docs.remove(user);
        }
        for docs in self.docs.values_mut() {
            docs.retain(|doc| !newer.deleted.contains(&doc.key));
        }
        self.deleted.append(&mut newer.deleted);
        self.gone.append(&mut newer.gone);
        self.bytes += newer.bytes;
    }

    fn of(&self, user: UserId) -> &[Arc<Doc>] {
        self.docs.get(&user).map_or(&[], Vec::as_slice)
    }

    fn batch(&self) -> Batch {
        Batch {
            deleted: self.deleted.clone(),
            gone: self.gone.clone(),
            docs: self.docs.values().flatten().cloned().collect(),
        }
    }
}

/// How a rebuild is getting on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) done: u64,
    pub(super) of: u64,
}

/// One shard's index.
#[derive(Default)]
pub(super) struct State {
    /// The commit on disk is at; `None`: there is none that can be used.
    pub(super) committed: Option<u64>,
    /// The watermark: what is committed, and what is pending.
    pub(super) through: Option<u64>,
    /// While it is being built anew.
    pub(super) building: Option<Progress>,
    pub(super) pending: Pending,
    /// On its way into a commit.
    committing: Option<Arc<(Pending, u64)>>,
    /// Since when something is pending.
    pub(super) since: Option<Instant>,
    view: Option<Arc<View>>,
    used: Option<Instant>,
    looked_at: bool,
    /// Somebody found that it cannot be read.
    pub(super) damaged: bool,
    /// Held by whoever writes the index.
    writing: Arc<Mutex<()>>,
}

/// What a query gets of an index.
pub(super) struct Found {
    /// `None`: nothing has been committed yet.
    pub(super) view: Option<Arc<View>>,
    /// The user's messages that the view does not have.
    pub(super) docs: Vec<Arc<Doc>>,
    /// Both together have everything up to here.
    pub(super) through: u64,
}

/// All shards' indexes.
pub(super) struct Shards {
    dir: PathBuf,
    states: Mutex<BTreeMap<ShardId, Arc<Mutex<State>>>>,
}

impl Shards {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, states: Mutex::default() }
    }

    pub(super) fn dir(&self, shard: ShardId) -> PathBuf {
        self.dir.join(shard.0.to_string())
    }

    /// Where an index is built anew.
    pub(super) fn build_dir(&self, shard: ShardId) -> PathBuf {
        self.dir.join(format!("{}.new", shard.0))
    }

    pub(super) fn state(&self, shard: ShardId) -> Arc<Mutex<State>> {
        self.states.lock().entry(shard).or_default().clone()
    }

    pub(super) fn all(&self) -> Vec<(ShardId, Arc<Mutex<State>>)> {
        self.states.lock().iter().map(|(shard, state)| (*shard, state.clone())).collect()
    }

    /// Shards of which there is something on disk.
    pub(super) fn kept(&self) -> Vec<ShardId> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let name = |entry: std::fs::DirEntry| entry.file_name().to_str().map(str::to_owned);
        let shard = |name: String| name.trim_end_matches(".new").parse().ok().map(ShardId);
        let mut shards: Vec<ShardId> = entries.filter_map(|entry| name(entry.ok()?)).filter_map(shard).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// The watermark; looks what is on disk the first time.
    pub(super) fn watermark(&self, shard: ShardId) -> Option<u64> {
        let state = self.state(shard);
        let mut state = state.lock();
        if state.damaged {
            self.lose(shard, &mut state);
        }
        if !state.looked_at {
            state.looked_at = true;
            match open(&self.dir(shard)) {
                Ok(Some(view)) => {
                    (state.committed, state.through) = (Some(view.through), Some(view.through));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(shard = shard.0, %error, "the search index cannot be read: it is built anew");
                    self.lose(shard, &mut state);
                }
            }
        }
        state.through
    }

    /// Throws away what is there of an index.
    pub(super) fn lose(&self, shard: ShardId, state: &mut State) {
        let (building, writing) = (state.building, state.writing.clone());
        *state = State { looked_at: true, building, writing, ..State::default() };
        remove(&self.dir(shard));
    }

    /// The replica went.
    pub(super) fn forget(&self, shard: ShardId) -> std::io::Result<()> {
        self.states.lock().remove(&shard);
        for dir in [self.dir(shard), self.build_dir(shard)] {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What a query needs; `None` where the index is not there. Whoever finds that it cannot be read says so with `true`.
    pub(super) fn find(&self, shard: ShardId, user: UserId) -> Result<Option<Found>, bool> {
        let state = self.state(shard);
        let mut state = state.lock();
        let Some(through) = state.through.filter(|_| !state.damaged) else { return Ok(None) };
        let view = match (&state.view, state.committed) {
            (Some(view), _) => Some(view.clone()),
            (None, None) => None,
            (None, Some(_)) => match open(&self.dir(shard)) {
                Ok(Some(view)) => Some(Arc::new(view)),
                other => {
                    let error = other.err().map_or_else(|| "it is gone".to_owned(), |error| error.to_string());
                    tracing::warn!(shard = shard.0, error, "the search index cannot be read: it is built anew");
                    state.damaged = true;
                    return Err(true);
                }
            },
        };
        state.view.clone_from(&view);
        state.used = Some(Instant::now());
        let viewed = view.as_ref().map(|view| view.through);
        let committing = state.committing.as_ref().filter(|committing| Some(committing.1) > viewed);
        let mut docs = committing.map(|committing| committing.0.of(user).to_vec()).unwrap_or_default();
        docs.extend_from_slice(state.pending.of(user));
        Ok(Some(Found { view, docs, through }))
    }

    /// Commits what is pending.
    pub(super) fn commit(&self, shard: ShardId) -> Result<(), TantivyError> {
        let state = self.state(shard);
        let writing = state.lock().writing.clone();
        let _writing = writing.lock();
        let (committing, through) = {
            let mut state = state.lock();
            let Some(through) = state.through else { return Ok(()) };
            if state.committed == Some(through) {
                return Ok(());
            }
            let pending = std::mem::take(&mut state.pending);
            let committing = Arc::new((pending, through));
            state.committing = Some(committing.clone());
            (committing, through)
        };
        let has_index = state.lock().committed.is_some();
        let dir = self.dir(shard);
        let written = || {
            let opened = if has_index {
                Opened::open(&dir)?
            } else {
                // What an attempt has left that failed.
                remove(&dir);
                Opened::create(&dir)?
            };
            opened.commit(&committing.0.batch(), through)?;
            opened.view()
        };
        let written = written();
        let mut state = state.lock();
        state.committing = None;
        match written {
            Ok(view) => {
                state.committed = Some(through);
                state.since = (!state.pending.is_empty()).then(Instant::now);
                let is_used = state.used.is_some_and(|used| used.elapsed() < IDLE);
                state.view = is_used.then(|| Arc::new(view));
                Ok(())
            }
            Err(error) => {
                match Arc::try_unwrap(committing) {
                    Ok((mut pending, _)) => {
                        pending.append(std::mem::take(&mut state.pending));
                        state.pending = pending;
                    }
                    // A query looks at it: it is read again.
                    Err(_) => (state.through, state.pending) = (state.committed, Pending::default()),
                }
                // What was there may be as good as before, or not be there any more.
                if has_index && open(&dir).ok().flatten().is_none_or(|view| Some(view.through) != state.committed) {
                    self.lose(shard, &mut state);
                }
                Err(error)
            }
        }
    }

    /// Rewrites what has documents in it that were deleted.
    pub(super) fn vacuum(&self, shard: ShardId) -> Result<(), TantivyError> {
        self.commit(shard)?;
        let state = self.state(shard);
        let writing = state.lock().writing.clone();
        let _writing = writing.lock();
        if state.lock().committed.is_some() {
            // A view holds the files of what was.
            state.lock().view = None;
            Opened::open(&self.dir(shard))?.vacuum()?;
            state.lock().view = None;
        }
        Ok(())
    }

    /// Closes what nobody reads.
    pub(super) fn tidy(&self) {
        for (_, state) in self.all() {
            let mut state = state.lock();
            if state.used.is_some_and(|used| used.elapsed() >= IDLE) {
                (state.view, state.used) = (None, None);
            }
        }
    }

    /// Puts what was built in the place of what there was; not where the replica was removed meanwhile.
    pub(super) fn replace(&self, shard: ShardId, through: u64) -> std::io::Result<bool> {
        let state = self.state(shard);
        let mut state = state.lock();
        if state.building.is_none() {
            remove(&self.build_dir(shard));
            return Ok(false);
        }
        let dir = self.dir(shard);
        remove(&dir);
        std::fs::rename(self.build_dir(shard), &dir)?;
        let writing = state.writing.clone();
        *state =
            State { committed: Some(through), through: Some(through), looked_at: true, writing, ..State::default() };
        Ok(true)
    }
}

/// What a directory holds; `None` where there is none, or nothing complete.
fn open(dir: &Path) -> Result<Option<View>, TantivyError> {
    if !dir.exists() {
        return Ok(None);
    }
    let opened = Opened::open(dir)?;
    if opened.through()?.is_none() {
        return Err(TantivyError::SchemaError("it is of another build, or not complete".to_owned()));
    }
    opened.view().map(Some)
}

pub(super) fn remove(dir: &Path) {
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(dir = %dir.display(), %error, "a search index cannot be removed");
    }
}
