//! Snapshots that are being received, over as many streams as it takes.
//!
//! When a stream breaks, what has come is kept for as long as the sender tries to go on. There is one reception of a group
//! at a time; a new sending takes the place of what was kept of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ids::{GroupId, NodeId};
use crate::snapshot::spool::Partial;
use crate::transport::InstallError;
use crate::wire::InstallAnswer;

/// A stream that was cut ends within this time, unless the disk hangs.
const END_MAX: Duration = Duration::from_secs(5);

/// Names one sending of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransferId {
    pub(crate) from: NodeId,
    /// 0 from a sender that cannot go on after a broken stream.
    pub(crate) serial: u64,
}

/// What is left when a stream of a sending has ended.
enum Left {
    /// It broke. The place is held, so that what waits on disk is bounded.
    Part(Box<Partial>, OwnedSemaphorePermit),
    /// Nothing was missing.
    Installed(InstallAnswer),
}

/// One sending, as its receiver sees it.
struct Reception {
    id: TransferId,
    /// Held by the stream that brings it. None while it does, and after a failure.
    left: Arc<tokio::sync::Mutex<Option<Left>>>,
    /// Dropped to end the stream that brings it.
    stream: Mutex<Option<oneshot::Sender<()>>>,
    /// All of it has come.
    installing: AtomicBool,
}

/// How far a sending has got.
#[derive(Debug)]
pub(crate) enum Progress {
    /// So many blocks are kept.
    Blocks(u64),
    /// All of it has come.
    Installing,
    /// It is installed.
    Installed(InstallAnswer),
    /// Nothing is known of it.
    Forgotten,
}

/// One stream's part in a reception.
pub(crate) struct Turn {
    reception: Arc<Reception>,
    left: OwnedMutexGuard<Option<Left>>,
    place: Option<OwnedSemaphorePermit>,
    /// Ready when the sender has given the stream up.
    pub(crate) cut: oneshot::Receiver<()>,
}

impl Turn {
    /// All of it has come.
    pub(crate) fn whole(&self) {
        self.reception.installing.store(true, Ordering::Release);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.reception.installing.store(false, Ordering::Release);
    }
}

/// All receptions of a node.
pub(crate) struct Receptions {
    places: Arc<Semaphore>,
    /// How long something is kept for its sender.
    keep: Duration,
    groups: Arc<Mutex<HashMap<GroupId, Arc<Reception>>>>,
}

