//! The HTTP server: HTTP/1.1 and HTTP/2 on one port, over TLS where there is a certificate, bounded in connections, handshakes, heads,
//! streams and patience.
//!
//! Invariant: whoever is counted, logged and limited is the client. Behind a proxy that is whom the proxy names, in a PROXY header
//! or in a field of each request; a proxy itself is bounded by the connections of all only.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use postrider_api::impatient::Impatient;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::budget::{Budget, Share};
use crate::network::Networks;
use crate::proxy::{Proxies, Waiting, linger};
use crate::rest::exchanges::Exchanges;
use crate::rest::extract::Peer;
use crate::rest::forwarded::ForwardedFrom;
use crate::rest::limit::{
    ANSWER_STALL_MAX, CONNECTION_BUFFER_BYTES_MAX, CONNECTION_IDLE_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX,
    DRAIN_MAX, GOODBYE_MAX, HANDSHAKE_WAIT_MAX, HANDSHAKES_MAX, HANDSHAKES_PER_PEER_MAX, HEAD_WAIT_MAX,
    HEADERS_BYTES_MAX, HEADERS_MAX, STREAMS_MAX, TURNED_AWAY_MAX, WRITE_STALL_MAX,
};
use crate::rest::problem::{Kind, Problem};
use crate::round_trips::RoundTrips;

/// How long the accept loop rests after an error of the listener: mostly the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How many are served, and how patiently.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerLimits {
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// How long a client may take none of one answer.
    pub(crate) answer_stall_max: Duration,
    /// How long a connection may have no request open.
    pub(crate) idle_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections_max: CONNECTIONS_MAX, answer_stall_max: ANSWER_STALL_MAX, idle_max: CONNECTION_IDLE_MAX }
    }
}

impl ServerLimits {
    /// How often a connection is looked at: what is over is noticed a quarter late at most.
    fn look_interval(&self) -> Duration {
        (self.answer_stall_max.min(self.idle_max) / 4).max(Duration::from_millis(1))
    }
}

/// How the listener speaks, and with whom.
#[derive(Default)]
pub(crate) struct Door {
    /// TLS on every connection; without it HTTP is plain.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Proxies whose connections begin with a PROXY header.
    pub(crate) proxies: Networks,
    /// Proxies that name the client in each request.
    pub(crate) forwarded: Option<ForwardedFrom>,
    /// Measures how far clients are.
    pub(crate) round_trips: RoundTrips,
}

struct Server {
    router: Router,
    limits: ServerLimits,
    builder: auto::Builder<TokioExecutor>,
    tls: Option<TlsAcceptor>,
    proxies: Proxies,
    forwarded: Option<ForwardedFrom>,
    round_trips: RoundTrips,
    places: Arc<Semaphore>,
    /// Those who are told that there is no place.
    exits: Arc<Semaphore>,
    /// Connections by client. Those of all are counted by `places`.
    clients: Arc<Budget>,
    handshakes: Arc<Budget>,
    stopping: CancellationToken,
}

/// A connection that has come in.
struct Guest {
    stream: TcpStream,
    /// The client as far as the connection tells.
    client: IpAddr,
    /// A proxy that names its clients in each request has none.
    _share: Option<Share>,
}

/// What a guest gets.
enum Admission {
    Served,
    /// No place: it is told so.
    Told,
}

/// Serves until `stopping`, then lets open requests end within [`DRAIN_MAX`].
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    door: Door,
    limits: ServerLimits,
    stopping: CancellationToken,
) {
    let connections = TaskTracker::new();
    let server = Arc::new(Server {
        router,
        limits,
        builder: builder(),
        tls: door.tls.map(TlsAcceptor::from),
        proxies: Proxies::new(door.proxies),
        forwarded: door.forwarded,
        round_trips: door.round_trips,
        places: Arc::new(Semaphore::new(limits.connections_max)),
        exits: Arc::new(Semaphore::new(TURNED_AWAY_MAX)),
        clients: Budget::new(limits.connections_max.saturating_add(TURNED_AWAY_MAX), CONNECTIONS_PER_PEER_MAX),
        handshakes: Budget::new(HANDSHAKES_MAX, HANDSHAKES_PER_PEER_MAX),
        stopping: stopping.clone(),
    });
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stopping.cancelled() => break,
        };
        let peer = peer.ip().to_canonical();
        if !server.proxies.include(peer) {
            if !server.is_proxy(peer) {
                server.round_trips.measure(&stream, peer);
            }
            server.admit(stream, peer, &connections);
        } else if let Some(waiting) = server.proxies.wait() {
            let (server, tracker) = (Arc::clone(&server), connections.clone());
            connections.spawn(async move { server.admit_proxied(waiting, stream, peer, &tracker).await });
        } else {
            turned_away();
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were cut off: they did not end in time");
    }
}

