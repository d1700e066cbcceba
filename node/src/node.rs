//! The node: put together, started and stopped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use postrider_api::id::ShardId;
use postrider_api::identity::NODE_TLS_NAME;
use postrider_api::limit::{MAP_BYTES_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use postrider_api::pb::admin_service_server::AdminServiceServer;
use postrider_api::pb::shard_service_server::ShardServiceServer;
use postrider_api::tls::TlsError;
use postrider_api::trace::grpc::ServerLayer;
use postrider_raft::{Host, HostOptions, OpenError, PeerTls};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admin::Admin;
use crate::balance::Balancer;
use crate::balance::look::Lookout;
use crate::calls::Calls;
use crate::clock::{ClockKeeper, Trust};
use crate::deletion::Deleter;
use crate::follow::{self, Follow, Follower, FollowerThread, Inbox, Tallies};
use crate::gauges::Gauges;
use crate::http;
use crate::hub::Hub;
use crate::lease::Leases;
use crate::load::LoadMeter;
use crate::machine::Machines;
use crate::map::Map;
use crate::map_keeper::MapKeeper;
use crate::options::NodeOptions;
use crate::peers::Peers;
use crate::placement::Placement;
use crate::propose::Proposer;
use crate::query::Querier;
use crate::reconcile::{Reconciler, Running};
use crate::registrar::Registrar;
use crate::removal::Remover;
use crate::replicas::Replicas;
use crate::scan::Scans;
use crate::search::Search;
use crate::server::{self, Acceptor, PeerConnections};
use crate::shard_service::Shards;
use crate::steward::{Fitness, Steward};
use crate::sweep::durable::BlobMover;
use crate::sweep::{ClusterWorld, Sweeper};
use crate::vacuum::Vacuum;
use crate::versions::Versions;
use crate::watch::Watcher;

/// Leads that are handed over at a time when the node shuts down.
const HANDOVERS_AT_A_TIME: usize = 16;

/// Why a node could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its data could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address could not be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("the certificates cannot be used: {0}")]
    Tls(#[from] TlsError),
    /// A replica's rows are at a version that this build does not know: the group was raised to it, and no older build may go on
    /// with it.
    #[error("shard {shard}: {source}; start the build that ran here before, or a newer one")]
    Newer {
        /// Which.
        shard: u32,
        /// What the rows say.
        source: postrider_shard::Broken,
    },
    /// A thread could not be started.
    #[error("start a follower's thread: {0}")]
    Thread(std::io::Error),
    /// The process's metrics belong to somebody else, who has not handed them over in the options.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// A running storage node. Dropping it without [`Node::shutdown`] stops its service but hands no lead over.
pub struct Node {
    address: SocketAddr,
    replicas: Replicas,
    reconciler: Reconciler,
    fitness: Arc<Fitness>,
    options: NodeOptions,
    tasks: TaskTracker,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
    /// Ends everything when the node is dropped.
    stop: DropGuard,
    followers: Vec<FollowerThread>,
    peers: PeerConnections,
    _cut: DropGuard,
}

impl Node {
    /// Opens what is in the directory and serves it.
    ///
    /// # Errors
    /// When the directory, the certificates or an address cannot be used.
    pub fn start(options: NodeOptions) -> BoxFuture<'static, Result<Node, StartError>> {
        Box::pin(async move {
            let listener = listen(options.listen).await?;
            let address =
                listener.local_addr().map_err(|source| StartError::Listen { address: options.listen, source })?;
            let hub = Arc::new(Hub::new(options.limits.watches_max));
            let search = Search::open(&options.dir, options.search);
            let (followers, tallies) = follow::all(&options.dir, &search);
            let follow = Follow::new(followers.len());
            let machines = Arc::new(Machines::new(hub.clone(), follow.clone()));
            let host = Host::open(host_options(&options)?, machines.clone()).await?;
            search.reads(&host.state(), &follow);
            let parts = Parts::assemble(&options, host, hub, machines, (tallies, search));
            if let Err(newer) = parts.replicas.check_versions() {
                parts.replicas.host.shutdown().await;
                return Err(newer);
            }
            let followers = parts.follow(&options, &follow, followers)?;
            let tasks = TaskTracker::new();
            parts.spawn(&options, &tasks).await?;
            let peers = PeerConnections::new();
            let cut = peers.guard();
            let server = parts.serve(&options, listener, &tasks, &peers)?;
            tracing::info!(node = options.node.0, %address, region = %options.region, "storage node is up");
            let Parts { replicas, reconciler, fitness, stop, .. } = parts;
            Ok(Node {
                address,
                replicas,
                reconciler,
                fitness,
                options,
                tasks,
                server,
                stop: stop.drop_guard(),
                followers,
                peers,
                _cut: cut,
            })
        })
    }

    /// Where it listens: the port that was given, or the one that the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Hands its leads over, stops serving and closes its databases.
    pub fn shutdown(self) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.fitness.leaving.store(true, Ordering::Relaxed);
            if tokio::time::timeout(self.options.timings.drain, self.hand_leads_over()).await.is_err() {
                tracing::warn!("not every lead was handed over in time; the others elect");
            }
            self.stop.disarm().cancel();
            self.tasks.close();
            self.tasks.wait().await;
            let mut server = self.server;
            // Peers keep their connections open for ever: they are given a moment, and cut.
            match tokio::time::timeout(self.options.timings.close, &mut server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::error!(?error, "the gRPC server has failed"),
                Ok(Err(error)) => tracing::error!(%error, "the gRPC server has panicked"),
                Err(_) => server.abort(),
            }
            self.peers.close().await;
            let followers = self.followers;
            if let Err(error) =
                tokio::task::spawn_blocking(move || followers.into_iter().for_each(FollowerThread::stop)).await
            {
                tracing::error!(%error, "a follower did not end in good order");
            }
            self.replicas.host.shutdown().await;
        })
    }

    async fn hand_leads_over(&self) {
        let groups = self.replicas.host.groups().into_iter().map(|group| ShardId(group.0));
        stream::iter(groups)
            .for_each_concurrent(HANDOVERS_AT_A_TIME, |shard| async move {
                let Some(status) = self.replicas.status(shard).filter(|status| status.leads()) else { return };
                if let Err(error) = self.reconciler.hand_over(shard, &status).await {
                    tracing::info!(shard = shard.0, %error, "nobody takes the lead; the others elect");
                }
            })
            .await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn host_options(options: &NodeOptions) -> Result<HostOptions, TlsError> {
    let mut host = HostOptions::new(postrider_raft::NodeId(options.node.0), options.dir.join("raft"));
    host.timings = options.raft_timings.clone();
    host.limits = options.raft_limits.clone();
    host.tls = Some(PeerTls { config: Arc::new(options.tls.client_config()?), name: NODE_TLS_NAME.try_into()? });
    host.advertise.clone_from(&options.advertise);
    host.transport = options.raft_transport.clone();
    host.clock = options.raft_clock.clone();
    host.faults = options.faults.clone();
    Ok(host)
}

/// What a node is made of, each part with the handles that it uses.
struct Parts {
    replicas: Replicas,
    hub: Arc<Hub>,
    map: Map,
    peers: Peers,
    proposer: Proposer,
    querier: Querier,
    calls: Calls,
    placement: Placement,
    leases: Leases,
    reconciler: Reconciler,
    remover: Remover,
    fitness: Arc<Fitness>,
    vacuum: Vacuum,
    load: LoadMeter,
    tallies: Arc<Tallies>,
    search: Search,
    world: ClusterWorld,
    stop: CancellationToken,
}

impl Parts {
    fn assemble(
        options: &NodeOptions,
        host: Host,
        hub: Arc<Hub>,
        machines: Arc<Machines>,
        (tallies, search): (Arc<Tallies>, Search),
    ) -> Self {
        let stop = CancellationToken::new();
        let map = Map::new();
        let replicas = Replicas {
            db: host.state(),
            host,
            machines,
            clock: options.clock.clone(),
            scans: Arc::new(Scans::new(&options.limits)),
        };
        let peers = Peers::new(options.tls.clone(), options.timings.peer_call, options.clock.clone());
        let trust = Arc::new(Trust::new(options.clock.clone(), options.timings.clock_skew));
        let proposer = Proposer { replicas: replicas.clone(), map: map.clone(), trust: trust.clone() };
        let leases = Leases::new(replicas.clone(), proposer.clone(), options.limits.clone());
        let querier = Querier { replicas: replicas.clone(), proposer: proposer.clone(), search: search.clone() };
        let placement = Placement {
            replicas: replicas.clone(),
            map: map.clone(),
            peers: peers.clone(),
            proposer: proposer.clone(),
            querier: querier.clone(),
            entropy: options.entropy.clone(),
        };
        let calls = Calls {
            replicas: replicas.clone(),
            map: map.clone(),
            peers: peers.clone(),
            proposer: proposer.clone(),
            querier: querier.clone(),
            entropy: options.entropy.clone(),
        };
        let world = ClusterWorld {
            calls: calls.clone(),
            map: map.clone(),
            placement: placement.clone(),
            stores: options.sweep.stores.clone(),
        };
        let reconciler = Reconciler {
            node: options.node,
            replicas: replicas.clone(),
            map: map.clone(),
            peers: peers.clone(),
            placement: placement.clone(),
            preparation: Arc::new(BlobMover { world: world.clone(), options: options.sweep.clone() }),
            timings: options.timings.clone(),
            link_bytes_per_s_min: options.raft_limits.link_bytes_per_s_min,
            stop: stop.clone(),
            running: Arc::new(Running::default()),
        };
        let remover = Remover {
            node: options.node,
            replicas: replicas.clone(),
            map: map.clone(),
            peers: peers.clone(),
            leases: leases.clone(),
        };
        let load = LoadMeter::new(options.node, replicas.clone(), options.capacity.clone(), options.dir.clone());
        let vacuum = Vacuum::new(replicas.clone(), search.clone(), options.dir.clone());
        let fitness =
            Arc::new(Fitness { leaving: AtomicBool::new(false), removed: AtomicBool::new(false), clock: trust });
        Self {
            replicas,
            hub,
            map,
            peers,
            proposer,
            querier,
            calls,
            placement,
            leases,
            reconciler,
            remover,
            fitness,
            vacuum,
            load,
            tallies,
            search,
            world,
            stop,
        }
    }

    /// Starts the followers: each begins with what it finds of the replicas that are here.
    fn follow(
        &self,
        options: &NodeOptions,
        follow: &Follow,
        followers: Vec<Box<dyn Follower>>,
    ) -> Result<Vec<FollowerThread>, StartError> {
        let hosted: Vec<ShardId> = self.replicas.host.groups().into_iter().map(|group| ShardId(group.0)).collect();
        let start = |(follower, inbox): (Box<dyn Follower>, &Arc<Inbox>)| {
            let (db, clock) = (self.replicas.db.clone(), options.clock.clone());
            FollowerThread::start(follower, inbox.clone(), db, clock, hosted.clone())
        };
        followers.into_iter().zip(follow.inboxes()).map(start).collect::<Result<_, _>>().map_err(StartError::Thread)
    }

    /// Starts what runs in the background.
    async fn spawn(&self, options: &NodeOptions, tasks: &TaskTracker) -> Result<(), StartError> {
        let keeper = MapKeeper {
            map: self.map.clone(),
            replicas: self.replicas.clone(),
            tls: options.tls.clone(),
            seeds: options.seeds.clone(),
            advertise: options.advertise.clone(),
            stop: self.stop.clone(),
        };
        let steward = Steward {
            node: options.node,
            replicas: self.replicas.clone(),
            map: self.map.clone(),
            peers: self.peers.clone(),
            reconciler: self.reconciler.clone(),
            remover: self.remover.clone(),
            timings: options.timings.clone(),
            entropy: options.entropy.clone(),
            fitness: self.fitness.clone(),
            stop: self.stop.clone(),
        };
        if let Some(address) = options.metrics_listen {
            let metrics = match &options.metrics {
                Some(metrics) => metrics.clone(),
                None => http::install_recorder()?,
            };
            let listener = listen(address).await?;
            let gauges = Gauges { quorum_age_max: options.timings.watch_without_quorum, dir: options.dir.clone() };
            tasks.spawn(http::serve(listener, metrics, self.replicas.clone(), gauges, self.stop.clone()));
        }
        let clock = ClockKeeper {
            node: options.node,
            trust: self.fitness.clock.clone(),
            replicas: self.replicas.clone(),
            map: self.map.clone(),
            peers: self.peers.clone(),
            timings: options.timings.clone(),
            stop: self.stop.clone(),
        };
        let deleter = Deleter {
            calls: self.calls.clone(),
            fitness: self.fitness.clone(),
            begun: self.replicas.machines.deletions.clone(),
            stop: self.stop.clone(),
        };
        tasks.spawn(deleter.run());
        tasks.spawn(self.vacuum.clone().run(self.stop.clone()));
        tasks.spawn(self.search.clone().tidy(self.stop.clone()));
        tasks.spawn(self.load.clone().run(self.stop.clone()));
        let registrar = Registrar {
            node: options.node,
            region: options.region.clone(),
            failure_domain: options.failure_domain.clone(),
            advertise: options.advertise.clone(),
            host: self.replicas.host.clone(),
            map: self.map.clone(),
            placement: self.placement.clone(),
            fitness: self.fitness.clone(),
            stop: self.stop.clone(),
        };
        let versions = Versions {
            node: options.node,
            replicas: self.replicas.clone(),
            map: self.map.clone(),
            placement: self.placement.clone(),
            proposer: self.proposer.clone(),
            entropy: options.entropy.clone(),
            stop: self.stop.clone(),
        };
        tasks.spawn(keeper.run());
        tasks.spawn(registrar.run());
        tasks.spawn(versions.run());
        tasks.spawn(clock.run());
        tasks.spawn(steward.run());
        let sweeper = Sweeper {
            replicas: self.replicas.clone(),
            world: self.world.clone(),
            options: options.sweep.clone(),
            clock: options.clock.clone(),
            stop: self.stop.clone(),
        };
        tasks.spawn(sweeper.run());
        let balancer = Balancer {
            node: options.node,
            replicas: self.replicas.clone(),
            map: self.map.clone(),
            placement: self.placement.clone(),
            peers: self.peers.clone(),
            lookout: Lookout { node: options.node, peers: self.peers.clone() },
            options: options.balance.clone(),
            peer_call: options.timings.peer_call,
            stop: self.stop.clone(),
        };
        tasks.spawn(balancer.run());
        Ok(())
    }

    fn serve(
        &self,
        options: &NodeOptions,
        listener: TcpListener,
        tasks: &TaskTracker,
        peers: &PeerConnections,
    ) -> Result<JoinHandle<Result<(), tonic::transport::Error>>, TlsError> {
        let shards = Shards {
            proposer: self.proposer.clone(),
            querier: self.querier.clone(),
            watcher: Watcher {
                replicas: self.replicas.clone(),
                hub: self.hub.clone(),
                timings: options.timings.clone(),
                stop: self.stop.clone(),
            },
            leases: self.leases.clone(),
            map: self.map.clone(),
            map_watches: Arc::new(Semaphore::new(options.limits.map_watches_max)),
            stop: self.stop.clone(),
        };
        let admin = Admin {
            node: options.node,
            region: options.region.clone(),
            replicas: self.replicas.clone(),
            map: self.map.clone(),
            peers: self.peers.clone(),
            remover: self.remover.clone(),
            fitness: self.fitness.clone(),
            vacuum: self.vacuum.clone(),
            tallies: self.tallies.clone(),
            search: self.search.clone(),
            load: self.load.clone(),
        };
        let acceptor = Acceptor {
            tls: TlsAcceptor::from(Arc::new(options.tls.server_config(&server::PROTOCOLS)?)),
            host: self.replicas.host.clone(),
            places: Arc::new(Semaphore::new(options.limits.connections_max)),
            tasks: tasks.clone(),
            stop: self.stop.clone(),
            peers: peers.clone(),
        };
        let connections = ReceiverStream::new(acceptor.run(listener));
        let server = server::grpc()
            .layer(ServerLayer)
            .add_service(
                ShardServiceServer::new(shards)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(MAP_BYTES_MAX),
            )
            .add_service(
                AdminServiceServer::new(admin)
                    .max_decoding_message_size(REQUEST_BYTES_MAX)
                    .max_encoding_message_size(REPLY_BYTES_MAX),
            );
        let stopped = self.stop.clone().cancelled_owned();
        Ok(tokio::spawn(server.serve_with_incoming_shutdown(connections, stopped)))
    }
}
