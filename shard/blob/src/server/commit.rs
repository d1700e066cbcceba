//! Where uploads become objects: one thread changes names and syncs directories, a batch at a time.
//!
//! Invariant: an answer is given only after every directory that its batch changed is synced. So an answer, also "it
//! was there already", means durable: whoever lost a race against a put in the same batch waits for the same sync.
//!
//! Invariant: content is synced before its name appears (`upload.rs`), so after a power cut a name has all its content.
//!
//! One thread, because that gives concurrent conditional puts one order, and because the directory sync is what they can
//! share: all that wait while one sync runs go into the next batch together.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use super::disk::Disk;
use super::object::{ObjectFile, Version};
use super::tree::ServeError;
use super::upload::TemporaryFile;

/// Changes that wait; more callers than this wait to be among them.
const QUEUE_MAX: usize = 256;
/// Changes that share one round of syncs.
const BATCH_MAX: usize = 128;

/// Directories synced at a time.
const SYNCS_MAX: usize = 8;

/// A change of names below a bucket.
pub(crate) enum Change {
    /// The upload becomes the object, unless there is one.
    Create { from: TemporaryFile, bucket: PathBuf, to: PathBuf },
    /// The upload becomes the object.
    Replace { from: TemporaryFile, bucket: PathBuf, to: PathBuf },
    /// The object goes.
    Remove { path: PathBuf },
    /// The object goes if it is this one.
    RemoveVersion { path: PathBuf, version: Version },
    /// A bucket comes.
    MakeBucket { path: PathBuf },
    /// Nothing: its answer tells that what could be seen before is durable.
    Settle,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Changed,
    /// It was that way already.
    Unchanged,
}

/// Why a change was not made.
#[derive(Debug, Error)]
pub(crate) enum CommitError {
    #[error("no such bucket")]
    NoBucket,
    #[error("the object is another one by now")]
    OtherVersion,
    #[error("change a name")]
    Io(#[from] io::Error),
    /// Unknown whether the change is durable: see [`ServeError::SyncFailed`].
    #[error("the disk failed to sync a directory")]
    SyncFailed,
    #[error("the server is stopping")]
    Stopping,
}

struct Job {
    change: Change,
    answer: oneshot::Sender<Result<Outcome, CommitError>>,
}

/// Handle to the thread. It ends when the last handle is gone.
#[derive(Clone)]
pub(crate) struct Committer {
    jobs: mpsc::Sender<Job>,
    unsynced: Arc<AtomicBool>,
    failed: watch::Receiver<bool>,
}

impl Committer {
    /// Starts the thread.
    pub(crate) fn start(disk: Arc<dyn Disk>) -> Result<(Self, JoinHandle<()>), ServeError> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        let (failing, failed) = watch::channel(false);
        let unsynced = Arc::new(AtomicBool::new(false));
        let worker = Worker { queue, unsynced: Arc::clone(&unsynced), failing, disk };
        let thread = std::thread::Builder::new()
            .name("blob-commit".into())
            .spawn(move || worker.run())
            .map_err(|source| ServeError::Thread { source })?;
        Ok((Self { jobs, unsynced, failed }, thread))
    }

    /// Makes the change and waits until it is durable.
    pub(crate) async fn commit(&self, change: Change) -> Result<Outcome, CommitError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.send(Job { change, answer }).await.map_err(|_| CommitError::Stopping)?;
        answered.await.map_err(|_| CommitError::Stopping)?
    }

    /// Waits until what the caller has just seen on the file system is durable. Nearly always that is at once.
    pub(crate) async fn settle(&self) -> Result<(), CommitError> {
        // The flag is raised before a name appears and lowered after its sync. Who sees the name first and the flag down
        // after that knows that the sync is done.
        if self.unsynced.load(Ordering::SeqCst) {
            self.commit(Change::Settle).await?;
        }
        Ok(())
    }

    /// Returns once a sync has failed, never otherwise.
    pub(crate) async fn failure(&mut self) {
        if self.failed.wait_for(|failed| *failed).await.is_err() {
            // The thread ended without a failure; it does so only when all handles are gone, and this is one.
            std::future::pending::<()>().await;
        }
    }
}

struct Worker {
    queue: mpsc::Receiver<Job>,
    unsynced: Arc<AtomicBool>,
    failing: watch::Sender<bool>,
    disk: Arc<dyn Disk>,
}