fn turned_away() {
    metrics::counter!("postrider_rest_turned_away_connections_total").increment(1);
}

impl Server {
    async fn admit_proxied(
        self: Arc<Self>,
        waiting: Waiting,
        mut stream: TcpStream,
        peer: IpAddr,
        tracker: &TaskTracker,
    ) {
        let read = tokio::select! {
            read = waiting.client(&mut stream, peer) => read,
            () = self.stopping.cancelled() => return,
        };
        match read {
            Ok(client) => self.admit(stream, client, tracker),
            Err(error) => {
                turned_away();
                // A client of TLS would not understand it, and the proxy's log says nothing of it either: ours does.
                if self.tls.is_none() {
                    say(&mut stream, Problem::new(Kind::ProxyHeader).detail(error.to_string())).await;
                }
            }
        }
    }

    /// Whether it names its clients in each request.
    fn is_proxy(&self, peer: IpAddr) -> bool {
        self.forwarded.as_ref().is_some_and(|from| from.includes(peer))
    }

    /// Finds a place for a client's connection, or an end.
    fn admit(self: &Arc<Self>, stream: TcpStream, client: IpAddr, connections: &TaskTracker) {
        let share = match self.is_proxy(client) {
            true => None,
            false => match self.clients.one(client) {
                Ok(share) => Some(share),
                Err(_) => return turned_away(),
            },
        };
        let guest = Guest { stream, client, _share: share };
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            connections.spawn(Arc::clone(self).serve(guest, Admission::Served, place));
            return;
        }
        turned_away();
        // Told, not left to wait in the listener's backlog: a client with another frontend to go to goes there at once.
        if let Ok(exit) = Arc::clone(&self.exits).try_acquire_owned() {
            connections.spawn(Arc::clone(self).serve(guest, Admission::Told, exit));
        }
    }

    async fn serve(self: Arc<Self>, guest: Guest, admission: Admission, place: OwnedSemaphorePermit) {
        let Guest { stream, client, _share } = guest;
        if let Err(error) = stream.set_nodelay(true) {
            // The peer is gone already; serving notices at once.
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        match &self.tls {
            None => self.speak(stream, client, admission).await,
            Some(acceptor) => {
                if let Some(stream) = self.secure(acceptor, stream, client).await {
                    self.speak(stream, client, admission).await;
                }
            }
        }
        drop(place);
    }

    async fn speak<S>(&self, stream: S, client: IpAddr, admission: Admission)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match admission {
            Admission::Served => self.connection(stream, client).await,
            Admission::Told => turn_away(self.builder.clone(), stream).await,
        }
    }

    /// The handshake. So many at once, and of each client network: each costs a signature, and memory until it is done.
    async fn secure(
        &self,
        acceptor: &TlsAcceptor,
        mut stream: TcpStream,
        client: IpAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let failed = |reason: &'static str| {
            metrics::counter!("postrider_rest_tls_failures_total", "reason" => reason).increment(1)
        };
        let handshake = if self.is_proxy(client) { None } else { Some(self.handshakes.one(client)) };
        if let Some(Err(_)) = handshake {
            failed("too many at once");
            return None;
        }
        let accepting = async {
            if speaks_http(&stream).await {
                say(&mut stream, Problem::new(Kind::TlsRequired)).await;
                return Err("plain HTTP");
            }
            acceptor.accept(stream).await.map_err(|error| {
                tracing::debug!(%client, %error, "a TLS handshake failed");
                "refused"
            })
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout(HANDSHAKE_WAIT_MAX, accepting) => accepted.unwrap_or(Err("too slow")),
            () = self.stopping.cancelled() => return None,
        };
        drop(handshake);
        accepted.inspect_err(|reason| failed(reason)).ok()
    }

    /// The client of one request.
    fn client_of(&self, connection: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Problem> {
        match &self.forwarded {
            Some(from) => from.client(connection, headers),
            None => Ok(connection),
        }
    }
}

