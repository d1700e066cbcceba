//! The host: opening it, its groups, closing it.
//!
//! What it returns to other crates are boxed futures, so that consensus is compiled here and once (docs/adr/043).

mod closing;
mod inbox;
mod members;
mod propose;
mod read;
mod receive;
pub(crate) mod supervise;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::Instant;

use crate::beat::Quiescence;
use crate::blocking::Threads;
use crate::campaign;
use crate::config;
use crate::election::Elections;
use crate::error::{GroupError, OpenError};
use crate::flusher;
use crate::ids::{GroupId, GroupIdentity, Incarnation, Member, NodeId};
use crate::lease::{ClockWatch, Probation};
use crate::log::disk::Directory;
use crate::log::engine::{LogEngine, LogError, LogOp};
use crate::log::segment::{SegmentLimits, SegmentLog};
use crate::log::store::{FlushedIndex, GroupLog, LogShared, LogStore};
use crate::log::tail::TailBudget;
use crate::log::writer::Writer;
use crate::machine::{Machine, MachineFactory};
use crate::options::HostOptions;
use crate::quiesce;
use crate::replica::{Instance, Replica, Running};
use crate::snapshot::install::Installer;
use crate::snapshot::reception::Receptions;
use crate::snapshot::spool::{self, Spool};
use crate::state::machine::{Applied, StateAdapter, StateShared};
use crate::state::store::StateStore;
use crate::stats::{Counters, HostStats};
use crate::status::GroupStatus;
use crate::transport::addresses::Addresses;
use crate::transport::network::{NetworkFactory, NetworkShared};
use crate::transport::tcp::TcpTransport;
use crate::transport::{self, Inbox, Socket, Transport};
use crate::types::Raft;

pub(crate) use closing::Closing;
pub use propose::Proposed;

/// All Raft groups of one node. Cheap to clone.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) options: HostOptions,
    factory: Arc<dyn MachineFactory>,
    config: Arc<openraft::Config>,
    /// Of consensus that starts as the leader that it was when it was parked.
    leading_config: Arc<openraft::Config>,
    pub(crate) log: LogShared,
    pub(crate) store: Arc<StateStore>,
    state: StateShared,
    pub(crate) network: Arc<NetworkShared>,
    pub(crate) quiescence: Quiescence,
    pub(crate) elections: Elections,
    pub(crate) replicas: RwLock<BTreeMap<GroupId, Arc<Replica>>>,
    /// Held while a replica is opened or removed: one at a time.
    changing: Mutex<()>,
    /// Bytes of proposals that the node may still take.
    room: Arc<Semaphore>,
    pub(crate) receptions: Receptions,
    pub(crate) clock: ClockWatch,
    pub(crate) counters: Arc<Counters>,
    pub(crate) closing: Arc<Closing>,
}

