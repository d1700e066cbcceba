//! What a sweep sees and does, as a trait: the cluster in production; shards and stores in memory, which fail and are killed at
//! every step, in tests.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::pb;
use postrider_blob::BlobStore;

use super::driver::SweepError;

/// A residency zone at one moment.
pub(crate) struct ZoneView {
    /// Its regions' stores. A store that no driver knows is an error, not an empty one.
    pub(crate) stores: Vec<Arc<dyn BlobStore>>,
    /// Its mailbox shards, each with the regions in which it has replicas.
    pub(crate) shards: Vec<(ShardId, BTreeSet<String>)>,
}

pub(crate) trait World: Send + Sync {
    /// The zone as placement has agreed on it now.
    fn view(&self, zone: &str) -> impl Future<Output = Result<ZoneView, SweepError>> + Send;

    /// Records a step; [`SweepError::Overtaken`] when another was recorded first.
    fn record(&self, step: pb::AdvanceSweep) -> impl Future<Output = Result<(), SweepError>> + Send;

    /// The blobs that a shard refers to or has pinned, behind `after` and up to `until`: a page.
    fn blobs(
        &self,
        shard: ShardId,
        after: Bytes,
        until: Bytes,
    ) -> impl Future<Output = Result<pb::BlobPage, SweepError>> + Send;

    /// Those of a batch that the shard keeps.
    fn condemn(
        &self,
        shard: ShardId,
        batch: u64,
        blobs: Vec<Bytes>,
    ) -> impl Future<Output = Result<Vec<Bytes>, SweepError>> + Send;

    /// A batch is over.
    fn pardon(
        &self,
        shard: ShardId,
        batch: u64,
        blobs: Vec<Bytes>,
    ) -> impl Future<Output = Result<(), SweepError>> + Send;
}

impl<W: World> World for &W {
    async fn view(&self, zone: &str) -> Result<ZoneView, SweepError> {
        (**self).view(zone).await
    }

    async fn record(&self, step: pb::AdvanceSweep) -> Result<(), SweepError> {
        (**self).record(step).await
    }

    async fn blobs(&self, shard: ShardId, after: Bytes, until: Bytes) -> Result<pb::BlobPage, SweepError> {
        (**self).blobs(shard, after, until).await
    }

    async fn condemn(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<Vec<Bytes>, SweepError> {
        (**self).condemn(shard, batch, blobs).await
    }

    async fn pardon(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<(), SweepError> {
        (**self).pardon(shard, batch, blobs).await
    }
}
