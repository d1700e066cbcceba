//! Writing to all stores, waiting for enough.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use postrider_api::id::BlobHash;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::repair::Harm;
use super::{Durable, Replicated, Shared, check_content};
use crate::{BlobError, COPIES_MIN, Put, Zone};

type Attempt = JoinHandle<(usize, Result<Put, BlobError>)>;

impl Replicated {
    /// Stores a blob and returns once [`COPIES_MIN`] regions have it durably; the others get it in the background, or
    /// by repair. After an error the blob may be in some stores nevertheless; the same call again finds it there.
    pub async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Durable, BlobError> {
        check_content(hash, &content).await?;
        let mut run = Run { shared: &self.shared, zone, hash, content, attempts: FuturesUnordered::new() };
        let mut skipped: Vec<usize> = self.order.iter().copied().filter(|index| !run.launch_if_ready(*index)).collect();
        let mut durable = Durable { regions: Vec::with_capacity(COPIES_MIN), existed: false };
        let mut refusal = None;
        loop {
            if durable.regions.len() + run.attempts.len() < COPIES_MIN && !skipped.is_empty() {
                // No choice any more: perhaps one of them is up again.
                skipped.drain(..).for_each(|index| run.launch(index, None));
            }
            match run.attempts.next().await {
                Some(Ok((index, Ok(put)))) => {
                    durable.regions.push(self.shared.members[index].store.region().to_owned());
                    durable.existed |= put == Put::Existed;
                }
                Some(Ok((
                    _,
                    Err(error @ (BlobError::Denied { .. } | BlobError::Invalid { .. } | BlobError::TooLarge { .. })),
                ))) => {
                    refusal = Some(error);
                }
                // The store's breaker knows, the repair is queued; a task that was stopped counts as no copy.
                Some(Ok((_, Err(_))) | Err(_)) => {}
                None => break,
            }
            if durable.regions.len() >= COPIES_MIN {
                skipped.into_iter().for_each(|index| self.shared.repairs.add(index, zone, hash, Harm::Missing));
                return Ok(durable);
            }
        }
        // With enough stores, too few copies pass by themselves; where stores refuse, somebody has to act.
        let too_few = BlobError::TooFewCopies { durable: durable.regions.len(), needed: COPIES_MIN };
        Err(refusal.unwrap_or(too_few))
    }
}

struct Run<'a> {
    shared: &'a Arc<Shared>,
    zone: &'a Zone,
    hash: &'a BlobHash,
    content: Bytes,
    attempts: FuturesUnordered<Attempt>,
}

impl Run<'_> {
    /// Starts a put to a store, unless the store rests or has too much outstanding.
    fn launch_if_ready(&mut self, index: usize) -> bool {
        let member = &self.shared.members[index];
        if member.breaker.rests() {
            return false;
        }
        let Ok(permit) = Arc::clone(&member.in_flight).try_acquire_many_owned(self.weight()) else {
            metrics::counter!("postrider_blob_puts_skipped_total", "region" => member.store.region().to_owned())
                .increment(1);
            return false;
        };
        self.launch(index, Some(permit));
        true
    }

    /// Starts a put to a store, as a task of its own: it goes on when the caller has enough copies, or has gone.
    fn launch(&mut self, index: usize, permit: Option<OwnedSemaphorePermit>) {
        let (shared, zone, hash, content) =
            (Arc::clone(self.shared), self.zone.clone(), *self.hash, self.content.clone());
        let weight = self.weight();
        self.attempts.push(self.shared.tasks.spawn(async move {
            let member = &shared.members[index];
            let bytes = content.len() as u64;
            let result = shared
                .call(index, bytes, async {
                    let _permit = match permit {
                        Some(permit) => Some(permit),
                        // Never closed.
                        None => Arc::clone(&member.in_flight).acquire_many_owned(weight).await.ok(),
                    };
                    member.store.put(&zone, &hash, content).await
                })
                .await;
            if matches!(result, Err(BlobError::Unavailable { .. })) {
                shared.repairs.add(index, &zone, &hash, Harm::Missing);
            }
            (index, result)
        }));
    }

    /// KiB, at least one, and never more than there are.
    fn weight(&self) -> u32 {
        let most = self.shared.tuning.in_flight_kib_max();
        u32::try_from((self.content.len() / 1024).clamp(1, most)).unwrap_or(u32::MAX)
    }
}
