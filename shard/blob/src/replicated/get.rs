//! Reading from the nearest store that has it.
//!
//! What is small is read and verified before the first byte is given out, so a bad copy is never noticed by the reader.
//! What is large streams: when a store breaks off, the next one goes on at the same byte.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt as _};
use postrider_api::id::BlobHash;

use super::repair::Harm;
use super::{Replicated, Shared};
use crate::{BlobError, BlobReader, Outage, Zone};

/// Read and verified as a whole before it is given out, bytes.
const VERIFY_FIRST_BYTES_MAX: u64 = 4 * 1024 * 1024;

enum Opened {
    /// Verified, if it is a whole blob.
    Bytes {
        bytes: Bytes,
        blob_len: u64,
    },
    Stream(BlobReader),
}

impl Replicated {
    /// Opens a blob or a range of it, see [`crate::BlobStore::get`]. Asks the nearest store, and the next one when it
    /// has no good copy, does not answer, or takes its time. Copies that turn out to be missing or bad are repaired.
    pub async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
        let mut waiting: VecDeque<usize> = self.read_order(hash).into();
        let mut racing = FuturesUnordered::new();
        // Who has been asked and has not answered yet, in the order of asking.
        let mut asked: Vec<usize> = Vec::new();
        let mut verdicts = Vec::new();
        loop {
            if racing.is_empty() {
                let Some(index) = waiting.pop_front() else { return Err(verdict(verdicts)) };
                asked.push(index);
                racing.push(self.shared.open(index, zone, hash, range.clone()));
            }
            let hedge = tokio::time::sleep(self.shared.tuning.hedge_after);
            let (index, result) = tokio::select! {
                Some(answer) = racing.next() => answer,
                () = hedge, if !waiting.is_empty() => {
                    if let Some(index) = waiting.pop_front() {
                        metrics::counter!("postrider_blob_hedged_reads_total").increment(1);
                        asked.push(index);
                        racing.push(self.shared.open(index, zone, hash, range.clone()));
                    }
                    continue;
                }
            };
            asked.retain(|other| *other != index);
            match result {
                Ok(opened) => {
                    asked.iter().for_each(|slow| self.shared.members[*slow].breaker.lost_race());
                    self.shared.heal(zone, hash, &verdicts);
                    return Ok(self.follow(index, opened, zone, hash, range, waiting));
                }
                Err(error @ (BlobError::Invalid { .. } | BlobError::TooLarge { .. })) => return Err(error),
                Err(error) => verdicts.push((index, error)),
            }
        }
    }

    fn follow(
        &self,
        index: usize,
        opened: Opened,
        zone: &Zone,
        hash: &BlobHash,
        range: Option<Range<u64>>,
        spare: VecDeque<usize>,
    ) -> BlobReader {
        let region = self.shared.members[index].store.region();
        let reader = match opened {
            Opened::Bytes { bytes, blob_len } => return BlobReader::of_bytes(region, blob_len, bytes),
            Opened::Stream(reader) => reader,
        };
        let (len, blob_len) = (reader.len(), reader.blob_len());
        let start = range.as_ref().map_or(0, |range| range.start);
        let follow = Follow {
            shared: Arc::clone(&self.shared),
            zone: zone.clone(),
            hash: *hash,
            reader,
            index,
            rest: start..start + len,
            spare,
            verdicts: Vec::new(),
        };
        let followed = BlobReader::new(region, len, blob_len, follow.into_stream());
        if range.is_none() { followed.verified(region, *hash) } else { followed }
    }
}

/// What to tell the reader when no store gave the blob: "it is nowhere" only if every store said so.
fn verdict(verdicts: Vec<(usize, BlobError)>) -> BlobError {
    let weight = |error: &BlobError| match error {
        BlobError::NotFound => 0,
        BlobError::Corrupt { .. } => 1,
        BlobError::Denied { .. } => 2,
        _ => 3,
    };
    let heaviest = verdicts.into_iter().map(|(_, error)| error).max_by_key(weight);
    heaviest.unwrap_or(BlobError::Invalid { what: "there is no store in the allowed regions" })
}