impl Host {
    /// Opens the databases in the options' directory and every replica that this node hosts.
    ///
    /// # Errors
    /// When the directory is not this node's, or cannot be read, or what is in it contradicts itself.
    pub fn open(options: HostOptions, factory: Arc<dyn MachineFactory>) -> BoxFuture<'static, Result<Self, OpenError>> {
        Box::pin(async move {
            config::check(&options)?;
            let opening = options.clone();
            let (engine, store) = tokio::task::spawn_blocking(move || open_databases(&opening))
                .await
                .map_err(|error| OpenError::Corrupt(error.to_string()))??;
            let inner = Inner::assemble(options, factory, engine, store)?;
            let host = Self { inner: Arc::new(inner) };
            let groups = host.inner.log.engine.groups().map_err(|error| OpenError::Corrupt(error.to_string()))?;
            let mut all = true;
            for (id, incarnation) in groups {
                let group = GroupIdentity { id, incarnation };
                // One damaged replica stops alone, and says why; the others serve.
                if let Err(error) = host.inner.clone().open_hosted(group).await {
                    tracing::error!(group = %id, %error, "a replica does not open");
                    all = false;
                    let replica = Replica::new(group, host.inner.options.limits.group_inflight_bytes_max);
                    replica.stop(error.to_string());
                    host.inner.replicas.write().insert(id, Arc::new(replica));
                }
            }
            if all {
                // Otherwise a pending installation may still want its files.
                host.inner.clear_spool()?;
            }
            tokio::spawn(campaign::run(Arc::downgrade(&host.inner), host.inner.closing.clone()));
            tokio::spawn(quiesce::run(Arc::downgrade(&host.inner), host.inner.closing.clone()));
            tokio::spawn(flusher::run(Arc::downgrade(&host.inner), host.inner.closing.clone()));
            Ok(host)
        })
    }

    /// The state database, for queries. Every group's rows lie under its [`crate::state_prefix`].
    pub fn state(&self) -> Arc<rocksdb::DB> {
        self.inner.store.db().clone()
    }

    /// Takes what a peer sends over `stream`, until the connection ends or the host closes. That it is a peer, and nobody else, is for
    /// the caller to know.
    pub fn serve(&self, stream: impl Socket + 'static) -> BoxFuture<'static, ()> {
        let serving = transport::serve(Box::new(stream), self.inbox());
        Box::pin(async move {
            if let Err(reason) = serving.await {
                tracing::debug!(%reason, "the connection of a peer has ended");
            }
        })
    }

    /// Serves every connection that comes in plain text, as peers without TLS make them. They end when this is dropped.
    pub fn listen(&self, listener: TcpListener) -> BoxFuture<'static, ()> {
        Box::pin(transport::listen(listener, self.inbox()))
    }

    /// Where messages from peers go in, for transports other than TCP.
    pub fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::new(inbox::HostInbox::new(&self.inner))
    }

    /// Takes in where nodes are reached now. It counts more than what the memberships say, in which a node's new address comes to stand
    /// only once its groups have agreed on it, and for that they may need the node.
    pub fn know_addresses(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        self.inner.network.addresses.learn(addresses);
    }

    /// Hosts an empty replica of this making of `group`, which waits for a leader. Durable; does nothing if it is hosted already. One of
    /// another making that has never begun makes way.
    ///
    /// # Errors
    /// When the node hosts too many, or one of another making that has begun, or the log cannot be written.
    pub fn open_replica(&self, group: GroupId, incarnation: Incarnation) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            let inner = &self.inner;
            let _one_at_a_time = inner.changing.lock().await;
            if inner.closing.is_closed() {
                return Err(GroupError::Closed);
            }
            if let Some(replica) = inner.replica(group) {
                let hosted = replica.incarnation;
                if hosted == incarnation {
                    return Ok(());
                }
                if !replica.is_blank() {
                    return Err(GroupError::OtherIncarnation { group, hosted });
                }
                inner.clone().remove_alone(group).await?;
            }
            let max = inner.options.limits.groups_max;
            if inner.replicas.read().len() >= max {
                return Err(GroupError::TooMany { max });
            }
            let store = inner.store.clone();
            // What an earlier replica of the group may have left behind when its removal was cut short.
            tokio::task::spawn_blocking(move || store.erase(group))
                .await
                .map_err(|error| storage(group, error))?
                .map_err(|error| storage(group, error))?;
            let host = LogOp::Host(incarnation);
            inner.log.writer.write(group, None, host).await.map_err(|error| storage(group, error))?;
            inner.clone().open_hosted(GroupIdentity { id: group, incarnation }).await
        })
    }

    /// Begins a new group with `members` as its voters. To be called on one of them, when the others have opened their
    /// replicas. Does nothing if the group has begun already. `incarnation`: drawn by chance for this making of it.
    ///
    /// # Errors
    /// When this node is not among the members, or hosts a replica of another making, or storage fails.
    pub fn create_group(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        members: BTreeMap<NodeId, Member>,
    ) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move {
            if !members.contains_key(&self.inner.options.node) {
                return Err(GroupError::NotAMember);
            }
            self.open_replica(group, incarnation).await?;
            let replica = self.inner.replica(group).ok_or(GroupError::UnknownGroup)?;
            let instance = match replica.running().map_err(|reason| storage(group, reason))? {
                Running::Here(instance) => instance,
                // Only a group that has begun ever falls silent.
                Running::Parked(_) => return Ok(()),
            };
            replica.begin(&instance);
            match instance.raft.initialize(members).await {
                Ok(()) => Ok(()),
                Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
                Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotInMembers(_))) => {
                    Err(GroupError::NotAMember)
                }
                Err(openraft::errors::RaftError::Fatal(fatal)) => Err(storage(group, fatal)),
            }
        })
    }

    /// Ends the hosting of `group` and deletes its data here, except for its vote. The group's other members must have
    /// removed this node before.
    ///
    /// # Errors
    /// When storage fails; the removal is completed when it is asked for again.
    pub fn remove_replica(&self, group: GroupId) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move { self.inner.clone().remove(group).await })
    }

    /// The replica of `group` as it is now.
    pub fn status(&self, group: GroupId) -> Option<GroupStatus> {
        let replica = self.inner.replica(group)?;
        let mut status = replica.status();
        if replica.leads_quiesced() {
            status.quorum_ack_age_ms = self.inner.quorum_asked_ms(&status.voters);
        }
        Some(status)
    }

    /// Changes of the replica of `group`. The age of the quorum's word is left out: it changes all the time.
    pub fn watch(&self, group: GroupId) -> Option<watch::Receiver<GroupStatus>> {
        self.inner.replica(group).map(|replica| replica.watch())
    }

    /// The groups of which this node hosts a replica.
    pub fn groups(&self) -> Vec<GroupId> {
        self.inner.replicas.read().keys().copied().collect()
    }

    /// What the host has done since it was opened.
    pub fn stats(&self) -> HostStats {
        self.inner.counters.read()
    }

    /// Flushes the state and purges what the log then no longer needs.
    ///
    /// # Errors
    /// When the state cannot be written.
    pub fn flush(&self) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move { flusher::flush(&self.inner).await })
    }

    /// Removes from the disk what was deleted, as far as the log is not needed by a follower that is behind. Rewrites log and
    /// state: for once in a while.
    ///
    /// # Errors
    /// When the state or the log cannot be written.
    pub fn vacuum(&self) -> BoxFuture<'_, Result<(), GroupError>> {
        Box::pin(async move { flusher::vacuum(&self.inner).await })
    }

    /// Stops all replicas and closes the databases. What was acknowledged is on disk with or without this.
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let inner = &self.inner;
            if !inner.closing.close() {
                return;
            }
            let _one_at_a_time = inner.changing.lock().await;
            let replicas: Vec<_> = std::mem::take(&mut *inner.replicas.write()).into_values().collect();
            for replica in replicas {
                replica.close();
                let _turn = replica.turn().await;
                if let Some(instance) = replica.stop("the host was closed".to_owned()) {
                    // Without it the state is as old as its last flush until a leader is heard.
                    if let Err(error) = instance.log.mark_committed().await {
                        tracing::info!(group = %replica.group, %error, "what is committed was not written down");
                    }
                    shut(instance).await;
                }
            }
            inner.receptions.close().await;
            inner.log.writer.close().await;
        })
    }
}

