//! The router and what its parts share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::RwLock;
use postrider_api::env::random;
use postrider_api::id::{ModSeq, NodeId, ShardId, Slot, UserId, ZoneId};
use postrider_api::limit::{COMMAND_BYTES_MAX, STAMP_BYTES_MAX};
use postrider_api::pb::{self, fault::Fault, propose_reply, query_reply};
use postrider_api::version;
use prost::Message;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tonic::Status;

use crate::admin::AdminClient;
use crate::error::{ConnectError, RouteError};
use crate::map::{MapView, Next};
use crate::map_watch;
use crate::options::RouterOptions;
use crate::peer::{Peer, Pool};
use crate::pursuit::{Errand, Intent, Reply, pursue};

/// Round trip that is assumed to a node of the own region until one was measured.
const NEAR: Duration = Duration::from_millis(1);
/// The same for a node of another region.
const FAR: Duration = Duration::from_millis(150);

/// How a read may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Linearizable, by the leader, or not at all.
    Consistent,
    /// Consistent where that is quick; otherwise by any replica, and marked stale (P-4).
    StaleOk,
}

/// An answer, and how old it may be.
#[derive(Debug, Clone)]
pub struct Answered {
    /// What the shard said.
    pub answer: pb::Answer,
    /// Milliseconds since the replica last heard from a leader; `None`: the read was linearizable.
    pub stale_ms: Option<u64>,
    /// The mailbox's modseq before its rows were read, where it was asked for.
    pub modseq: Option<ModSeq>,
}

/// Finds the right node for every call. Cheap to clone; the last clone that is dropped ends its tasks.
#[derive(Clone)]
pub struct Router {
    pub(crate) core: Arc<Core>,
    /// Held for its Drop.
    _tasks: Arc<Tasks>,
}

struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Router {
    /// Starts a router once any seed has given it a shard map (which may still be empty in a new cluster).
    ///
    /// # Errors
    /// When there is none within `options.timings.first_map`.
    pub fn connect(options: RouterOptions) -> BoxFuture<'static, Result<Router, ConnectError>> {
        Box::pin(async move {
            let core = Arc::new(Core::new(options)?);
            let first_map = core.options.timings.first_map;
            let follower = tokio::spawn(map_watch::follow(core.clone()));
            let prober = tokio::spawn(map_watch::probe(core.clone()));
            let router = Router { core, _tasks: Arc::new(Tasks(vec![follower.abort_handle(), prober.abort_handle()])) };
            let mut arrived = router.core.arrived.subscribe();
            if tokio::time::timeout(first_map, arrived.wait_for(|arrived| *arrived)).await.is_err() {
                return Err(ConnectError::NoMap {
                    tried: router.core.options.nodes.len(),
                    last: router.core.map_trouble.read().clone(),
                });
            }
            Ok(router)
        })
    }

    /// The shard map as this process knows it.
    pub fn map(&self) -> Arc<pb::ShardMap> {
        self.core.view().map.clone()
    }

    /// Holds the newest shard map, and wakes whenever it has changed.
    pub fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>> {
        self.core.published.subscribe()
    }

    /// Has `command` carried out by the shard's leader. It is tried again under one request id until `deadline` has passed;
    /// a command without a request id gets a random one. `session` is checked by the leader in the same call.
    ///
    /// # Errors
    /// [`RouteError::NoQuorum`], [`RouteError::Busy`] and the refusals: certainly not carried out.
    /// [`RouteError::TimedOut`] says whether it may have been.
    pub fn propose(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<pb::Outcome, RouteError>> {
        self.propose_at(shard, 0, session, command, deadline)
    }

    /// The same, only while the shard has the replicas that it has under `epoch`; 0: whichever it has. For commands that refer to
    /// what was put where these replicas are.
    ///
    /// # Errors
    /// As for [`Router::propose`]; [`RouteError::Moved`] when the shard's epoch has risen.
    pub fn propose_at(
        &self,
        shard: ShardId,
        epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<pb::Outcome, RouteError>> {
        Box::pin(async move {
            let command = self.core.complete(command)?;
            let (command, session) = (&command, &session);
            let errand = Errand { epoch: (epoch > 0).then_some(epoch), ..Errand::new(shard, Intent::Write, deadline) };
            pursue(&self.core, errand, |peer, epoch| async move {
                let request =
                    pb::ProposeRequest { shard: shard.0, epoch, session: session.clone(), command: command.clone() };
                let reply = peer.shard_service().propose(request).await?.into_inner();
                outcome(reply)
            })
            .await
        })
    }

    /// Reads from a shard.
    ///
    /// `min_modseq`: the answer comes from a replica whose mailbox is at least that new (P-2); 0 for none.
    ///
    /// # Errors
    /// With [`ReadMode::StaleOk`], only when no replica at all answers.
    pub fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        mode: ReadMode,
        min_modseq: u64,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Answered, RouteError>> {
        let request = request(shard, session, query, min_modseq);
        Box::pin(self.ask(request, mode, deadline))
    }

    /// The same of a mailbox that has changed since `known`: otherwise the answer is `Unchanged`, at the cost of no rows. The
    /// answer says which modseq it belongs to.
    ///
    /// # Errors
    /// As for [`Router::query`].
    pub fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: pb::query::Query,
        known: Option<ModSeq>,
        min_modseq: u64,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Answered, RouteError>> {
        let unless_modseq = known.map(|known| known.0);
        let request =
            pb::QueryRequest { tell_modseq: true, unless_modseq, ..request(shard, session, query, min_modseq) };
        Box::pin(self.ask(request, ReadMode::StaleOk, deadline))
    }

    async fn ask(&self, request: pb::QueryRequest, mode: ReadMode, deadline: Duration) -> Result<Answered, RouteError> {
        let shard = ShardId(request.shard);
        let began = self.core.now();
        let patience = match mode {
            ReadMode::Consistent => deadline,
            // At least half of the time is left for replicas that are no leader.
            ReadMode::StaleOk => self.core.consistent_first(shard).min(deadline / 2),
        };
        match self.consistent(shard, &request, patience).await {
            Err(error @ (RouteError::NoQuorum | RouteError::Busy | RouteError::TimedOut { .. }))
                if mode == ReadMode::StaleOk =>
            {
                self.core.trouble(shard);
                let left = deadline.saturating_sub(self.core.now().saturating_sub(began));
                self.stale(shard, request, left, error).await
            }
            other => other,
        }
    }

    async fn consistent(
        &self,
        shard: ShardId,
        request: &pb::QueryRequest,
        limit: Duration,
    ) -> Result<Answered, RouteError> {
        let mut errand = Errand::new(shard, Intent::Read, limit);
        if reads_the_whole_shard(request) {
            errand.waits = limit;
        }
        pursue(&self.core, errand, |peer, epoch| async move {
            let request = pb::QueryRequest { epoch, ..request.clone() };
            let reply = peer.shard_service().query(request).await?.into_inner();
            Ok(match answer(reply)? {
                Ok(answered) => Reply::Done(answered),
                Err(fault) => Reply::Fault(fault),
            })
        })
        .await
    }

    /// Any replica's answer, the nearest first; `error` when there is none.
    async fn stale(
        &self,
        shard: ShardId,
        request: pb::QueryRequest,
        limit: Duration,
        mut error: RouteError,
    ) -> Result<Answered, RouteError> {
        let request = pb::QueryRequest { mode: pb::ReadMode::Stale.into(), ..request };
        let until = self.core.now().saturating_add(limit);
        let is_long = reads_the_whole_shard(&request);
        let attempt = if is_long { Duration::MAX } else { self.core.options.timings.attempt };
        for peer in self.core.nearest(self.core.replicas(shard)) {
            let began = self.core.now();
            let left = until.saturating_sub(began).min(attempt);
            let mut service = peer.shard_service();
            match tokio::time::timeout(left, service.query(request.clone())).await {
                Ok(Ok(reply)) => {
                    peer.suspicion.answered();
                    peer.latency.record(self.core.now().saturating_sub(began));
                    match answer(reply.into_inner()) {
                        Ok(Ok(answered)) => {
                            metrics::counter!("postrider_router_stale_reads_total").increment(1);
                            return Ok(answered);
                        }
                        Ok(Err(fault)) => error = stale_refusal(fault, error),
                        Err(status) => error = RouteError::Malformed { detail: status.message().to_owned() },
                    }
                }
                Ok(Err(status)) => {
                    tracing::debug!(shard = shard.0, node = %peer.address, %status, "stale read failed");
                    self.core.failed(&peer);
                }
                Err(_) if is_long => {}
                Err(_) => self.core.failed(&peer),
            }
        }
        Err(error)
    }

    /// The directory shard of a zone that answers for a slot, by the map as it is known here.
    pub fn directory_shard(&self, zone: ZoneId, slot: Slot) -> Option<ShardId> {
        self.core.view().directory_shard(zone, slot)
    }

    /// The mailbox shard for a new user of a domain (in A-labels): by his id among the shards of his zone that the domain's policy wants, those
    /// at home in `region`, or all of them where none is.
    pub fn place_user(&self, region: &str, domain: &str, user: UserId) -> Option<ShardId> {
        self.core.view().place_user(region, domain, user)
    }

    /// The operator's interface of a node that the map knows.
    ///
    /// # Errors
    /// When the map does not know it.
    pub fn admin(&self, node: NodeId) -> Result<AdminClient, RouteError> {
        let view = self.core.view();
        let node = view.node(node).ok_or(RouteError::UnknownShard)?;
        let peer = self.core.peer(&node.address).ok_or(RouteError::UnknownShard)?;
        Ok(AdminClient::new(peer.address.clone(), peer.admin_service()))
    }

    /// The measured round trip to a node, if one was measured.
    pub fn latency(&self, node: NodeId) -> Option<Duration> {
        let address = self.core.view().node(node)?.address.clone();
        self.core.peer(&address)?.latency.get()
    }
}

fn request(
    shard: ShardId,
    session: Option<pb::SessionProof>,
    query: pb::query::Query,
    min_modseq: u64,
) -> pb::QueryRequest {
    pb::QueryRequest {
        shard: shard.0,
        session,
        mode: pb::ReadMode::Consistent.into(),
        min_modseq,
        query: Some(pb::Query { query: Some(query) }),
        ..Default::default()
    }
}

/// Queries whose cost grows with the shard: a node that works at one for long is well.
fn reads_the_whole_shard(request: &pb::QueryRequest) -> bool {
    let query = request.query.as_ref().and_then(|query| query.query.as_ref());
    matches!(query, Some(pb::query::Query::FindMessageId(_)))
}

/// Sorts a reply to a proposal.
pub(crate) fn outcome(reply: pb::ProposeReply) -> Result<Reply<pb::Outcome>, Status> {
    match reply.result {
        Some(propose_reply::Result::Outcome(outcome)) => Ok(Reply::Done(outcome)),
        Some(propose_reply::Result::Fault(fault)) => Ok(Reply::Fault(fault)),
        None => Err(Status::unknown("the node sent an empty reply")),
    }
}

/// Sorts a reply to a query.
fn answer(reply: pb::QueryReply) -> Result<Result<Answered, pb::Fault>, Status> {
    match reply.result {
        Some(query_reply::Result::Answer(answer)) => {
            Ok(Ok(Answered { answer, stale_ms: reply.stale_ms, modseq: reply.modseq.map(ModSeq) }))
        }
        Some(query_reply::Result::Fault(fault)) => Ok(Err(fault)),
        None => Err(Status::unknown("the node sent an empty reply")),
    }
}

/// What a replica's refusal of a stale read means for the whole: the refusals that another replica would give as well win
/// over "no leader", so that a client learns that its session is gone also while there is no quorum.
fn stale_refusal(fault: pb::Fault, before: RouteError) -> RouteError {
    match fault.fault {
        Some(Fault::Unauthenticated(_)) => RouteError::Unauthenticated,
        Some(Fault::Suspended(_)) => RouteError::Suspended,
        Some(Fault::Behind(_)) => RouteError::Behind,
        Some(Fault::Malformed(malformed)) => RouteError::Malformed { detail: malformed.detail },
        Some(Fault::TooCostly(costly)) => RouteError::TooCostly { detail: costly.detail },
        Some(Fault::Unready(unready)) => RouteError::Unready { detail: unready.detail },
        Some(Fault::Corrupt(corrupt)) => RouteError::Corrupt { detail: corrupt.detail },
        _ => before,
    }
}

/// What the parts of a router share.
pub(crate) struct Core {
    pub(crate) options: RouterOptions,
    pool: Pool,
    view: RwLock<Arc<MapView>>,
    pub(crate) published: watch::Sender<Arc<pb::ShardMap>>,
    /// Whether any map has come yet, an empty one included.
    pub(crate) arrived: watch::Sender<bool>,
    pub(crate) map_trouble: RwLock<String>,
    pub(crate) refresh: Notify,
    /// When placement was asked the question by which it last confirmed the map, on the router's clock.
    pub(crate) confirmed: tokio::sync::Mutex<Option<Duration>>,
    leaders: moka::sync::Cache<ShardId, Arc<str>>,
    /// When a shard was last found without a leader, on the router's clock.
    troubled: moka::sync::Cache<ShardId, Duration>,
    pub(crate) users: moka::sync::Cache<UserId, ShardId>,
}

impl Core {
    fn new(options: RouterOptions) -> Result<Self, ConnectError> {
        if options.nodes.is_empty() {
            return Err(ConnectError::NoNodes);
        }
        let pool = Pool::new(options.identity.clone(), options.limits.clone());
        for address in &options.nodes {
            pool.peer(address)
                .map_err(|error| ConnectError::Unusable { address: address.clone(), detail: error.to_string() })?;
        }
        Ok(Self {
            pool,
            view: RwLock::new(Arc::new(MapView::new(Arc::default()))),
            published: watch::Sender::new(Arc::default()),
            arrived: watch::Sender::new(false),
            map_trouble: RwLock::new("no answer".to_owned()),
            refresh: Notify::new(),
            confirmed: tokio::sync::Mutex::new(None),
            leaders: moka::sync::Cache::new(options.limits.leaders_max),
            troubled: moka::sync::Cache::new(options.limits.leaders_max),
            users: moka::sync::Cache::new(options.limits.users_max),
            options,
        })
    }

    pub(crate) fn now(&self) -> Duration {
        self.options.clock.monotonic()
    }

    /// Gives a command what every one must have, checks its size before it travels, and encodes it, once for all attempts: these
    /// bytes are what is logged.
    pub(crate) fn complete(&self, mut command: pb::Command) -> Result<Bytes, RouteError> {
        let entropy = &*self.options.entropy;
        if command.request.is_empty() {
            command.request = Bytes::copy_from_slice(&random::<16>(entropy));
        }
        if command.entropy.is_empty() {
            command.entropy = Bytes::copy_from_slice(&random::<16>(entropy));
        }
        let required = version::required(&command);
        if required > version::INITIAL {
            command.requires = command.requires.max(required);
        }
        if command.encoded_len() > COMMAND_BYTES_MAX - STAMP_BYTES_MAX {
            return Err(RouteError::TooLarge { max: COMMAND_BYTES_MAX as u64 });
        }
        Ok(command.encode_to_vec().into())
    }

    pub(crate) fn view(&self) -> Arc<MapView> {
        self.view.read().clone()
    }

    pub(crate) fn epoch(&self, shard: ShardId) -> u64 {
        self.view().shard(shard).map_or(0, |shard| shard.epoch)
    }

    /// `None` for an address that is none; the map checks them, so this is a mistake in it, and others may be right.
    pub(crate) fn peer(&self, address: &str) -> Option<Arc<Peer>> {
        self.pool.peer(address).inspect_err(|error| tracing::warn!(%address, %error, "not an address of a node")).ok()
    }

    /// The nodes that may lead a shard, its home first. The placement shard of a cluster whose map is still empty is asked
    /// for at the seeds.
    pub(crate) fn replicas(&self, shard: ShardId) -> Vec<Arc<Peer>> {
        let view = self.view();
        let replicas: Vec<_> = view.replicas(shard).iter().filter_map(|node| self.peer(&node.address)).collect();
        if replicas.is_empty() && shard == ShardId::PLACEMENT {
            return self.options.nodes.iter().filter_map(|address| self.peer(address)).collect();
        }
        replicas
    }

    /// Nearest first; those that just failed last.
    pub(crate) fn nearest(&self, mut peers: Vec<Arc<Peer>>) -> Vec<Arc<Peer>> {
        let view = self.view();
        peers.sort_by_cached_key(|peer| {
            let node = view.map.nodes.iter().find(|node| node.address == *peer.address);
            let assumed = match node {
                Some(node) if node.region == self.options.region => NEAR,
                _ => FAR,
            };
            (self.is_suspect(peer), peer.latency.get().unwrap_or(assumed))
        });
        peers
    }

    pub(crate) fn is_suspect(&self, peer: &Peer) -> bool {
        peer.suspicion.holds(self.now(), &self.options.timings)
    }

    pub(crate) fn failed(&self, peer: &Peer) {
        peer.suspicion.failed(self.now(), &self.options.timings);
    }

    pub(crate) fn leader(&self, shard: ShardId) -> Option<Arc<Peer>> {
        self.peer(&self.leaders.get(&shard)?)
    }

    pub(crate) fn leads(&self, shard: ShardId, address: &Arc<str>) {
        if self.leaders.get(&shard).is_none_or(|known| known != *address) {
            self.leaders.insert(shard, address.clone());
        }
        if self.troubled.contains_key(&shard) {
            self.troubled.invalidate(&shard);
        }
    }

    pub(crate) fn forget_leader(&self, shard: ShardId, address: &str) {
        if self.leaders.get(&shard).is_some_and(|known| &*known == address) {
            self.leaders.invalidate(&shard);
        }
    }

    pub(crate) fn trouble(&self, shard: ShardId) {
        self.troubled.insert(shard, self.now());
    }

    fn consistent_first(&self, shard: ShardId) -> Duration {
        let timings = &self.options.timings;
        let recently = |at: Duration| self.now().saturating_sub(at) < timings.leaderless;
        if self.troubled.get(&shard).is_some_and(recently) {
            timings.consistent_first_troubled
        } else {
            timings.consistent_first
        }
    }

    /// Takes in a newer entry that a replica gave with its refusal.
    pub(crate) fn mend(&self, shard: &pb::Shard) {
        let mut view = self.view.write();
        if let Some(mended) = view.with_shard(shard) {
            *view = Arc::new(mended);
            self.published.send_replace(view.map.clone());
        }
    }

    /// Takes in what the stream brings. `false`: it begins behind what is known here.
    pub(crate) fn receive(&self, update: pb::MapUpdate) -> bool {
        let mut view = self.view.write();
        match view.succeeded_by(update) {
            Next::View(next) => {
                *view = Arc::new(next);
                self.published.send_replace(view.map.clone());
            }
            Next::Known => {}
            Next::Missing => return false,
        }
        self.arrived.send_replace(true);
        true
    }

    pub(crate) fn refresh_map(&self) {
        self.refresh.notify_one();
    }

    /// Waits until the map fulfils `condition`, or `limit` has passed.
    pub(crate) async fn await_map(&self, limit: Duration, condition: impl Fn(&MapView) -> bool) {
        let mut changes = self.published.subscribe();
        self.refresh_map();
        let fulfilled = async {
            while !condition(&self.view()) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // Whoever waits looks at the map again and decides; running out of time is one of the answers.
        let _ = tokio::time::timeout(limit, fulfilled).await;
    }
}
