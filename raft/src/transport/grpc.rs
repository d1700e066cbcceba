//! Links over gRPC.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::ids::{GroupId, NodeId};
use crate::options::{Limits, Timings};
use crate::transport::lane::{Frames, Lane};
use crate::transport::{Class, Link, LinkError, Reply, Transport};
use crate::wire::raft_transport_client::RaftTransportClient;
use crate::wire::{Answers, FRAME_BYTES_MAX, InstallAnswer, SnapshotPart, message};

/// Flow control windows: what may be on the way without being acknowledged by the receiver's HTTP/2. A gigabit over
/// 80 ms is 10 MB.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// One frame of HTTP/2. A message that comes in one frame is read into a buffer of its size; of the default's 16 KiB each makes the
/// buffer grow. Other streams of a connection wait for so much at most, a second on the slowest link that counts as working.
pub(crate) const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;
/// Control messages that may be unanswered, in bytes; each counts for about a hundred.
const CONTROL_INFLIGHT_BYTES_MAX: usize = 1 << 20;

/// Reaches peers over gRPC.
pub(crate) struct GrpcTransport {
    node: NodeId,
    tls: Option<ClientTlsConfig>,
    timings: Timings,
    limits: Limits,
    links: Mutex<HashMap<(NodeId, String), Arc<GrpcLink>>>,
}

impl GrpcTransport {
    pub(crate) fn new(node: NodeId, tls: Option<ClientTlsConfig>, timings: Timings, limits: Limits) -> Self {
        Self { node, tls, timings, limits, links: Mutex::new(HashMap::new()) }
    }
}

impl Transport for GrpcTransport {
    fn link(&self, node: NodeId, address: &str) -> Arc<dyn Link> {
        let mut links = self.links.lock();
        // Links that no group uses any more go; those of peers are few.
        links.retain(|_, link| Arc::strong_count(link) > 1);
        let link = links.entry((node, address.to_owned())).or_insert_with(|| {
            let dialer = Dialer {
                address: address.to_owned(),
                tls: self.tls.clone(),
                connect: Duration::from_millis(self.timings.connect_ms),
                keepalive: Duration::from_millis(self.timings.keepalive_ms),
            };
            Arc::new(GrpcLink {
                control: Lane::start(self.node, node, dialer.clone(), CONTROL_INFLIGHT_BYTES_MAX),
                log: Lane::start(self.node, node, dialer.clone(), self.limits.peer_inflight_bytes_max),
                dialer,
            })
        });
        link.clone()
    }
}

struct GrpcLink {
    control: Lane,
    log: Lane,
    dialer: Dialer,
}

impl Link for GrpcLink {
    fn send(&self, class: Class, group: GroupId, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>> {
        let lane = match class {
            Class::Control => &self.control,
            Class::Log => &self.log,
        };
        Box::pin(lane.send(group, body))
    }

    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'_, Result<InstallAnswer, LinkError>> {
        Box::pin(async move {
            let mut client = self.dialer.connect().await.map_err(LinkError::Unreachable)?;
            let answer = client.install(ReceiverStream::new(parts)).await;
            answer.map(tonic::Response::into_inner).map_err(|status| LinkError::Lost(status.message().to_owned()))
        })
    }
}

/// Makes connections to one address.
#[derive(Clone)]
pub(crate) struct Dialer {
    address: String,
    tls: Option<ClientTlsConfig>,
    connect: Duration,
    keepalive: Duration,
}

impl Dialer {
    fn endpoint(&self) -> Result<Endpoint, String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.address))
            .map_err(|error| error.to_string())?
            .connect_timeout(self.connect)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.keepalive)
            .keep_alive_timeout(self.keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(HTTP2_FRAME_BYTES_MAX);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.clone()).map_err(|error| error.to_string())?;
        }
        Ok(endpoint)
    }

    async fn connect(&self) -> Result<RaftTransportClient<Channel>, String> {
        let endpoint = self.endpoint()?;
        // The connect timeout covers TCP; a peer that accepts and then says nothing must not hold this up either.
        let channel = tokio::time::timeout(self.connect * 2, endpoint.connect())
            .await
            .map_err(|_| "connecting took too long".to_owned())?
            .map_err(|error| source_of(&error))?;
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX))
    }

    /// Opens a connection with one stream of messages on it, and returns its answers.
    pub(crate) async fn exchange(&self, frames: Frames) -> Result<Streaming<Answers>, String> {
        let mut client = self.connect().await?;
        let opened = tokio::time::timeout(self.connect * 2, client.exchange(frames)).await;
        let answers = opened
            .map_err(|_| "opening the stream took too long".to_owned())?
            .map_err(|status| status.message().to_owned())?;
        Ok(answers.into_inner())
    }
}

/// What lies under tonic's "transport error".
fn source_of(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}