/// How consensus of a replica starts.
pub(crate) enum Start {
    /// For the first time in this process, or after it has failed.
    Anew,
    /// It was parked.
    Again {
        /// It starts as the leader that it was.
        leads: bool,
        machine: Arc<dyn Machine>,
    },
}

/// Stops an instance of consensus. When this returns nothing of it will change the log or the state any more.
pub(crate) async fn shut(instance: Instance) {
    // What it has queued for the log and not written is refused.
    instance.log.fail(&LogError::Closed);
    let applied = instance.applied.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || applied.retire()).await {
        tracing::error!(%error, "a replica's last write did not end");
    }
    if let Err(error) = instance.raft.shutdown().await {
        tracing::error!(%error, "a replica panicked while it stopped");
    }
}

/// Does what may wait for the disk where it holds up nobody.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> std::io::Result<T>
where
    T: Send + 'static,
    E: Into<std::io::Error> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?.map_err(Into::into)
}

fn storage(group: GroupId, reason: impl ToString) -> GroupError {
    GroupError::Storage { group, reason: reason.to_string() }
}

fn create(path: &Path) -> Result<(), OpenError> {
    std::fs::create_dir_all(path).map_err(|source| OpenError::Directory { path: path.to_owned(), source })
}

fn open_databases(options: &HostOptions) -> Result<(SegmentLog, StateStore), OpenError> {
    for name in ["log", "state", "spool"] {
        create(&options.dir.join(name))?;
    }
    let path = options.dir.join("log");
    let disk = Directory::open(&path).map_err(|source| OpenError::Directory { path, source })?;
    let limits =
        SegmentLimits { segment_bytes: options.limits.log_segment_bytes, log_bytes: options.limits.log_bytes_max };
    let engine = SegmentLog::open(Arc::new(disk), limits)
        .map_err(|error| OpenError::Database { database: "log", reason: error.to_string() })?;
    let found = engine.claim(options.node).map_err(|error| OpenError::Corrupt(error.to_string()))?;
    if found != options.node {
        return Err(OpenError::WrongNode { found, expected: options.node });
    }
    let store = StateStore::open(&options.dir.join("state"), &options.limits)
        .map_err(|error| OpenError::Database { database: "state", reason: error.to_string() })?;
    Ok((engine, store))
}

