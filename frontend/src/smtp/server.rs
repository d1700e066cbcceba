//! Takes connections, within bounds, and drains.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use postrider_api::env::{Clock, Entropy};
use postrider_api::limit::MESSAGE_BYTES_MAX;
use postrider_outgoing::return_path::ReturnPaths;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::commit::{BlobSink, Committer};
use super::connection::{Connection, End, Outside};
use super::content::accounted;
use super::limit::{SmtpLimits, TRACE_BYTES_MAX};
use super::measure;
use super::recipient::Recipients;
use super::reply::Reply;
use super::session::{Mode, Replies, Session, Settings};
use super::view::Views;
use crate::account::Accounts;
use crate::budget::{Budget, Full, Share};
use crate::cluster::Cluster;
use crate::limits::{LimitKind, Limiter};
use crate::network::{Network, Networks};
use crate::proxy::{Proxies, Waiting, linger};
use crate::round_trips::RoundTrips;

/// A pause after the system refused a connection: it has too few file handles, and more tries change nothing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an SMTP server is told when it starts.
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
    /// The certificate; without one STARTTLS is not offered, and nothing is submitted.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Where proxies stand whose connections begin with a PROXY protocol header.
    pub proxies: Networks,
    /// Reads where reports on our mail come back to; `None`: they come to their senders' addresses.
    pub return_paths: Option<ReturnPaths>,
    /// Submission; `None`: not at this server.
    pub submission: Option<SubmissionOptions>,
    /// How much and how long.
    pub limits: SmtpLimits,
    /// How many connections and messages of one network in a time.
    pub limiter: Limiter,
    /// Measures how far clients are.
    pub round_trips: RoundTrips,
    /// Measures time, dates trace fields.
    pub clock: Arc<dyn Clock>,
    /// Names transactions.
    pub entropy: Arc<dyn Entropy>,
}

/// What submission is told when it starts (RFC 6409, RFC 8314).
#[derive(Clone)]
pub struct SubmissionOptions {
    /// Where programs come with STARTTLS (587); `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Where they begin with TLS (465); `None`: nowhere.
    pub listen_tls: Option<SocketAddr>,
    /// Who lets them in.
    pub programs: Arc<Accounts>,
}

/// By which listener a client comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Mail that comes in (port 25).
    Receive,
    /// Submission with STARTTLS (587).
    Submit,
    /// Submission with TLS from the first byte (465).
    SubmitTls,
}

/// An SMTP server that listens: for mail that comes in (RFC 5321, port 25), and for submission where that is asked for.
pub struct SmtpServer {
    listeners: Vec<(Door, TcpListener)>,
    service: Arc<Service>,
}

