//! Mending copies that a store missed or that went bad.
//!
//! A repair never makes a blob out of nothing: it copies what another store has and what has the right hash. It may bring
//! back a copy that garbage collection has just deleted; the next sweep deletes that one again (P-11 gives it time).

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_api::id::BlobHash;
use tokio::sync::Notify;

use super::{Repaired, Replicated, Shared};
use crate::{BlobError, Zone};

/// Repairs that wait. Further ones are left to later reads and to the sweep.
const REPAIRS_MAX: usize = 16 * 1024;
/// Tries of one repair while its store answers. (A store that is down costs none.)
const TRIES_MAX: u32 = 8;
/// Bad copies that are remembered, so that reads go to another one first.
const SUSPECTS_MAX: usize = 1024;
/// Pause of the worker when nothing is due.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Harm {
    Missing,
    Corrupt,
}

#[derive(Debug, Clone)]
struct Item {
    index: usize,
    zone: Zone,
    hash: BlobHash,
    harm: Harm,
    tries: u32,
    /// On the monotonic clock.
    due: Duration,
}

/// The queue of repairs.
#[derive(Default)]
pub(super) struct Repairs {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    known: HashSet<(usize, Zone, BlobHash)>,
}

impl Repairs {
    /// Notes that a store lacks a good copy.
    pub(super) fn add(&self, index: usize, zone: &Zone, hash: &BlobHash, harm: Harm) {
        let item = Item { index, zone: zone.clone(), hash: *hash, harm, tries: 0, due: Duration::ZERO };
        let mut queue = self.queue.lock();
        let outcome = if queue.items.len() >= REPAIRS_MAX {
            "dropped"
        } else if queue.known.insert((index, zone.clone(), *hash)) {
            queue.items.push_back(item);
            self.wake.notify_one();
            "queued"
        } else {
            "known"
        };
        metrics::counter!("postrider_blob_repairs_total", "outcome" => outcome).increment(1);
    }

    /// The blob is going away: nothing is to be repaired.
    pub(super) fn forget(&self, zone: &Zone, hash: &BlobHash) {
        let mut queue = self.queue.lock();
        queue.items.retain(|item| item.hash != *hash || item.zone != *zone);
        queue.known.retain(|(_, known_zone, known)| known != hash || known_zone != zone);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().known.len()
    }

    /// Takes what is due and whose store is worth trying.
    fn take(&self, now: Duration, worth: impl Fn(usize) -> bool) -> Option<Item> {
        let mut queue = self.queue.lock();
        let position = queue.items.iter().position(|item| item.due <= now && worth(item.index))?;
        queue.items.remove(position)
    }

    fn again(&self, item: Item) {
        let mut queue = self.queue.lock();
        // Unless it was forgotten meanwhile.
        if queue.known.contains(&(item.index, item.zone.clone(), item.hash)) {
            queue.items.push_back(item);
        }
    }

    fn done(&self, item: &Item) {
        self.queue.lock().known.remove(&(item.index, item.zone.clone(), item.hash));
    }
}

/// Copies that were bad when they were last read. The oldest is forgotten when there are too many.
#[derive(Default)]
pub(super) struct Suspects {
    order: VecDeque<(usize, BlobHash)>,
    known: HashSet<(usize, BlobHash)>,
}

impl Suspects {
    pub(super) fn contains(&self, index: usize, hash: &BlobHash) -> bool {
        self.known.contains(&(index, *hash))
    }

    pub(super) fn add(&mut self, index: usize, hash: &BlobHash) {
        if self.known.insert((index, *hash)) {
            self.order.push_back((index, *hash));
        }
        if self.order.len() > SUSPECTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn clear(&mut self, index: usize, hash: &BlobHash) {
        if self.known.remove(&(index, *hash)) {
            self.order.retain(|suspect| *suspect != (index, *hash));
        }
    }
}

/// The worker: one repair at a time, until the stores are no longer used.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let worth = |index: usize| !shared.members[index].breaker.rests();
        let Some(item) = shared.repairs.take(shared.clock.monotonic(), worth) else {
            tokio::select! {
                () = shared.stopping.cancelled() => return,
                () = shared.repairs.wake.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
            continue;
        };
        let mended = tokio::select! {
            () = shared.stopping.cancelled() => return,
            mended = mend(&shared, 0..shared.members.len(), &item) => mended,
        };
        settle(&shared, item, mended);
    }
}

