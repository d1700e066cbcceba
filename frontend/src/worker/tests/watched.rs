//! A cluster that tells what a worker asked of it, and lets the test act while it asks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use postrider_api::address::Address;
use postrider_api::id::{ModSeq, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, Settlement, query};
use postrider_router::{Answered, ReadMode, RouteError, WatchItem};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::cluster::mail::MailCluster;

/// Where a worker is in its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Entries were leased, and the worker has not seen them yet.
    Leased,
    /// A user was found.
    Located,
    /// A delivery is on its way to this shard.
    Delivering(ShardId),
}

/// A settlement, and what came of it.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) results: Vec<pb::RecipientResult>,
    pub(super) answer: Result<(), RouteError>,
}

impl Settled {
    /// What was said of a user, with the reason.
    pub(super) fn of(&self, user: UserId) -> Option<(Settlement, &str)> {
        let result = self.results.iter().find(|result| result.user_id.as_ref() == user.0)?;
        Some((result.settlement(), &result.reason))
    }
}

type Act = Box<dyn FnMut(Moment) + Send>;
type Answer = Box<dyn FnMut(ShardId, &pb::Command) -> Option<pb::Outcome> + Send>;

pub(super) struct Watched {
    cluster: Arc<MailCluster>,
    act: Mutex<Option<Act>>,
    answer: Mutex<Option<Answer>>,
    /// The longest lease that a leader gives, milliseconds: another one gives its own before the worker's is over.
    pub(super) lease_ms_max: Mutex<u32>,
    /// Calls that brought entries.
    pub(super) leases: Mutex<u32>,
    pub(super) delivers: Mutex<Vec<(ShardId, pb::Deliver)>>,
    pub(super) settled: Mutex<Vec<Settled>>,
}

impl Watched {
    pub(super) fn new(cluster: &Arc<MailCluster>) -> Arc<Self> {
        Arc::new(Self {
            cluster: Arc::clone(cluster),
            act: Mutex::default(),
            answer: Mutex::default(),
            lease_ms_max: Mutex::new(u32::MAX),
            leases: Mutex::default(),
            delivers: Mutex::default(),
            settled: Mutex::default(),
        })
    }

    /// Has `act` done at every moment.
    pub(super) fn at(&self, act: impl FnMut(Moment) + Send + 'static) {
        *self.act.lock() = Some(Box::new(act));
    }

    /// Has deliveries answered by `answer`, where it gives something, and not carried out.
    pub(super) fn answering(&self, answer: impl FnMut(ShardId, &pb::Command) -> Option<pb::Outcome> + Send + 'static) {
        *self.answer.lock() = Some(Box::new(answer));
    }

    fn come(&self, moment: Moment) {
        if let Some(act) = &mut *self.act.lock() {
            act(moment);
        }
    }

    /// The last settlement that names the user, with the reason.
    pub(super) fn last_of(&self, user: UserId) -> Option<(Settlement, String)> {
        let settled = self.settled.lock();
        settled
            .iter()
            .rev()
            .find_map(|settled| settled.of(user))
            .map(|(settlement, reason)| (settlement, reason.to_owned()))
    }
}

#[async_trait]
impl Cluster for Watched {
    fn map(&self) -> Arc<pb::ShardMap> {
        self.cluster.map()
    }

    fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>> {
        self.cluster.map_changes()
    }

    async fn propose(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        if let Some(Op::Deliver(deliver)) = &command.op {
            self.delivers.lock().push((shard, deliver.clone()));
            self.come(Moment::Delivering(shard));
            if let Some(outcome) = self.answer.lock().as_mut().and_then(|answer| answer(shard, &command)) {
                return Ok(outcome);
            }
        }
        self.cluster.propose(shard, session, command, deadline).await
    }

    async fn propose_at(
        &self,
        shard: ShardId,
        _epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        self.propose(shard, session, command, deadline).await
    }

    async fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        mode: ReadMode,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.cluster.query(shard, session, query, mode, min_modseq, deadline).await
    }

    async fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        known: Option<ModSeq>,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.cluster.query_unless(shard, session, query, known, min_modseq, deadline).await
    }

    fn watch(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        user: UserId,
        since: ModSeq,
    ) -> BoxStream<'static, Result<WatchItem, RouteError>> {
        self.cluster.watch(shard, session, user, since)
    }

    async fn look_up(&self, address: &Address, deadline: Duration) -> Result<Option<pb::AddressRecord>, RouteError> {
        self.cluster.look_up(address, deadline).await
    }

    async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError> {
        let located = self.cluster.locate(user, deadline).await;
        self.come(Moment::Located);
        located
    }

    fn forget(&self, user: UserId) {
        self.cluster.forget(user);
    }

    async fn zone_of_domain(&self, domain: &str, deadline: Duration) -> Result<Option<ZoneId>, RouteError> {
        self.cluster.zone_of_domain(domain, deadline).await
    }

    fn directory_shard(&self, zone: ZoneId, slot: Slot) -> Option<ShardId> {
        self.cluster.directory_shard(zone, slot)
    }

    fn place_user(&self, region: &str, domain: &str, user: UserId) -> Option<ShardId> {
        self.cluster.place_user(region, domain, user)
    }

    async fn lease_queue(
        &self,
        shard: ShardId,
        max: u32,
        lease_ms: u32,
        wait_ms: u32,
    ) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        let lease_ms = lease_ms.min(*self.lease_ms_max.lock());
        let leased = self.cluster.lease_queue(shard, max, lease_ms, wait_ms).await?;
        if !leased.is_empty() {
            *self.leases.lock() += 1;
            self.come(Moment::Leased);
        }
        Ok(leased)
    }

    async fn prolong_lease(
        &self,
        shard: ShardId,
        entry: u64,
        fence: pb::Fence,
        lease_ms: u32,
        deadline: Duration,
    ) -> Result<(), RouteError> {
        self.cluster.prolong_lease(shard, entry, fence, lease_ms, deadline).await
    }

    async fn settle_queue(
        &self,
        shard: ShardId,
        fence: pb::Fence,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        let results = match &command.op {
            Some(Op::Settle(settle)) => settle.results.clone(),
            _ => Vec::new(),
        };
        let answer = self.cluster.settle_queue(shard, fence, command, deadline).await;
        let settled = Settled { results, answer: answer.clone().map(|_| ()) };
        self.settled.lock().push(settled);
        answer
    }
}
