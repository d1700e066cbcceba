//! Several regions' stores as one (P-1, P-4).
//!
//! Invariant: [`Replicated::put`] answers `Ok` only when [`COPIES_MIN`] stores have answered that they have the blob
//! durably. Fewer is an error, however many retries and repairs are under way.
//!
//! Invariant: nothing here waits for a store that is down while enough others are up. What it missed is repaired later.
//!
//! Repairs that are queued here live in memory: they are an optimisation for the usual short outage. What a crash
//! forgets is found again by whoever reads the blob, and by the sweep that calls [`Replicated::repair`].

mod breaker;
mod get;
mod put;
mod repair;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use postrider_api::env::Clock;
use postrider_api::id::BlobHash;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::{BlobError, BlobStore, COPIES_MIN, Outage, Zone};
use breaker::Breaker;
use repair::{Repairs, Suspects};

/// Hashed on the spot, bytes; more would hold up the other tasks of the thread.
const HASH_INLINE_BYTES_MAX: usize = 512 * 1024;

/// How patient to be. The defaults suit regions up to 300 ms apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// How long a store is left alone after its first failure; doubles with each further one.
    pub rest_min: Duration,
    /// The longest such rest.
    pub rest_max: Duration,
    /// How long a read waits for one store before it asks the next one too.
    pub hedge_after: Duration,
    /// The longest wait for one store's answer, beside one second for each MiB carried. Stores have shorter time-outs of
    /// their own; this one is for those that break them.
    pub answer_max: Duration,
    /// The longest silence in the middle of a read.
    pub idle_max: Duration,
    /// The pause before a failed repair is tried again; doubles with each further failure.
    pub repair_pause: Duration,
    /// Content on its way to one store, bytes. A store that has so much outstanding counts as failing.
    pub in_flight_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            rest_min: Duration::from_secs(1),
            rest_max: Duration::from_secs(16),
            hedge_after: Duration::from_millis(400),
            answer_max: Duration::from_secs(8),
            idle_max: Duration::from_secs(6),
            repair_pause: Duration::from_secs(2),
            in_flight_bytes_max: 128 * 1024 * 1024,
        }
    }
}

impl Tuning {
    fn answer_max(&self, bytes: u64) -> Duration {
        self.answer_max + Duration::from_secs(bytes / (1024 * 1024))
    }

    fn in_flight_kib_max(&self) -> usize {
        (self.in_flight_bytes_max / 1024).max(1)
    }
}

/// Where a blob is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// At least [`COPIES_MIN`] regions, in the order of their answers.
    pub regions: Vec<String>,
    /// Whether one of them had it before. Garbage collection may be about to delete such a blob: pin it, then make sure
    /// that it is still there.
    pub existed: bool,
}

/// What [`Replicated::repair`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    /// Copies that were there.
    pub present: usize,
    /// Copies that were missing or bad and are there now.
    pub mended: usize,
}

/// Several regions' stores as one. Cheap to clone; all clones and views share what is known about the stores. Background
/// work ends when the last one is dropped.
#[derive(Clone)]
pub struct Replicated {
    shared: Arc<Shared>,
    /// The stores that this view uses, nearest first.
    order: Arc<[usize]>,
    /// Stops the worker when the last clone goes.
    _stop: Arc<DropGuard>,
}

struct Shared {
    members: Vec<Member>,
    tuning: Tuning,
    clock: Arc<dyn Clock>,
    repairs: Repairs,
    suspects: Mutex<Suspects>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

struct Member {
    store: Arc<dyn BlobStore>,
    breaker: Breaker,
    /// In KiB.
    in_flight: Arc<Semaphore>,
}

impl Replicated {
    /// `stores` nearest first; the one of region `local` goes before them all. To be called within a tokio runtime,
    /// which then carries the background work.
    pub fn new(stores: Vec<Arc<dyn BlobStore>>, local: &str, clock: Arc<dyn Clock>) -> Self {
        Self::with_tuning(stores, local, clock, Tuning::default())
    }

    /// The same, with other patience.
    pub fn with_tuning(stores: Vec<Arc<dyn BlobStore>>, local: &str, clock: Arc<dyn Clock>, tuning: Tuning) -> Self {
        let mut order: Vec<usize> = (0..stores.len()).collect();
        order.sort_by_key(|index| stores[*index].region() != local); // stable: the others keep their order
        let member = |store| Member {
            store,
            breaker: Breaker::new(Arc::clone(&clock), tuning.rest_min, tuning.rest_max),
            in_flight: Arc::new(Semaphore::new(tuning.in_flight_kib_max())),
        };
        let stopping = CancellationToken::new();
        let shared = Arc::new(Shared {
            members: stores.into_iter().map(member).collect(),
            tuning,
            clock: Arc::clone(&clock),
            repairs: Repairs::default(),
            suspects: Mutex::default(),
            tasks: TaskTracker::new(),
            stopping: stopping.clone(),
        });
        shared.tasks.spawn(repair::run(Arc::clone(&shared)));
        Self { shared, order: order.into(), _stop: Arc::new(stopping.drop_guard()) }
    }

