//! Calls to other nodes, as a node.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::env::Clock;
use postrider_api::id::ShardId;
use postrider_api::limit::{MAP_BYTES_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use postrider_api::pb;
use postrider_api::pb::admin_service_client::AdminServiceClient;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::tls::TlsIdentity;
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Connections that are kept; past it they are closed and opened as they are needed.
const CHANNELS_MAX: usize = 1024;

/// Connections to other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers {
    tls: TlsIdentity,
    limit: Duration,
    clock: Arc<dyn Clock>,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

/// What a peer says of itself, and how far its clock is from ours.
pub(crate) struct PeerStatus {
    pub(crate) status: pb::StatusReply,
    /// How much its clock is ahead of ours at least (negative: behind), milliseconds: what the round trip leaves in doubt
    /// is taken off.
    pub(crate) clock_ahead_ms: i64,
}

impl Peers {
    pub(crate) fn new(tls: TlsIdentity, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        Self { tls, limit, clock, channels: Arc::default() }
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        let endpoint = self.tls.endpoint(address).map_err(|error| Status::internal(error.to_string()))?;
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn admin(&self, address: &str) -> Result<AdminServiceClient<Channel>, Status> {
        Ok(AdminServiceClient::new(self.channel(address)?).max_decoding_message_size(REPLY_BYTES_MAX))
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        match tokio::time::timeout(self.limit, call).await {
            Ok(reply) => reply.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    pub(crate) async fn status(&self, address: &str, brief: bool) -> Result<PeerStatus, Status> {
        let mut service = self.admin(address)?;
        let (began, began_ms) = (self.clock.monotonic(), self.clock.wall_ms());
        let status = self.call(service.status(pb::StatusRequest { brief })).await?;
        let round_trip = self.clock.monotonic().saturating_sub(began);
        let doubt = i64::try_from(round_trip.as_millis() / 2).unwrap_or(i64::MAX);
        let ahead = status.wall_ms.saturating_sub(began_ms.saturating_add(doubt));
        let clock_ahead_ms = ahead.signum() * ahead.saturating_abs().saturating_sub(doubt).max(0);
        Ok(PeerStatus { status, clock_ahead_ms })
    }

    /// What a node bears and can bear.
    pub(crate) async fn load(&self, address: &str) -> Result<pb::LoadReply, Status> {
        let mut service = self.admin(address)?;
        self.call(service.load(pb::LoadRequest {})).await
    }

    /// Which of these nodes answer the one at this address.
    pub(crate) async fn probe(&self, address: &str, nodes: Vec<u64>) -> Result<Vec<u64>, Status> {
        let mut service = self.admin(address)?;
        // It waits for those that do not answer for as long as this node would.
        let call = service.probe(pb::ProbeRequest { nodes });
        match tokio::time::timeout(self.limit * 2, call).await {
            Ok(reply) => Ok(reply?.into_inner().answering),
            Err(_) => Err(Status::deadline_exceeded("no answer in time")),
        }
    }

    /// `incarnation`: of the shard's group.
    pub(crate) async fn open_replica(&self, address: &str, shard: ShardId, incarnation: u64) -> Result<(), Status> {
        let mut service = self.admin(address)?;
        let request = pb::OpenReplicaRequest { incarnation, ..request(shard) };
        accepted(self.call(service.open_replica(request)).await?)
    }

    /// Makes a shard's group of these members; the replica there leads it first.
    pub(crate) async fn create_group(
        &self,
        address: &str,
        shard: ShardId,
        incarnation: u64,
        members: Vec<pb::Node>,
    ) -> Result<(), Status> {
        let mut service = self.admin(address)?;
        let kind = shard.kind().unwrap_or(pb::ShardKind::Unspecified).into();
        let request = pb::CreateGroupRequest { shard: shard.0, kind, members, incarnation };
        accepted(self.call(service.create_group(request)).await?)
    }

    pub(crate) async fn remove_replica(&self, address: &str, shard: ShardId) -> Result<(), Status> {
        let mut service = self.admin(address)?;
        accepted(self.call(service.remove_replica(request(shard))).await?)
    }

    pub(crate) async fn propose(&self, address: &str, request: pb::ProposeRequest) -> Result<pb::ProposeReply, Status> {
        let mut service = ShardServiceClient::new(self.channel(address)?).max_encoding_message_size(REQUEST_BYTES_MAX);
        self.call(service.propose(request)).await
    }

    /// A question whose answer may be the shard map.
    pub(crate) async fn query(&self, address: &str, request: pb::QueryRequest) -> Result<pb::QueryReply, Status> {
        let mut service = ShardServiceClient::new(self.channel(address)?).max_decoding_message_size(MAP_BYTES_MAX);
        self.call(service.query(request)).await
    }
}

fn request(shard: ShardId) -> pb::OpenReplicaRequest {
    let kind = shard.kind().unwrap_or(pb::ShardKind::Unspecified).into();
    pb::OpenReplicaRequest { shard: shard.0, kind, ..Default::default() }
}

fn accepted(reply: pb::AdminReply) -> Result<(), Status> {
    if reply.ok { Ok(()) } else { Err(Status::failed_precondition(reply.error)) }
}