fn settle(shared: &Shared, mut item: Item, mended: Result<bool, BlobError>) {
    let outcome = match mended {
        Ok(true) => "mended",
        Ok(false) => "unneeded",
        Err(BlobError::Unavailable { .. }) => {
            // The breaker decides when it is tried again.
            return shared.repairs.again(item);
        }
        Err(error) => {
            item.tries += 1;
            if item.tries < TRIES_MAX {
                item.due = shared.clock.monotonic() + shared.tuning.repair_pause * 2u32.pow(item.tries);
                return shared.repairs.again(item);
            }
            let region = shared.members[item.index].store.region();
            tracing::error!(%error, region, hash = %item.hash, "a copy could not be repaired");
            "failed"
        }
    };
    metrics::counter!("postrider_blob_repairs_total", "outcome" => outcome).increment(1);
    shared.repairs.done(&item);
}

/// Makes one copy good again, from one of the stores `sources`. `false`: there is nothing to do.
async fn mend(shared: &Shared, sources: impl IntoIterator<Item = usize>, item: &Item) -> Result<bool, BlobError> {
    let Item { index, zone, hash, .. } = item;
    let store = &shared.members[*index].store;
    let bad = match item.harm {
        Harm::Missing if shared.head(*index, zone, hash).await?.is_some() => return Ok(false),
        Harm::Missing => false,
        // A second look: what was wrong may have been the way here.
        Harm::Corrupt => match shared.fetch(*index, zone, hash).await {
            Ok(_) => {
                shared.suspects.lock().clear(*index, hash);
                return Ok(false);
            }
            Err(BlobError::NotFound) => false,
            Err(BlobError::Corrupt { .. }) => true,
            Err(error) => return Err(error),
        },
    };
    let Some(content) = good_copy(shared, sources.into_iter().filter(|source| source != index), zone, hash).await?
    else {
        return Ok(false);
    };
    let bytes = content.len() as u64;
    if bad {
        shared.call(*index, bytes, store.replace(zone, hash, content)).await?;
    } else {
        shared.call(*index, bytes, store.put(zone, hash, content)).await?;
    }
    shared.suspects.lock().clear(*index, hash);
    Ok(true)
}

/// A verified copy; `None` if every source says that it has none.
async fn good_copy(
    shared: &Shared,
    sources: impl Iterator<Item = usize>,
    zone: &Zone,
    hash: &BlobHash,
) -> Result<Option<Bytes>, BlobError> {
    let mut trouble = None;
    for source in sources {
        match shared.fetch(source, zone, hash).await {
            Ok(content) => return Ok(Some(content)),
            Err(BlobError::NotFound) => {}
            // Not the target's fault: as a try that is counted, so that it ends some day.
            Err(BlobError::Unavailable { .. }) => {
                trouble = Some(BlobError::TooFewCopies { durable: 0, needed: 1 });
            }
            Err(error) => trouble = Some(error),
        }
    }
    trouble.map_or(Ok(None), Err)
}

/// See [`Replicated::repair`].
pub(super) async fn all(replicated: &Replicated, zone: &Zone, hash: &BlobHash) -> Result<Repaired, BlobError> {
    let shared = &replicated.shared;
    let mut repaired = Repaired { present: 0, mended: 0 };
    let mut trouble = None;
    for index in replicated.order.iter().copied() {
        let harm = match shared.head(index, zone, hash).await {
            Ok(Some(_)) => {
                repaired.present += 1;
                continue;
            }
            Ok(None) => Harm::Missing,
            Err(BlobError::Corrupt { .. }) => Harm::Corrupt,
            Err(error) => {
                trouble = Some(error);
                continue;
            }
        };
        let item = Item { index, zone: zone.clone(), hash: *hash, harm, tries: 0, due: Duration::ZERO };
        match mend(shared, replicated.order.iter().copied(), &item).await {
            Ok(mended) => repaired.mended += usize::from(mended),
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) => Err(error),
        None if repaired.present + repaired.mended == 0 => Err(BlobError::NotFound),
        None => Ok(repaired),
    }
}