    /// The same stores, but only those of `regions`: what a shard's placement or a zone's residency allows. Shares
    /// everything that is known about the stores. Regions without a store here are left out.
    pub fn in_regions<'a>(&self, regions: impl IntoIterator<Item = &'a str>) -> Self {
        let wanted: Vec<&str> = regions.into_iter().collect();
        let member = |index: &usize| wanted.contains(&self.shared.members[*index].store.region());
        let order = self.order.iter().copied().filter(member).collect();
        Self { order, ..self.clone() }
    }

    /// The regions whose stores are used, nearest first.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.order.iter().map(|index| self.shared.members[*index].store.region())
    }

    /// The length of a blob in bytes, `None` if no store has it. Nearest first; a store that does not answer is passed
    /// over, but then "none has it" is not an answer.
    pub async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        let mut unknown = None;
        for index in self.read_order(hash) {
            match self.shared.head(index, zone, hash).await {
                Ok(Some(len)) => return Ok(Some(len)),
                Ok(None) => {}
                Err(error) => unknown = Some(error),
            }
        }
        unknown.map_or(Ok(None), Err)
    }

    /// How many stores say that they have the blob. One that does not answer counts as none.
    pub async fn copies(&self, zone: &Zone, hash: &BlobHash) -> usize {
        let heads = self.order.iter().map(|index| self.shared.head(*index, zone, hash));
        join_all(heads).await.into_iter().filter(|found| matches!(found, Ok(Some(_)))).count()
    }

    /// Removes a blob from every store. An error means that some still have it: call again.
    pub async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        self.shared.repairs.forget(zone, hash);
        let deletes = self.order.iter().map(|index| self.shared.delete(*index, zone, hash));
        join_all(deletes).await.into_iter().collect()
    }

    /// Looks for the blob in every store and copies it to those that miss it or know that their copy is bad.
    pub async fn repair(&self, zone: &Zone, hash: &BlobHash) -> Result<Repaired, BlobError> {
        repair::all(self, zone, hash).await
    }

    /// Blobs whose repair waits.
    pub fn repairs_waiting(&self) -> usize {
        self.shared.repairs.len()
    }

    /// Ends the background work: puts that go on are waited for, repairs are forgotten.
    pub async fn close(&self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Nearest first, but stores that rest, or whose copy is suspect, last.
    fn read_order(&self, hash: &BlobHash) -> Vec<usize> {
        let mut order = self.order.to_vec();
        let suspects = self.shared.suspects.lock();
        order
            .sort_by_cached_key(|index| (suspects.contains(*index, hash), self.shared.members[*index].breaker.rests()));
        order
    }
}

impl Shared {
    /// Bounds a call by time and notes how it went.
    async fn call<T>(
        &self,
        index: usize,
        bytes: u64,
        call: impl Future<Output = Result<T, BlobError>>,
    ) -> Result<T, BlobError> {
        let member = &self.members[index];
        let answer = tokio::time::timeout(self.tuning.answer_max(bytes), call).await;
        let result = answer.unwrap_or_else(|_| Err(BlobError::unavailable(member.store.region(), Outage::Timeout)));
        match &result {
            Err(BlobError::Unavailable { .. } | BlobError::Denied { .. }) => member.breaker.failure(),
            // It answered, whatever it said.
            Ok(_) | Err(_) => member.breaker.success(),
        }
        result
    }

    async fn head(&self, index: usize, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        self.call(index, 0, self.members[index].store.head(zone, hash)).await
    }

    async fn delete(&self, index: usize, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        self.call(index, 0, self.members[index].store.delete(zone, hash)).await
    }

    /// Reads a whole blob from one store into memory, verified.
    async fn fetch(&self, index: usize, zone: &Zone, hash: &BlobHash) -> Result<Bytes, BlobError> {
        let store = &self.members[index].store;
        self.call(index, crate::BLOB_BYTES_MAX, async {
            store.get(zone, hash, None).await?.collect(crate::BLOB_BYTES_MAX).await
        })
        .await
    }
}

/// The test that nothing wrong is stored under a right name: it would be found by every later put of the right content.
async fn check_content(hash: &BlobHash, content: &Bytes) -> Result<(), BlobError> {
    if content.len() as u64 > crate::BLOB_BYTES_MAX {
        return Err(BlobError::TooLarge { max: crate::BLOB_BYTES_MAX });
    }
    let actual = if content.len() <= HASH_INLINE_BYTES_MAX {
        BlobHash::of(content)
    } else {
        let content = content.clone();
        let hashing = tokio::task::spawn_blocking(move || BlobHash::of(&content));
        // It cannot panic, so only the end of the runtime can stop it.
        hashing.await.map_err(|_| BlobError::TooFewCopies { durable: 0, needed: COPIES_MIN })?
    };
    if actual == *hash { Ok(()) } else { Err(BlobError::Invalid { what: "the hash is not that of the content" }) }
}

const _: () = assert!(COPIES_MIN >= 2, "P-1: one region's loss loses nothing");

#[cfg(test)]
mod tests;