impl Shared {
    async fn open(
        &self,
        index: usize,
        zone: &Zone,
        hash: &BlobHash,
        range: Option<Range<u64>>,
    ) -> (usize, Result<Opened, BlobError>) {
        let opening = self.call(index, VERIFY_FIRST_BYTES_MAX, async {
            let reader = self.members[index].store.get(zone, hash, range).await?;
            if reader.len() > VERIFY_FIRST_BYTES_MAX {
                return Ok(Opened::Stream(reader));
            }
            let blob_len = reader.blob_len();
            let bytes = reader.collect(VERIFY_FIRST_BYTES_MAX).await?;
            Ok(Opened::Bytes { bytes, blob_len })
        });
        (index, opening.await)
    }

    /// After a good copy was found: what the other stores answered tells which copies need repair.
    fn heal(&self, zone: &Zone, hash: &BlobHash, verdicts: &[(usize, BlobError)]) {
        for (index, error) in verdicts {
            match error {
                BlobError::NotFound => self.repairs.add(*index, zone, hash, Harm::Missing),
                BlobError::Corrupt { region } => {
                    metrics::counter!("postrider_blob_corrupt_reads_total", "region" => region.clone()).increment(1);
                    self.suspects.lock().add(*index, hash);
                    self.repairs.add(*index, zone, hash, Harm::Corrupt);
                }
                _ => {} // its breaker knows
            }
        }
    }
}

/// A large read that goes on at another store when one breaks off.
struct Follow {
    shared: Arc<Shared>,
    zone: Zone,
    hash: BlobHash,
    reader: BlobReader,
    index: usize,
    /// What is still to come, in the blob.
    rest: Range<u64>,
    spare: VecDeque<usize>,
    verdicts: Vec<(usize, BlobError)>,
}

impl Follow {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
        stream::unfold(Some(self), |state| async move {
            let mut follow = state?;
            match follow.next().await {
                Some(Ok(chunk)) => Some((Ok(chunk), Some(follow))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }

    async fn next(&mut self) -> Option<Result<Bytes, BlobError>> {
        loop {
            let region = self.shared.members[self.index].store.region();
            let error = match tokio::time::timeout(self.shared.tuning.idle_max, self.reader.next()).await {
                Ok(Some(Ok(chunk))) => {
                    self.rest.start += chunk.len() as u64;
                    return Some(Ok(chunk));
                }
                Ok(None) => {
                    self.shared.heal(&self.zone, &self.hash, &self.verdicts);
                    return None;
                }
                Ok(Some(Err(error))) => error,
                Err(_) => BlobError::unavailable(region, Outage::Timeout),
            };
            if matches!(error, BlobError::Unavailable { .. }) {
                self.shared.members[self.index].breaker.failure();
            }
            self.verdicts.push((self.index, error.clone()));
            if let Err(none_left) = self.resume().await {
                // A bad copy that was streamed to its end shows too late to be replaced; the next reader is warned.
                self.shared.heal(&self.zone, &self.hash, &self.verdicts);
                return Some(Err(none_left.unwrap_or(error)));
            }
        }
    }

    /// Opens the rest at the next store that can; an error if none is left.
    async fn resume(&mut self) -> Result<(), Option<BlobError>> {
        while let Some(index) = self.spare.pop_front() {
            let store = &self.shared.members[index].store;
            let opening = store.get(&self.zone, &self.hash, Some(self.rest.clone()));
            match self.shared.call(index, 0, opening).await {
                Ok(reader) if reader.len() == self.rest.end - self.rest.start => {
                    metrics::counter!("postrider_blob_resumed_reads_total").increment(1);
                    (self.reader, self.index) = (reader, index);
                    return Ok(());
                }
                // Another length under the same hash: this copy is bad.
                Ok(_) | Err(BlobError::Invalid { .. }) => {
                    self.verdicts.push((index, BlobError::corrupt(store.region())));
                }
                Err(error) => self.verdicts.push((index, error)),
            }
        }
        Err(None)
    }
}