/// Whether a client that should begin with a handshake begins with a method of HTTP.
async fn speaks_http(stream: &TcpStream) -> bool {
    let mut first = [0];
    // What cannot be looked at cannot be read, either: the handshake says so.
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// Says what is wrong to a client that speaks plain HTTP/1, and ends the connection.
async fn say(stream: &mut TcpStream, problem: Problem) {
    let response = problem.into_response();
    let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", response.status());
    for (name, value) in response.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    let saying = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await
    };
    if matches!(tokio::time::timeout(GOODBYE_MAX, saying).await, Ok(Ok(()))) {
        linger(stream).await;
    }
}

/// Answers the first request of a connection that has no place with 503, and closes.
async fn turn_away<S>(builder: auto::Builder<TokioExecutor>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let told = CancellationToken::new();
    let service = service_fn(|_: Request<Incoming>| {
        told.cancel();
        let full = Problem::new(Kind::Busy).detail("this frontend has as many connections as it may");
        std::future::ready(Ok::<_, Infallible>(full.into_response()))
    });
    let io = TokioIo::new(Impatient::new(stream, GOODBYE_MAX).opened_by(PREFACE_BYTES, GOODBYE_MAX));
    let mut serving = pin!(builder.serve_connection(io, service));
    let ending = async {
        let ended = tokio::select! {
            ended = serving.as_mut() => ended,
            () = told.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection without a place ended with an error");
        }
    };
    if tokio::time::timeout(GOODBYE_MAX, ending).await.is_err() {
        tracing::debug!("a connection without a place was cut off");
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(2 * HEADERS_BYTES_MAX).expect("the limit is below 2^32"))
        .keep_alive_interval(HEAD_WAIT_MAX / 3)
        .keep_alive_timeout(HEAD_WAIT_MAX / 3);
    builder
}

impl Server {
    async fn connection<S>(&self, stream: S, client: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let exchanges = Exchanges::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            let exchange = exchanges.begin();
            let answering = self.client_of(client, request.headers()).map(|client| {
                request.extensions_mut().insert(Peer(client));
                self.router.clone().call(request)
            });
            async move {
                let answered = match answering {
                    Ok(answering) => answering.await,
                    Err(problem) => Ok(problem.into_response()),
                };
                answered.map(|response| response.map(|body: Body| exchange.answer(body)))
            }
        });
        let io = TokioIo::new(Impatient::new(stream, WRITE_STALL_MAX).opened_by(PREFACE_BYTES, HEAD_WAIT_MAX));
        let mut serving = pin!(self.builder.serve_connection_with_upgrades(io, service));
        let mut look = tokio::time::interval(self.limits.look_interval());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stops = false;
        let ended = loop {
            tokio::select! {
                ended = serving.as_mut() => break ended,
                () = self.stopping.cancelled(), if !stops => {
                    stops = true;
                    serving.as_mut().graceful_shutdown();
                }
                _ = look.tick() => {
                    exchanges.give_up(self.limits.answer_stall_max);
                    if exchanges.idle_for() >= self.limits.idle_max {
                        serving.as_mut().graceful_shutdown();
                        // Streams whose answers were given up end with the connection at the latest.
                        break tokio::time::timeout(GOODBYE_MAX, serving).await.unwrap_or(Ok(()));
                    }
                }
            }
        };
        if let Err(error) = ended {
            // Clients go away and send what is no HTTP all day long.
            tracing::debug!(error, "a connection ended with an error");
        }
    }
}