/// The server without its listener: serves any stream.
pub struct Service {
    receives: Arc<Settings>,
    submits: Arc<Settings>,
    outside: Arc<Outside>,
    /// Connections that are open.
    places: Arc<Budget>,
    proxies: Proxies,
    round_trips: RoundTrips,
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
        let submission = options.submission.as_ref();
        let doors = [
            (Door::Receive, Some(options.listen)),
            (Door::Submit, submission.and_then(|submission| submission.listen)),
            (Door::SubmitTls, submission.and_then(|submission| submission.listen_tls)),
        ];
        let mut listeners = Vec::with_capacity(doors.len());
        for (door, address) in doors {
            if let Some(address) = address {
                listeners.push((door, TcpListener::bind(address).await?));
            }
        }
        Ok(Self { listeners, service: Service::new(options, cluster, blobs, drain) })
    }

    /// Where it listens for one kind of clients; `None`: nowhere.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn local_addr(&self, door: Door) -> io::Result<Option<SocketAddr>> {
        let listener = self.listeners.iter().find(|(of, _)| *of == door);
        listener.map(|(_, listener)| listener.local_addr()).transpose()
    }

    /// Serves until the token that was given to [`SmtpServer::bind`] is cancelled; then takes no more connections, finishes the
    /// transactions in progress and tells the other clients to go.
    pub async fn run(self) {
        let Self { listeners, service } = self;
        let connections = TaskTracker::new();
        let accepting = listeners.into_iter().map(|(door, listener)| service.accept(door, listener, &connections));
        join_all(accepting).await;
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
        let SmtpOptions {
            host,
            banner,
            region,
            tls,
            proxies,
            return_paths,
            submission,
            limits,
            limiter,
            round_trips,
            ..
        } = options;
        let (clock, entropy) = (options.clock, options.entropy);
        let views = Views::new(Arc::clone(&cluster));
        let message_bytes_max = limits.message_bytes_max.min(MESSAGE_BYTES_MAX);
        // A part that is smaller than a message would refuse it for ever, and say "later" each time.
        let largest = usize::try_from(message_bytes_max).unwrap_or(usize::MAX).saturating_add(TRACE_BYTES_MAX);
        let bytes_per_peer_max = limits.content_bytes_per_peer_max.max(accounted(largest));
        let budget = Budget::new(limits.content_bytes_max, bytes_per_peer_max);
        let settings = |mode| {
            Arc::new(Settings {
                mode,
                host: host.clone(),
                banner: banner.clone(),
                message_bytes_max,
                has_certificate: tls.is_some(),
                budget: Arc::clone(&budget),
                clock: Arc::clone(&clock),
                entropy: Arc::clone(&entropy),
            })
        };
        let (receives, submits) = (settings(Mode::Receive), settings(Mode::Submit));
        let programs = submission.map(|submission| submission.programs);
        let (for_commits, their_views) = (Arc::clone(&cluster), Arc::clone(&views));
        let committer = Committer::new(for_commits, their_views, blobs, Arc::clone(&clock), entropy, region, &limits)
            .for_senders(return_paths.clone(), limiter.sending());
        let (congestion, intake) = (committer.congestion(), committer.intake());
        let recipients = Recipients::new(cluster, return_paths, views, congestion, intake, Arc::clone(&clock), &limits);
        let places = Budget::new(limits.connections_max, limits.connections_per_peer_max);
        let outside = Arc::new(Outside { recipients, committer, programs, clock, limits, limiter, drain });
        let (proxies, tls) = (Proxies::new(proxies), tls.map(TlsAcceptor::from));
        Arc::new(Self { receives, submits, outside, places, proxies, round_trips, tls })
    }

    /// Takes connections at one door until the server drains.
    async fn accept(self: &Arc<Self>, door: Door, listener: TcpListener, connections: &TaskTracker) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.outside.drain.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(door, stream, peer.ip(), connections),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, door: Door, stream: TcpStream, peer: IpAddr, connections: &TaskTracker) {
        if self.proxies.include(peer) {
            let Some(waiting) = self.proxies.wait() else { return turn_away(door, &stream, Reply::ConnectionsTooMany) };
            let service = Arc::clone(self);
            connections.spawn(async move { service.serve_proxied(door, waiting, stream, peer).await });
            return;
        }
        match self.enter(peer) {
            Ok(place) => {
                self.round_trips.measure(&stream, peer);
                let service = Arc::clone(self);
                connections.spawn(async move { service.serve_tcp(door, place, stream, peer).await });
            }
            Err(reply) => turn_away(door, &stream, reply),
        }
    }

    /// A proxy's connection: its client is who counts, who is limited and who stands in trace fields.
    async fn serve_proxied(&self, door: Door, waiting: Waiting, mut stream: TcpStream, peer: IpAddr) {
        let read = tokio::select! {
            read = waiting.client(&mut stream, peer) => read,
            () = self.outside.drain.cancelled() => return turn_away(door, &stream, Reply::Draining),
        };
        let client = match read {
            Ok(client) => client,
            Err(_) => {
                turn_away(door, &stream, Reply::ProxyHeaderWrong);
                return linger(&mut stream).await;
            }
        };
        match self.enter(client) {
            Ok(place) => self.serve_tcp(door, place, stream, client).await,
            Err(reply) => turn_away(door, &stream, reply),
        }
    }

    async fn serve_tcp(&self, door: Door, place: Share, mut stream: TcpStream, peer: IpAddr) {
        let counters = self.outside.limiter.of_network(LimitKind::Connections, Network::of(peer), "");
        if self.outside.limiter.take_all(&counters).await.is_err() {
            turn_away(door, &stream, Reply::ConnectionsTooManyFromPeer);
            return linger(&mut stream).await;
        }
        if let Err(error) = stream.set_nodelay(true) {
            // Replies then wait for acknowledgements: slower, not wrong.
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
        self.serve_in(door, place, stream, peer).await;
    }

    /// Serves one connection, whatever it runs over, within the limits; returns when it has ended.
    pub async fn serve<S>(self: &Arc<Self>, door: Door, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.enter(peer) {
            Ok(place) => self.serve_in(door, place, stream, peer).await,
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

    async fn serve_in<S>(&self, door: Door, place: Share, stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let _open = measure::Open::new();
        match door {
            Door::Receive | Door::Submit => self.serve_plain(door, stream, peer).await,
            Door::SubmitTls => {
                if let Some(mut stream) = self.handshake(stream).await {
                    let mut connection = self.connection(door, peer, true);
                    went_away(connection.serve(&mut stream).await);
                }
            }
        }
        drop(place);
    }

    async fn serve_plain<S>(&self, door: Door, mut stream: S, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut connection = self.connection(door, peer, false);
        if let Some(End::StartTls) = went_away(connection.serve(&mut stream).await)
            && let Some(mut stream) = self.handshake(stream).await
        {
            connection.secured();
            went_away(connection.serve(&mut stream).await);
        }
    }

    fn connection(&self, door: Door, peer: IpAddr, tls: bool) -> Connection {
        let settings = if door == Door::Receive { &self.receives } else { &self.submits };
        let mut replies = Replies::default();
        let session = Session::new(Arc::clone(settings), peer.to_canonical(), tls, &mut replies);
        Connection::new(Arc::clone(&self.outside), session, replies)
    }

    /// `None` where there is no certificate, or the client does not get so far.
    async fn handshake<S>(&self, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let accepting = tokio::select! {
            accepting = timeout(self.outside.limits.handshake, self.tls.as_ref()?.accept(stream)) => accepting,
            () = self.outside.drain.cancelled() => return None,
        };
        match accepting {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                None
            }
        }
    }
}

fn went_away(served: io::Result<End>) -> Option<End> {
    served.inspect_err(|error| tracing::debug!(%error, "an SMTP client went away")).ok()
}

fn turn_away(door: Door, stream: &TcpStream, reply: Reply) {
    measure::turned_away(reply);
    if door == Door::SubmitTls {
        // Whoever waits for a handshake does not read it.
        return;
    }
    let mut line = Vec::new();
    reply.write(&mut line);
    // A fresh socket has room for a line; a client that is told nothing sees the connection close.
    let _told_or_not = stream.try_write(&line);
}
