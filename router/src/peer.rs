//! Connections to storage nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use postrider_api::limit::{MAP_BYTES_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use postrider_api::pb::admin_service_client::AdminServiceClient;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::tls::{Dial, TlsError, TlsIdentity};
use postrider_api::trace::grpc::Traced;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::Channel;

use crate::latency::Latency;
use crate::options::RouterLimits;
use crate::suspicion::Suspicion;

/// A connection whose calls are spans of what makes them.
pub(crate) type Wire = Traced<Channel>;

/// One storage node as this process sees it.
pub(crate) struct Peer {
    pub(crate) address: Arc<str>,
    endpoint: Dial,
    calls: Vec<Channel>,
    turn: AtomicUsize,
    watches: Mutex<Vec<(Channel, Arc<Semaphore>)>>,
    watches_per_connection: usize,
    watch_connections_max: usize,
    pub(crate) latency: Latency,
    pub(crate) suspicion: Suspicion,
}

impl Peer {
    fn new(address: &str, identity: &TlsIdentity, limits: &RouterLimits) -> Result<Self, TlsError> {
        let endpoint = identity.endpoint(address)?;
        let calls = (0..limits.connections_per_node.max(1)).map(|_| endpoint.connect_lazy()).collect();
        Ok(Self {
            address: address.into(),
            endpoint,
            calls,
            turn: AtomicUsize::new(0),
            watches: Mutex::new(Vec::new()),
            watches_per_connection: limits.watches_per_connection.max(1),
            watch_connections_max: limits.watch_connections_per_node.max(1),
            latency: Latency::default(),
            suspicion: Suspicion::default(),
        })
    }

    fn channel(&self) -> Wire {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Traced(self.calls[turn % self.calls.len()].clone())
    }

    /// For calls with one answer.
    pub(crate) fn shard_service(&self) -> ShardServiceClient<Wire> {
        ShardServiceClient::new(self.channel())
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(REPLY_BYTES_MAX)
    }

    /// For the map stream.
    pub(crate) fn map_service(&self) -> ShardServiceClient<Wire> {
        ShardServiceClient::new(self.channel()).max_decoding_message_size(MAP_BYTES_MAX)
    }

    pub(crate) fn admin_service(&self) -> AdminServiceClient<Wire> {
        AdminServiceClient::new(self.channel())
            .max_encoding_message_size(REQUEST_BYTES_MAX)
            .max_decoding_message_size(REPLY_BYTES_MAX)
    }

    /// For a watch, which holds its place on a connection until the permit is dropped; `None` when all are taken. Watches
    /// have connections of their own: streams on one connection are numbered, and calls must not wait behind watches.
    pub(crate) fn watch_service(&self) -> Option<(ShardServiceClient<Channel>, OwnedSemaphorePermit)> {
        let mut watches = self.watches.lock();
        for (channel, places) in watches.iter() {
            if let Ok(permit) = places.clone().try_acquire_owned() {
                return Some((watch_client(channel), permit));
            }
        }
        if watches.len() >= self.watch_connections_max {
            return None;
        }
        let channel = self.endpoint.connect_lazy();
        let places = Arc::new(Semaphore::new(self.watches_per_connection));
        let permit = places.clone().try_acquire_owned().ok()?; // a fresh semaphore has a place
        watches.push((channel.clone(), places));
        Some((watch_client(&channel), permit))
    }
}

fn watch_client(channel: &Channel) -> ShardServiceClient<Channel> {
    ShardServiceClient::new(channel.clone()).max_decoding_message_size(REPLY_BYTES_MAX)
}

/// All nodes that were talked to, by address. Bounded: the least used goes, and its connections close once unused.
pub(crate) struct Pool {
    peers: moka::sync::Cache<Arc<str>, Arc<Peer>>,
    identity: TlsIdentity,
    limits: RouterLimits,
}

impl Pool {
    pub(crate) fn new(identity: TlsIdentity, limits: RouterLimits) -> Self {
        Self { peers: moka::sync::Cache::new(limits.nodes_max), identity, limits }
    }

    /// The node at `address`. Connects when it is first called.
    pub(crate) fn peer(&self, address: &str) -> Result<Arc<Peer>, TlsError> {
        if let Some(peer) = self.peers.get(address) {
            return Ok(peer);
        }
        let peer = Arc::new(Peer::new(address, &self.identity, &self.limits)?);
        // Two who come at once agree on one peer.
        Ok(self.peers.get_with(peer.address.clone(), || peer))
    }
}
