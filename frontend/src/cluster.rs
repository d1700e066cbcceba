//! What the protocols need of the storage cluster, as a trait: production gives them the router, tests a cluster in memory.
//!
//! The trait repeats the router's signatures and the implementation below only forwards: it is a seam for tests and no layer. A
//! router needs storage nodes behind it; tests need shards that lose an answer or a quorum at the step that they are about.
//!
//! Invariant: nothing in the frontend reaches a shard but through [`Cluster`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use postrider_api::address::Address;
use postrider_api::id::{ModSeq, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb;
use postrider_router::{Answered, ReadMode, RouteError, Router, WatchItem};
use tokio::sync::watch;

#[cfg(test)]
pub(crate) mod mail;

/// The storage cluster. The contract of each method is that of [`Router`]'s method of the same name.
#[async_trait]
pub trait Cluster: Send + Sync + 'static {
    /// The newest shard map that is known here.
    fn map(&self) -> Arc<pb::ShardMap>;

    /// The shard map as it changes.
    fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>>;

    /// Carries out one command, at most once under its request id.
    async fn propose(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError>;

    /// The same, only while the shard has the replicas that it has under `epoch`; 0: whichever it has.
    async fn propose_at(
        &self,
        shard: ShardId,
        epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError>;

    /// Reads; a mailbox older than `min_modseq` (0: any) is not answered from.
    async fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        mode: ReadMode,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError>;

    /// The same of a mailbox that has changed since `known`; stale where nothing else is to be had (P-4).
    async fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        known: Option<ModSeq>,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError>;

    /// The changes of one mailbox behind `since`, without gap or repeat, across failovers.
    fn watch(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        user: UserId,
        since: ModSeq,
    ) -> BoxStream<'static, Result<WatchItem, RouteError>>;

    /// Who has this address: a consistent read of the directory.
    async fn look_up(&self, address: &Address, deadline: Duration) -> Result<Option<pb::AddressRecord>, RouteError>;

    /// The mailbox shard of a user.
    async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError>;

    /// Drops what is cached about a user.
    fn forget(&self, user: UserId);

    /// The residency zone of a domain, in A-labels; `None`: it is none of ours, and that is no old map's word.
    async fn zone_of_domain(&self, domain: &str, deadline: Duration) -> Result<Option<ZoneId>, RouteError>;

    /// The directory shard of a zone that answers for a slot.
    fn directory_shard(&self, zone: ZoneId, slot: Slot) -> Option<ShardId>;

    /// The mailbox shard for a new user of a domain, of his zone and the domain's policy, and of a region if these have it.
    fn place_user(&self, region: &str, domain: &str, user: UserId) -> Option<ShardId>;

    /// Queue entries that are due, leased to the caller.
    async fn lease_queue(
        &self,
        shard: ShardId,
        max: u32,
        lease_ms: u32,
        wait_ms: u32,
    ) -> Result<Vec<pb::LeasedEntry>, RouteError>;

    /// Has the lease of an entry last for `lease_ms` from now.
    async fn prolong_lease(
        &self,
        shard: ShardId,
        entry: u64,
        fence: pb::Fence,
        lease_ms: u32,
        deadline: Duration,
    ) -> Result<(), RouteError>;

    /// What became of a leased queue entry.
    async fn settle_queue(
        &self,
        shard: ShardId,
        fence: pb::Fence,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError>;
}

#[async_trait]
impl Cluster for Router {
    fn map(&self) -> Arc<pb::ShardMap> {
        Router::map(self)
    }

    fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>> {
        Router::map_changes(self)
    }

    async fn propose(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        Router::propose(self, shard, session, command, deadline).await
    }

    async fn propose_at(
        &self,
        shard: ShardId,
        epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        Router::propose_at(self, shard, epoch, session, command, deadline).await
    }

    async fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        mode: ReadMode,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        Router::query(self, shard, session, query, mode, min_modseq, deadline).await
    }

    async fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        known: Option<ModSeq>,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        Router::query_unless(self, shard, session, query, known, min_modseq, deadline).await
    }

    fn watch(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        user: UserId,
        since: ModSeq,
    ) -> BoxStream<'static, Result<WatchItem, RouteError>> {
        Router::watch(self, shard, session, user, since).boxed()
    }

    async fn look_up(&self, address: &Address, deadline: Duration) -> Result<Option<pb::AddressRecord>, RouteError> {
        Router::look_up(self, address, deadline).await
    }

    async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError> {
        Router::locate(self, user, deadline).await
    }

    fn forget(&self, user: UserId) {
        Router::forget(self, user);
    }

    async fn zone_of_domain(&self, domain: &str, deadline: Duration) -> Result<Option<ZoneId>, RouteError> {
        Router::zone_of_domain(self, domain, deadline).await
    }

    fn directory_shard(&self, zone: ZoneId, slot: Slot) -> Option<ShardId> {
        Router::directory_shard(self, zone, slot)
    }

    fn place_user(&self, region: &str, domain: &str, user: UserId) -> Option<ShardId> {
        Router::place_user(self, region, domain, user)
    }

    async fn lease_queue(
        &self,
        shard: ShardId,
        max: u32,
        lease_ms: u32,
        wait_ms: u32,
    ) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        Router::lease_queue(self, shard, max, lease_ms, wait_ms).await
    }

    async fn prolong_lease(
        &self,
        shard: ShardId,
        entry: u64,
        fence: pb::Fence,
        lease_ms: u32,
        deadline: Duration,
    ) -> Result<(), RouteError> {
        Router::prolong_lease(self, shard, entry, fence, lease_ms, deadline).await
    }

    async fn settle_queue(
        &self,
        shard: ShardId,
        fence: pb::Fence,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        Router::settle_queue(self, shard, fence, command, deadline).await
    }
}
