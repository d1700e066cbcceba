//! The cluster as a sweep sees it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, Refusal, ShardKind, answer::Answer, command::Op, outcome, query::Query};
use postrider_blob::BlobStore;

use super::driver::SweepError;
use super::world::{World, ZoneView};
use crate::calls::{CallError, Calls};
use crate::map::{Map, MapView};
use crate::placement::Placement;

/// Shards, stores and placement. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClusterWorld {
    pub(crate) calls: Calls,
    pub(crate) map: Map,
    pub(crate) placement: Placement,
    pub(crate) stores: Vec<Arc<dyn BlobStore>>,
}

impl ClusterWorld {
    /// The zones that there are, as this node knows.
    pub(crate) fn zones(&self) -> BTreeSet<String> {
        let Some(map) = self.map.get() else { return BTreeSet::new() };
        map.map.regions.iter().map(|region| region.zone.clone()).collect()
    }

    /// Begins a sweep.
    pub(crate) async fn start(&self, zone: &str, reads: bool) -> Result<(), SweepError> {
        let start = pb::StartSweep { zone: zone.to_owned(), reads };
        self.calls.propose(ShardId::PLACEMENT, Op::StartSweep(start)).await?;
        Ok(())
    }

    pub(crate) fn view_of(&self, map: &MapView, zone: &str) -> Result<ZoneView, SweepError> {
        let mut stores = Vec::new();
        for region in map.map.regions.iter().filter(|region| region.zone == zone) {
            let store = self.stores.iter().find(|store| store.region() == region.name);
            stores.push(store.cloned().ok_or_else(|| SweepError::UnknownStore(region.name.clone()))?);
        }
        let of_zone = map.map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox && shard.zone == zone);
        let shards = of_zone.map(|shard| {
            let id = ShardId(shard.id);
            (id, map.replicas(id).map(|node| node.region.clone()).collect())
        });
        Ok(ZoneView { stores, shards: shards.collect() })
    }
}

impl World for ClusterWorld {
    async fn view(&self, zone: &str) -> Result<ZoneView, SweepError> {
        let map = self.placement.newest().await.map_err(|_| SweepError::NoMap)?;
        self.view_of(&map, zone)
    }

    async fn record(&self, step: pb::AdvanceSweep) -> Result<(), SweepError> {
        match self.calls.propose(ShardId::PLACEMENT, Op::AdvanceSweep(step)).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused { refusal: Refusal::Conflict, .. }) => Err(SweepError::Overtaken),
            Err(error) => Err(error.into()),
        }
    }

    async fn blobs(&self, shard: ShardId, after: Bytes, until: Bytes) -> Result<pb::BlobPage, SweepError> {
        let query = Query::ListBlobs(pb::ListBlobs { after, until, limit: 0 });
        match self.calls.query(shard, query).await? {
            Answer::Blobs(page) => Ok(page),
            _ => Err(SweepError::Malformed),
        }
    }

    async fn condemn(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<Vec<Bytes>, SweepError> {
        match self.calls.propose(shard, Op::CondemnBlobs(pb::CondemnBlobs { batch, blobs })).await? {
            outcome::Result::BlobsCondemned(condemned) => Ok(condemned.kept),
            _ => Err(SweepError::Malformed),
        }
    }

    async fn pardon(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<(), SweepError> {
        self.calls.propose(shard, Op::PardonBlobs(pb::PardonBlobs { batch, blobs })).await?;
        Ok(())
    }
}
