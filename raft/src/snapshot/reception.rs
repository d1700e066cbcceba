//! Snapshots that are being received, over as many streams as it takes.
//!
//! When a stream breaks, what has come is kept for as long as the sender tries to go on. There is one reception of a group
//! at a time; a new sending takes the place of what was kept of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ids::{GroupId, NodeId};
use crate::snapshot::spool::Partial;
use crate::transport::InstallError;
use crate::wire::InstallAnswer;

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
}

/// How far a sending has got.
#[derive(Debug)]
pub(crate) enum Progress {
    /// So many blocks are kept.
    Blocks(u64),
    /// It is installed.
    Installed(InstallAnswer),
    /// Nothing is known of it.
    Forgotten,
}

/// One stream's part in a reception.
pub(crate) struct Turn {
    reception: Arc<Reception>,
    left: OwnedMutexGuard<Option<Left>>,
    place: OwnedSemaphorePermit,
    /// Ready when the sender has given the stream up.
    pub(crate) cut: oneshot::Receiver<()>,
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
        let before = self.groups.lock().remove(&group);
        if let Some(before) = &before {
            drop(before.stream.lock().take());
        }
        // Its place is free, and its files are gone, before the new one asks for one.
        discard(before).await;
        let place = self.places.clone().try_acquire_owned().map_err(|_| InstallError::Busy)?;
        let (reception, cut) = Reception::new(id);
        let left = reception.left.clone().try_lock_owned().map_err(|_| InstallError::Busy)?;
        self.groups.lock().insert(group, reception.clone());
        Ok(Turn { reception, left, place, cut })
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
                Ok((Turn { reception, left, place, cut }, *partial))
            }
            // What it is not, it cannot be any more.
            other => {
                let is_part = matches!(other, Some(Left::Part(..)));
                *left = other.filter(|_| !is_part);
                Err(unknown())
            }
        }
    }

    /// How far a sending has got. The stream that still brings it is ended first.
    pub(crate) async fn progress(&self, group: GroupId, id: TransferId) -> Progress {
        let Some(reception) = self.find(group, id) else { return Progress::Forgotten };
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

    /// Forgets everything that is kept.
    pub(crate) async fn clear(&self) {
        let receptions = std::mem::take(&mut *self.groups.lock());
        discard(receptions).await;
    }

    /// The stream broke after `partial`.
    pub(crate) fn keep(&self, group: GroupId, mut turn: Turn, partial: Partial) {
        *turn.left = Some(Left::Part(Box::new(partial), turn.place));
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
            let is_it = |held: &mut Arc<Reception>| Arc::ptr_eq(held, &reception);
            let removed = {
                let mut groups = groups.lock();
                if groups.get_mut(&group).is_some_and(is_it) { groups.remove(&group) } else { None }
            };
            discard((removed, reception)).await;
        });
    }
}

impl Reception {
    fn new(id: TransferId) -> (Arc<Self>, oneshot::Receiver<()>) {
        let (stream, cut) = oneshot::channel();
        (Arc::new(Self { id, left: Arc::default(), stream: Mutex::new(Some(stream)) }), cut)
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