impl Inner {
    fn assemble(
        options: HostOptions,
        factory: Arc<dyn MachineFactory>,
        engine: SegmentLog,
        store: StateStore,
    ) -> Result<Self, OpenError> {
        let limits = options.limits.clone();
        let timings = options.timings.clone();
        let counters = Arc::new(Counters::default());
        let engine: Arc<dyn LogEngine> = Arc::new(engine);
        let store = Arc::new(store);
        let threads = Threads::watch().map_err(|source| OpenError::Directory { path: options.dir.clone(), source })?;
        let writer = Writer::start(engine.clone(), counters.clone(), options.faults.clone(), threads.clone())
            .map_err(|source| OpenError::Directory { path: options.dir.clone(), source })?;
        let log = LogShared {
            node: options.node,
            engine,
            writer: writer.clone(),
            budget: Arc::new(TailBudget::new(limits.tail_bytes_max)),
            flushed: Arc::downgrade(&(store.clone() as Arc<dyn FlushedIndex>)),
            append_bytes_max: limits.append_bytes_max,
            apply_bytes_max: limits.apply_bytes_max,
        };
        let installer = Installer {
            store: store.clone(),
            writer,
            spool: Spool {
                dir: options.dir.join("spool"),
                file_bytes: limits.snapshot_file_bytes,
                faults: options.faults.clone(),
            },
            faults: options.faults.clone(),
            block_bytes: limits.snapshot_block_bytes,
            serial: AtomicU64::new(rand::random()),
        };
        let state = StateShared {
            store: store.clone(),
            installer: Arc::new(installer),
            counters: counters.clone(),
            faults: options.faults.clone(),
            threads,
            apply_bytes_max: limits.apply_bytes_max,
        };
        let addresses = Arc::new(Addresses::default());
        let transport: Arc<dyn Transport> = match &options.transport {
            Some(transport) => transport.clone(),
            None => Arc::new(TcpTransport::new(&options, addresses.clone())),
        };
        let network = NetworkShared {
            node: options.node,
            transport,
            addresses,
            timings: timings.clone(),
            limits: limits.clone(),
            sending: Arc::new(Semaphore::new(limits.snapshots_max)),
        };
        Ok(Self {
            config: Arc::new(config::openraft(&timings, false)?),
            leading_config: Arc::new(config::openraft(&timings, true)?),
            clock: ClockWatch::new(options.clock.clone(), timings.lease()),
            options,
            factory,
            log,
            store,
            state,
            network: Arc::new(network),
            quiescence: Quiescence::new(),
            elections: Elections::new(),
            replicas: RwLock::new(BTreeMap::new()),
            changing: Mutex::new(()),
            room: Arc::new(Semaphore::new(limits.node_inflight_bytes_max)),
            receptions: Receptions::new(limits.snapshots_max, Duration::from_millis(timings.snapshot_idle_ms)),
            counters,
            closing: Arc::new(Closing::default()),
        })
    }

    pub(crate) fn replica(&self, group: GroupId) -> Option<Arc<Replica>> {
        self.replicas.read().get(&group).cloned()
    }

    /// Removes folders of snapshots that were never recorded as complete.
    fn clear_spool(&self) -> Result<(), OpenError> {
        let dir = self.options.dir.join("spool");
        let fail = |source| OpenError::Directory { path: dir.clone(), source };
        for entry in std::fs::read_dir(&dir).map_err(fail)? {
            spool::remove_folder(&entry.map_err(fail)?.path()).map_err(fail)?;
        }
        Ok(())
    }