impl Receptions {
    /// At most `max` at once.
    pub(crate) fn new(max: usize, keep: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), keep, groups: Arc::default() }
    }

    /// The first stream of a sending.
    pub(crate) async fn begin(&self, group: GroupId, id: TransferId) -> Result<Turn, InstallError> {
        let before = self.groups.lock().get(&group).cloned();
        if let Some(before) = before {
            // Its place is free, and its files are gone, before the new one asks for one.
            before.end(END_MAX).await;
        }
        let place = self.places.clone().try_acquire_owned().map_err(|_| InstallError::Busy)?;
        let (reception, cut) = Reception::new(id);
        let left = reception.left.clone().try_lock_owned().map_err(|_| InstallError::Busy)?;
        let between = self.groups.lock().insert(group, reception.clone());
        // Another that has begun meanwhile has its place, and loses its stream.
        drop(between.and_then(|between| between.stream.lock().take()));
        Ok(Turn { reception, left, place: Some(place), cut })
    }

    /// A stream that goes on behind the first `blocks` blocks, and those.
    pub(crate) async fn resume(
        &self,
        group: GroupId,
        id: TransferId,
        blocks: u64,
    ) -> Result<(Turn, Partial), InstallError> {
        let unknown = || InstallError::Malformed("it goes on with what is not here".to_owned());
        let reception = self.find(group, id).ok_or_else(unknown)?;
        let mut left = reception.left.clone().lock_owned().await;
        match left.take() {
            Some(Left::Part(partial, place)) if partial.blocks() == blocks => {
                let cut = reception.listen();
                Ok((Turn { reception, left, place: Some(place), cut }, *partial))
            }
            // A stream that comes late: the sender goes on by another.
            other => {
                *left = other;
                Err(unknown())
            }
        }
    }

    /// How far a sending has got. The stream that still brings it is ended first.
    pub(crate) async fn progress(&self, group: GroupId, id: TransferId) -> Progress {
        let Some(reception) = self.find(group, id) else { return Progress::Forgotten };
        if reception.installing.load(Ordering::Acquire) {
            return Progress::Installing;
        }
        drop(reception.stream.lock().take());
        let left = reception.left.lock().await;
        // That was the end of the time for which it is kept, too: it begins again.
        self.forget_later(group, &reception);
        match &*left {
            Some(Left::Part(partial, _)) => Progress::Blocks(partial.blocks()),
            Some(Left::Installed(answer)) => Progress::Installed(*answer),
            None => Progress::Forgotten,
        }
    }

    fn find(&self, group: GroupId, id: TransferId) -> Option<Arc<Reception>> {
        let groups = self.groups.lock();
        groups.get(&group).filter(|reception| reception.id == id && id.serial != 0).cloned()
    }

    /// Ends every stream, forgets everything that is kept, and begins nothing any more.
    pub(crate) async fn close(&self) {
        self.places.close();
        let receptions = std::mem::take(&mut *self.groups.lock());
        for reception in receptions.into_values() {
            reception.end(END_MAX).await;
        }
    }

    /// Ends what is received for a group, and forgets it.
    pub(crate) async fn forget(&self, group: GroupId) {
        let reception = self.groups.lock().remove(&group);
        if let Some(reception) = reception {
            reception.end(END_MAX).await;
        }
    }

    /// The stream broke after `partial`.
    pub(crate) async fn keep(&self, group: GroupId, mut turn: Turn, partial: Partial) {
        let is_held = self.find(group, turn.reception.id).is_some_and(|held| Arc::ptr_eq(&held, &turn.reception));
        if !is_held {
            // Nobody will ask for it.
            discard(partial).await;
            return;
        }
        *turn.left = turn.place.take().map(|place| Left::Part(Box::new(partial), place));
        self.forget_later(group, &turn.reception);
    }

    /// It is installed.
    pub(crate) fn finish(&self, group: GroupId, mut turn: Turn, answer: InstallAnswer) {
        *turn.left = Some(Left::Installed(answer));
        self.forget_later(group, &turn.reception);
    }

    fn forget_later(&self, group: GroupId, reception: &Arc<Reception>) {
        let (groups, keep) = (Arc::downgrade(&self.groups), self.keep);
        // A sender that goes on has taken the stream's end by then, and leaves another.
        let stream = reception.listen();
        let reception = Arc::downgrade(reception);
        tokio::spawn(async move {
            let asked = tokio::time::timeout(keep, stream).await;
            let (Err(_), Some(groups), Some(reception)) = (asked, groups.upgrade(), reception.upgrade()) else {
                return;
            };
            let left = {
                let mut groups = groups.lock();
                // A stream that goes on holds what is left.
                let Ok(mut left) = reception.left.try_lock() else { return };
                if groups.get(&group).is_some_and(|held| Arc::ptr_eq(held, &reception)) {
                    groups.remove(&group);
                }
                left.take()
            };
            discard(left).await;
        });
    }
}

impl Reception {
    fn new(id: TransferId) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (stream, cut) = oneshot::channel();
        let (left, installing) = (Arc::default(), AtomicBool::new(false));
        (Arc::new(Self { id, left, stream: Mutex::new(Some(stream)), installing }), cut)
    }

    /// Ends its stream and forgets what it has brought. Waits so long for the stream to end.
    async fn end(&self, limit: Duration) {
        drop(self.stream.lock().take());
        if let Ok(mut left) = tokio::time::timeout(limit, self.left.lock()).await {
            discard(left.take()).await;
        }
    }

    /// Ready when the sender speaks of the reception again.
    fn listen(&self) -> oneshot::Receiver<()> {
        let (stream, cut) = oneshot::channel();
        *self.stream.lock() = Some(stream);
        cut
    }
}

/// Drops what may hold gigabytes of files where it holds up nobody.
async fn discard<T: Send + 'static>(what: T) {
    if let Err(error) = tokio::task::spawn_blocking(move || drop(what)).await {
        tracing::warn!(%error, "a received snapshot stays behind until the next start");
    }
}
