//! Links over TCP, with TLS or without.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use rustls::client::Resumption;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::ids::{GroupIdentity, NodeId};
use crate::options::{HostOptions, Limits, PeerTls, Timings};
use crate::transport::addresses::Addresses;
use crate::transport::frames::{ClientConnection, Frames};
use crate::transport::lane::{Lane, Patience};
use crate::transport::{ALPN, Class, Link, LinkError, Reply, Socket, Transport};
use crate::wire::{ClientFrame, InstallAnswer, Opening, Purpose, SnapshotPart, client_frame, message, server_frame};

/// Control messages that may be unanswered, in bytes; each counts for about a hundred.
const CONTROL_INFLIGHT_BYTES_MAX: usize = 1 << 20;

/// Reaches peers over TCP.
pub(crate) struct TcpTransport {
    node: NodeId,
    tls: Option<PeerTls>,
    timings: Timings,
    limits: Limits,
    advertise: String,
    addresses: Arc<Addresses>,
    links: Mutex<HashMap<(NodeId, String), Arc<TcpLink>>>,
}

impl TcpTransport {
    pub(crate) fn new(options: &HostOptions, addresses: Arc<Addresses>) -> Self {
        let HostOptions { node, tls, timings, limits, advertise, .. } = options.clone();
        let tls = tls.map(|PeerTls { config, name }| {
            let mut config = Arc::unwrap_or_clone(config);
            config.alpn_protocols = vec![ALPN.to_vec()];
            // All peers have one name, so that tickets would be shown to the wrong ones; and with one a certificate is not looked at again.
            config.resumption = Resumption::disabled();
            PeerTls { config: Arc::new(config), name }
        });
        Self { node, tls, timings, limits, advertise, addresses, links: Mutex::new(HashMap::new()) }
    }
}

impl Transport for TcpTransport {
    fn link(&self, node: NodeId, address: &str) -> Arc<dyn Link> {
        let mut links = self.links.lock();
        // Links that no group uses any more go; those of peers are few.
        links.retain(|_, link| Arc::strong_count(link) > 1);
        let link = links.entry((node, address.to_owned())).or_insert_with(|| {
            let dialer = Dialer {
                from: self.node,
                to: node,
                address: address.to_owned(),
                addresses: self.addresses.clone(),
                advertise: self.advertise.clone(),
                tls: self.tls.clone(),
                connect: Duration::from_millis(self.timings.connect_ms),
                patience: Patience {
                    keepalive: Duration::from_millis(self.timings.keepalive_ms),
                    link_bytes_per_s_min: self.limits.link_bytes_per_s_min,
                },
            };
            Arc::new(TcpLink {
                control: Lane::start(node, dialer.clone(), CONTROL_INFLIGHT_BYTES_MAX),
                log: Lane::start(node, dialer.clone(), self.limits.peer_inflight_bytes_max),
                dialer,
            })
        });
        link.clone()
    }
}

struct TcpLink {
    control: Lane,
    log: Lane,
    dialer: Dialer,
}

impl Link for TcpLink {
    fn send(&self, class: Class, group: GroupIdentity, body: message::Body) -> BoxFuture<'_, Result<Reply, LinkError>> {
        let lane = match class {
            Class::Control => &self.control,
            Class::Log => &self.log,
        };
        Box::pin(lane.send(group, body))
    }

    fn install(&self, parts: mpsc::Receiver<SnapshotPart>) -> BoxFuture<'_, Result<InstallAnswer, LinkError>> {
        Box::pin(async move {
            let connection = self.dialer.open(Purpose::Install).await.map_err(LinkError::Unreachable)?;
            install(connection, parts, self.dialer.patience.keepalive).await.map_err(LinkError::Lost)
        })
    }
}

/// Sends a snapshot on a connection of its own.
async fn install(
    connection: ClientConnection,
    mut parts: mpsc::Receiver<SnapshotPart>,
    keepalive: Duration,
) -> Result<InstallAnswer, String> {
    let (mut sending, mut receiving) = connection.split();
    let sent = async {
        loop {
            let body = match tokio::time::timeout(keepalive, parts.recv()).await {
                Ok(Some(part)) => Some(client_frame::Body::Part(part)),
                Ok(None) => return sending.close().await,
                // The disk is slow, or the rate low: this is still there.
                Err(_) => None,
            };
            sending.send(ClientFrame { body }).await?;
        }
    };
    let answered = async {
        while let Some(frame) = receiving.next().await {
            match frame.map_err(|error| error.to_string())?.body {
                Some(server_frame::Body::Installed(answer)) => return Ok(answer),
                Some(server_frame::Body::Refused(reason)) => return Err(reason),
                Some(server_frame::Body::Answers(_) | server_frame::Body::Reached(_)) | None => {}
            }
        }
        Err("the peer closed the connection".to_owned())
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // A peer that refuses closes its half: its answer counts, not that sending failed.
        _ = sent => answered.await,
    }
}

/// Makes connections to one node.
#[derive(Clone)]
pub(crate) struct Dialer {
    from: NodeId,
    to: NodeId,
    /// Where it was when its membership was agreed on.
    address: String,
    pub(crate) addresses: Arc<Addresses>,
    /// Where this node is reached itself.
    advertise: String,
    tls: Option<PeerTls>,
    connect: Duration,
    pub(crate) patience: Patience,
}

impl Dialer {
    /// Opens a connection. Whether the peer agrees shows in what it answers.
    pub(crate) async fn open(&self, purpose: Purpose) -> Result<ClientConnection, String> {
        let opened = tokio::time::timeout(self.connect * 2, async {
            let mut connection = ClientConnection::new(self.connect().await?, Frames::new());
            let opening =
                Opening { from: self.from.0, to: self.to.0, purpose: purpose.into(), address: self.advertise.clone() };
            let frame = ClientFrame { body: Some(client_frame::Body::Opening(opening)) };
            connection.send(frame).await.map_err(|error| error.to_string())?;
            Ok(connection)
        });
        // A peer that accepts and then says nothing must not hold this up either.
        let opened = opened.await.unwrap_or_else(|_| Err("connecting took too long".to_owned()));
        if opened.is_err() {
            self.addresses.doubt(self.to);
        }
        opened
    }

    async fn connect(&self) -> Result<Box<dyn Socket>, String> {
        let address = self.addresses.of(self.to, &self.address);
        let connected = tokio::time::timeout(self.connect, TcpStream::connect(&address)).await;
        let stream = connected
            .map_err(|_| "connecting took too long".to_owned())?
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| error.to_string())?;
        let Some(PeerTls { config, name }) = &self.tls else { return Ok(Box::new(stream)) };
        let stream = TlsConnector::from(config.clone()).connect(name.clone(), stream).await;
        Ok(Box::new(stream.map_err(|error| error.to_string())?))
    }
}