    /// Opens a replica that the log says is hosted here, and watches over it.
    async fn open_hosted(self: Arc<Self>, group: GroupIdentity) -> Result<(), GroupError> {
        let replica = Arc::new(Replica::new(group, self.options.limits.group_inflight_bytes_max));
        let instance = self.start_instance(&replica, Start::Anew).await?;
        replica.start(instance);
        self.replicas.write().insert(group.id, replica.clone());
        tokio::spawn(supervise::run(Arc::downgrade(&self), self.closing.clone(), replica));
        Ok(())
    }

    /// Starts consensus for a group from what the log and the state hold. Boxed: the task that watches over a replica would
    /// have room for all of it for ever.
    pub(crate) fn start_instance<'a>(
        &'a self,
        replica: &'a Replica,
        start: Start,
    ) -> BoxFuture<'a, Result<Instance, GroupError>> {
        Box::pin(async move {
            let group = replica.group;
            let fail = |error: std::io::Error| storage(group, error);
            // What an instance before this one had queued is written or refused now, and cannot come after what is read here.
            self.log.writer.write(group, None, LogOp::Barrier).await.map_err(|error| storage(group, error))?;
            let engine = self.log.engine.clone();
            let head = blocking(move || engine.head(group)).await.map_err(fail)?;
            if let Some(record) = head.installing {
                self.state.installer.resume(group, record).await.map_err(fail)?;
            }
            let shared = self.log.clone();
            let log = blocking(move || GroupLog::open(group, shared)).await.map_err(fail)?;
            let store = self.store.clone();
            let flushed = blocking(move || store.flushed_meta(group)).await.map_err(fail)?;
            let flushed = flushed.and_then(|meta| meta.last_log_id);
            replica.set_flushed(flushed.map(|id| id.index));
            let is_anew = matches!(start, Start::Anew);
            let probation = if !is_anew || (log.is_pristine() && flushed.is_none()) {
                Probation::none()
            } else {
                // Counted from here, not from the start of the process: an instance that is opened anew has forgotten, too.
                Probation::after_restart(Instant::now(), self.options.timings.lease())
            };
            let (machine, config) = match start {
                Start::Anew => (self.factory.machine(group), &self.config),
                Start::Again { leads: false, machine } => (machine, &self.config),
                Start::Again { leads: true, machine } => (machine, &self.leading_config),
            };
            let applied = Arc::new(Applied::default());
            let adapter = StateAdapter::open(group, self.state.clone(), machine.clone(), log.clone(), applied.clone())
                .map_err(fail)?;
            if is_anew {
                machine.restored(applied.get().unwrap_or(0));
            }
            let network = NetworkFactory { group: replica.identity(), shared: self.network.clone() };
            let raft = Raft::new(self.options.node, config.clone(), network, LogStore(log.clone()), adapter)
                .await
                .map_err(|error| storage(group, error))?;
            Ok(Instance { raft, log, applied, machine, probation })
        })
    }

    async fn remove(self: Arc<Self>, group: GroupId) -> Result<(), GroupError> {
        let inner = self.clone();
        let _one_at_a_time = inner.changing.lock().await;
        self.remove_alone(group).await
    }

    /// With the lock on `changing` held.
    async fn remove_alone(self: Arc<Self>, group: GroupId) -> Result<(), GroupError> {
        let replica = self.replicas.write().remove(&group);
        if let Some(replica) = replica {
            replica.close();
            let _turn = replica.turn().await;
            // Who sleeps under it learns that it leads no more.
            replica.let_go(&self);
            if let Some(instance) = replica.stop("the replica was removed".to_owned()) {
                replica.wake_up(&self, &instance);
                shut(instance).await;
            }
        }
        self.receptions.forget(group).await;
        self.log.writer.write(group, None, LogOp::Forget).await.map_err(|error| storage(group, error))?;
        self.options.faults.reach(crate::faults::FaultPoint::RemoveLogGone).map_err(|error| storage(group, error))?;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.erase(group))
            .await
            .map_err(|error| storage(group, error))?
            .map_err(|error| storage(group, error))
    }
}