/// Bytes by which HTTP/1 and HTTP/2 are told apart (RFC 9113 section 3.4). Nothing times a client out before, elsewhere.
const PREFACE_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use bytes::Bytes;
    use http_body_util::BodyExt as _;
    use hyper::client::conn::http2;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);

    /// A server whose `/large` has a body that never ends, and tells when it is gone.
    struct Served {
        address: SocketAddr,
        gone: mpsc::UnboundedReceiver<()>,
        stopping: CancellationToken,
        serving: tokio::task::JoinHandle<()>,
    }

    /// Tells when it is dropped.
    struct Tells(mpsc::UnboundedSender<()>);

    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(()).ok(); // the test may be over
        }
    }

    async fn served(limits: ServerLimits) -> Served {
        served_at(Door::default(), limits).await
    }

    async fn served_at(door: Door, limits: ServerLimits) -> Served {
        let (goes, gone) = mpsc::unbounded_channel();
        let large = move || {
            let tells = Tells(goes.clone());
            let chunks = futures::stream::repeat_with(move || {
                let _held = &tells;
                Ok::<_, Infallible>(Bytes::from(vec![0; 1024 * 1024]))
            });
            std::future::ready(Body::from_stream(chunks))
        };
        let router = Router::new()
            .route("/large", get(large))
            .route("/small", get(async || "small"))
            .route("/peer", get(async |Peer(peer): Peer| peer.to_string()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, door, limits, stopping.clone()));
        Served { address, gone, stopping, serving }
    }

    /// An HTTP/2 connection whose streams have a window of `window` bytes, and the task that answers its pings.
    async fn http2(address: SocketAddr, window: u32) -> (http2::SendRequest<Body>, tokio::task::JoinHandle<()>) {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(window).initial_connection_window_size(1024 * 1024);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        let connected = tokio::spawn(async move {
            connection.await.ok(); // how it ends is no matter of these tests
        });
        (requests, connected)
    }

    fn request(address: SocketAddr, path: &str) -> Request<Body> {
        Request::get(format!("http://{address}{path}")).body(Body::empty()).unwrap()
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes too long")
    }

    #[tokio::test]
    async fn an_answer_of_which_nothing_is_taken_is_given_up_and_the_connection_goes_on() {
        let limits = ServerLimits { answer_stall_max: SHORT, idle_max: LONG, ..ServerLimits::default() };
        let mut served = served(limits).await;
        let (mut requests, _connected) = http2(served.address, 100).await;
        let stalled = requests.send_request(request(served.address, "/large")).await.unwrap();
        within(served.gone.recv()).await.unwrap();
        // Others of the connection notice nothing.
        let small = requests.send_request(request(served.address, "/small")).await.unwrap();
        assert_eq!(small.into_body().collect().await.unwrap().to_bytes(), "small");
        // Whoever goes on after all is told that there is no more.
        let rest = within(stalled.into_body().collect()).await;
        assert!(rest.is_err());
    }

    #[tokio::test]
    async fn an_answer_that_is_taken_slowly_goes_on() {
        let limits = ServerLimits { answer_stall_max: 40 * SHORT, idle_max: LONG, ..ServerLimits::default() };
        let mut served = served(limits).await;
        let (mut requests, _connected) = http2(served.address, 64 * 1024).await;
        let mut body = requests.send_request(request(served.address, "/large")).await.unwrap().into_body();
        for _ in 0..50 {
            tokio::time::sleep(SHORT).await;
            body.frame().await.unwrap().unwrap();
        }
        assert!(served.gone.try_recv().is_err(), "it was given up");
    }

    #[tokio::test]
    async fn a_connection_without_requests_is_closed() {
        let limits = ServerLimits { answer_stall_max: SHORT, idle_max: 2 * SHORT, ..ServerLimits::default() };
        let served = served(limits).await;
        // One that never asks, one that has asked, and one that has nothing open but what was given up.
        let (_never, first) = http2(served.address, 100).await;
        let (mut requests, second) = http2(served.address, 100).await;
        let small = requests.send_request(request(served.address, "/small")).await.unwrap();
        assert_eq!(small.into_body().collect().await.unwrap().to_bytes(), "small");
        let (mut requests, third) = http2(served.address, 100).await;
        let _stalled = requests.send_request(request(served.address, "/large")).await.unwrap();
        for connected in [first, second, third] {
            within(connected).await.unwrap();
        }
    }

    #[tokio::test]
    async fn whoever_finds_no_place_is_told_at_once() {
        let limits = ServerLimits { connections_max: 1, ..ServerLimits::default() };
        let served = served(limits).await;
        let (mut requests, connected) = http2(served.address, 64 * 1024).await;
        requests.send_request(request(served.address, "/small")).await.unwrap();
        let (mut second, _connected) = http2(served.address, 64 * 1024).await;
        let refused = within(second.send_request(request(served.address, "/small"))).await.unwrap();
        assert_eq!(refused.status(), http::StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(http::header::RETRY_AFTER));
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("urn:postrider:problem:busy"), "{answer}");
        // A place that is given back is given again.
        drop(requests);
        within(connected).await.unwrap();
        let served_again = async {
            loop {
                let (mut requests, _connected) = http2(served.address, 64 * 1024).await;
                let answer = requests.send_request(request(served.address, "/small")).await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
            }
        };
        within(served_again).await;
        served.stopping.cancel();
        within(served.serving).await.unwrap();
    }
}
