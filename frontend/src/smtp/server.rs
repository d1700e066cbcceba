//! Takes connections, within bounds, and drains.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use postrider_api::env::{Clock, Entropy};
use postrider_api::limit::MESSAGE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::commit::{BlobSink, Committer};
use super::connection::{Connection, End, Outside};
use super::content::accounted;
use super::limit::{SmtpLimits, TRACE_BYTES_MAX};
use super::measure;
use super::recipient::Recipients;
use super::reply::Reply;
use super::session::{Replies, Session, Settings};
use super::view::Views;
use crate::budget::{Budget, Full, Share};
use crate::cluster::Cluster;
use crate::limits::{LimitKind, Limiter};
use crate::network::{Network, Networks};
use crate::proxy::{Proxies, Waiting, linger};

/// A pause after the system refused a connection: it has too few file handles, and more tries change nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a receiving SMTP server is told when it starts.
#[derive(Clone)]
pub struct SmtpOptions {
    /// Where to listen.
    pub listen: SocketAddr,
    /// How the server calls itself: in the greeting, in EHLO's answer and in trace fields.
    pub host: String,
    /// What stands behind `220 host ESMTP` in the greeting.
    pub banner: String,
    /// The frontend's region: where a recipient's shard has no quorum, shards at home here are tried first.
    pub region: String,
    /// The certificate for STARTTLS; without one it is not offered.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// How much and how long.
    pub limits: SmtpLimits,
    /// How many connections and messages of one network in a time.
    pub limiter: Limiter,
    /// Measures time, dates trace fields.
    pub clock: Arc<dyn Clock>,
    /// Names transactions.
    pub entropy: Arc<dyn Entropy>,
}

/// A receiving SMTP server (RFC 5321, port 25) that listens.
pub struct SmtpServer {
    listener: TcpListener,
    service: Arc<Service>,
}

/// The server without its listener: serves any stream.
pub struct Service {
    settings: Arc<Settings>,
    outside: Arc<Outside>,
    /// Connections that are open.
    places: Arc<Budget>,
    proxies: Proxies,
    tls: Option<TlsAcceptor>,
}