impl Worker {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while let Some(job) = self.queue.blocking_recv() {
            batch.push(job);
            while batch.len() < BATCH_MAX {
                match self.queue.try_recv() {
                    Ok(job) => batch.push(job),
                    Err(_) => break, // empty or closed: what is there is the batch
                }
            }
            metrics::histogram!("postrider_blob_commit_batch_changes").record(batch.len() as f64);
            self.commit(&mut batch);
        }
    }

    fn commit(&self, batch: &mut Vec<Job>) {
        self.unsynced.store(true, Ordering::SeqCst);
        let mut changed = BTreeSet::new();
        let mut answers = Vec::with_capacity(batch.len());
        for job in batch.drain(..) {
            let outcome =
                if *self.failing.borrow() { Err(CommitError::SyncFailed) } else { apply(job.change, &mut changed) };
            answers.push((job.answer, outcome));
        }
        let synced = sync_directories(&*self.disk, &changed.into_iter().collect::<Vec<_>>());
        match synced {
            Ok(()) if !*self.failing.borrow() => self.unsynced.store(false, Ordering::SeqCst),
            Ok(()) => {}
            Err(error) => {
                tracing::error!(%error, "a directory sync failed; no more changes are accepted");
                self.failing.send_replace(true);
            }
        }
        for (answer, outcome) in answers {
            let outcome = if *self.failing.borrow() { Err(CommitError::SyncFailed) } else { outcome };
            // A caller that has gone needs no answer.
            let _ = answer.send(outcome);
        }
    }
}

/// Makes one change and notes whose names it changed.
fn apply(change: Change, changed: &mut BTreeSet<PathBuf>) -> Result<Outcome, CommitError> {
    match change {
        Change::Create { from, bucket, to } => {
            let mut link = with_parents(&bucket, &to, changed, || fs::hard_link(from.path(), &to));
            if matches!(&link, Err(CommitError::Io(error)) if error.kind() == ErrorKind::AlreadyExists) {
                if ObjectFile::open(&to).is_ok() {
                    return Ok(Outcome::Unchanged);
                }
                // What lies there is no whole object, so nobody can be told that it exists.
                tracing::warn!(path = %to.display(), "a damaged object is being replaced");
                link = fs::rename(from.path(), &to).map_err(CommitError::Io);
            }
            link?;
            changed.extend(to.parent().map(Path::to_owned));
            Ok(Outcome::Changed)
        }
        Change::Replace { from, bucket, to } => {
            with_parents(&bucket, &to, changed, || fs::rename(from.path(), &to))?;
            changed.extend(to.parent().map(Path::to_owned));
            Ok(Outcome::Changed)
        }
        Change::Remove { path } => remove(&path, changed),
        // No other thread changes names, so it is still the same one when it goes.
        Change::RemoveVersion { path, version } => match Version::of(&path) {
            Ok(found) if found == version => remove(&path, changed),
            Ok(_) => Err(CommitError::OtherVersion),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Outcome::Unchanged),
            Err(error) => Err(error.into()),
        },
        Change::MakeBucket { path } => match fs::create_dir(&path) {
            Ok(()) => {
                changed.extend(path.parent().map(Path::to_owned));
                Ok(Outcome::Changed)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Outcome::Unchanged),
            Err(error) => Err(error.into()),
        },
        Change::Settle => Ok(Outcome::Unchanged),
    }
}

fn remove(path: &Path, changed: &mut BTreeSet<PathBuf>) -> Result<Outcome, CommitError> {
    match fs::remove_file(path) {
        Ok(()) => {
            changed.extend(path.parent().map(Path::to_owned));
            Ok(Outcome::Changed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Outcome::Unchanged),
        Err(error) => Err(error.into()),
    }
}

/// Runs `step`, and once more after making the directories between `bucket` and `to` if they were missing.
fn with_parents(
    bucket: &Path,
    to: &Path,
    changed: &mut BTreeSet<PathBuf>,
    step: impl Fn() -> io::Result<()>,
) -> Result<(), CommitError> {
    match step() {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        done => return Ok(done?),
    }
    if !bucket.is_dir() {
        return Err(CommitError::NoBucket);
    }
    let missing: Vec<&Path> =
        to.ancestors().skip(1).take_while(|parent| *parent != bucket && !parent.is_dir()).collect();
    for directory in missing.into_iter().rev() {
        fs::create_dir(directory)?;
        changed.extend(directory.parent().map(Path::to_owned));
    }
    Ok(step()?)
}

/// Syncs all, several at a time: one after the other each would cost a cache flush of the disk, together they share it.
fn sync_directories(disk: &dyn Disk, directories: &[PathBuf]) -> io::Result<()> {
    let share = directories.len().div_ceil(SYNCS_MAX).max(1);
    std::thread::scope(|scope| {
        let sync_each = |share: &[PathBuf]| share.iter().try_for_each(|directory| disk.sync_directory(directory));
        let mut shares = directories.chunks(share);
        let own = shares.next();
        let others: Vec<_> = shares
            .map(|share| {
                std::thread::Builder::new().name("blob-sync".into()).spawn_scoped(scope, move || sync_each(share))
            })
            .collect();
        let mut outcome = own.map_or(Ok(()), sync_each);
        for other in others {
            // Without a thread the share is not synced, and that is a failed sync like any other.
            let synced =
                other.and_then(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("sync panicked"))));
            outcome = outcome.and(synced);
        }
        outcome
    })
}