impl SmtpServer {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn bind(
        options: SmtpOptions,
        cluster: Arc<dyn Cluster>,
        blobs: Arc<dyn BlobSink>,
        drain: CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        Ok(Self { listener, service: Service::new(options, cluster, blobs, drain) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the token that was given to [`SmtpServer::bind`] is cancelled; then takes no more connections, finishes the
    /// transactions in progress and tells the other clients to go.
    pub async fn run(self) {
        let Self { listener, service } = self;
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = service.outside.drain.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => service.admit(stream, peer.ip(), &connections),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        let open = connections.len();
        if timeout(service.outside.limits.drain, connections.wait()).await.is_err() {
            tracing::warn!(open, left = connections.len(), "SMTP connections were cut at the end of draining");
        }
    }
}

impl Service {
    /// A service that drains when `drain` is cancelled.
    pub fn new(
        options: SmtpOptions,
        cluster: Arc<dyn Cluster>,
        blobs: Arc<dyn BlobSink>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let SmtpOptions { listen: _, host, banner, region, tls, proxies, limits, limiter, clock, entropy } = options;
        let views = Views::new(Arc::clone(&cluster));
        let message_bytes_max = limits.message_bytes_max.min(MESSAGE_BYTES_MAX);
        // A part that is smaller than a message would refuse it for ever, and say "later" each time.
        let largest = usize::try_from(message_bytes_max).unwrap_or(usize::MAX).saturating_add(TRACE_BYTES_MAX);
        let bytes_per_peer_max = limits.content_bytes_per_peer_max.max(accounted(largest));
        let settings = Arc::new(Settings {
            host,
            banner,
            message_bytes_max,
            has_certificate: tls.is_some(),
            budget: Budget::new(limits.content_bytes_max, bytes_per_peer_max),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
        });
        let (for_commits, their_views) = (Arc::clone(&cluster), Arc::clone(&views));
        let committer = Committer::new(for_commits, their_views, blobs, Arc::clone(&clock), entropy, region, &limits);
        let (congestion, intake) = (committer.congestion(), committer.intake());
        let recipients = Recipients::new(cluster, views, congestion, intake, Arc::clone(&clock), &limits);
        let places = Budget::new(limits.connections_max, limits.connections_per_peer_max);
        let outside = Arc::new(Outside { recipients, committer, clock, limits, limiter, drain });
        let (proxies, tls) = (Proxies::new(proxies), tls.map(TlsAcceptor::from));
        Arc::new(Self { settings, outside, places, proxies, tls })
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, peer: IpAddr, connections: &TaskTracker) {
        if self.proxies.include(peer) {
            let Some(waiting) = self.proxies.wait() else { return turn_away(&stream, Reply::ConnectionsTooMany) };
            let service = Arc::clone(self);
            connections.spawn(async move { service.serve_proxied(waiting, stream, peer).await });
            return;
        }
        match self.enter(peer) {
            Ok(place) => {
                let service = Arc::clone(self);
                connections.spawn(async move { service.serve_tcp(place, stream, peer).await });
            }
            Err(reply) => turn_away(&stream, reply),
        }
    }

    /// A proxy's connection: its client is who counts, who is limited and who stands in trace fields.
    async fn serve_proxied(&self, waiting: Waiting, mut stream: TcpStream, peer: IpAddr) {
        let read = tokio::select! {
            read = waiting.client(&mut stream, peer) => read,
            () = self.outside.drain.cancelled() => return turn_away(&stream, Reply::Draining),
        };
        let client = match read {
            Ok(client) => client,
            Err(_) => {
                turn_away(&stream, Reply::ProxyHeaderWrong);
                return linger(&mut stream).await;
            }
        };
        match self.enter(client) {
            Ok(place) => self.serve_tcp(place, stream, client).await,
            Err(reply) => turn_away(&stream, reply),
        }
    }

    async fn serve_tcp(&self, place: Share, mut stream: TcpStream, peer: IpAddr) {
        let counters = self.outside.limiter.of_network(LimitKind::Connections, Network::of(peer), "");
        if self.outside.limiter.take_all(&counters).await.is_err() {
            turn_away(&stream, Reply::ConnectionsTooManyFromPeer);
            return linger(&mut stream).await;
        }
        if let Err(error) = stream.set_nodelay(true) {
            // Replies then wait for acknowledgements: slower, not wrong.
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        self.serve_in(place, stream, peer).await;
    }

    /// Serves one connection, whatever it runs over, within the limits; returns when it has ended.
    pub async fn serve<S>(self: &Arc<Self>, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.enter(peer) {
            Ok(place) => self.serve_in(place, stream, peer).await,
            Err(reply) => measure::turned_away(reply),
        }
    }

    /// A place for one more connection of `peer`.
    fn enter(&self, peer: IpAddr) -> Result<Share, Reply> {
        self.places.one(peer).map_err(|full| match full {
            Full::All => Reply::ConnectionsTooMany,
            Full::Peer => Reply::ConnectionsTooManyFromPeer,
        })
    }

    async fn serve_in<S>(&self, place: Share, mut stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _open = measure::Open::new();
        let mut replies = Replies::default();
        let session = Session::new(Arc::clone(&self.settings), peer.to_canonical(), &mut replies);
        let mut connection = Connection::new(Arc::clone(&self.outside), session, replies);
        match connection.serve(&mut stream).await {
            Ok(End::Closed) => {}
            Ok(End::StartTls) => self.secure(connection, stream).await,
            Err(error) => tracing::debug!(%error, "an SMTP client went away"),
        }
        drop(place);
    }

    async fn secure<S>(&self, mut connection: Connection, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        // A session asks for TLS only where there is a certificate.
        let Some(acceptor) = &self.tls else { return };
        let mut stream = match timeout(self.outside.limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                return;
            }
        };
        connection.secured();
        if let Err(error) = connection.serve(&mut stream).await {
            tracing::debug!(%error, "an SMTP client went away");
        }
    }
}

fn turn_away(stream: &TcpStream, reply: Reply) {
    measure::turned_away(reply);
    let mut line = Vec::new();
    reply.write(&mut line);
    // A fresh socket has room for a line; a client that is told nothing sees the connection close.
    let _told_or_not = stream.try_write(&line);
}
