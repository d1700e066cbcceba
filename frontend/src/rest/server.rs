//! The HTTP server: HTTP/1.1 and HTTP/2 (prior knowledge) on one port, bounded in connections, heads, streams and patience.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use postrider_api::impatient::Impatient;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::account::counted_peer;
use crate::rest::exchanges::Exchanges;
use crate::rest::extract::Peer;
use crate::rest::limit::{
    ANSWER_STALL_MAX, CONNECTION_BUFFER_BYTES_MAX, CONNECTION_IDLE_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX,
    DRAIN_MAX, GOODBYE_MAX, HEAD_WAIT_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, STREAMS_MAX, TURNED_AWAY_MAX,
    WRITE_STALL_MAX,
};
use crate::rest::problem::{Kind, Problem};
use crate::rest::shares::Shares;

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

/// Serves until `stopping`, then lets open requests end within [`DRAIN_MAX`].
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, stopping: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let exits = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    let peers = Shares::new(CONNECTIONS_PER_PEER_MAX);
    let builder = builder();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stopping.cancelled() => break,
        };
        let turned_away = || metrics::counter!("postrider_rest_turned_away_connections_total").increment(1);
        let Some(share) = peers.take(counted_peer(peer.ip())) else {
            turned_away();
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            turned_away();
            // Told, not left to wait in the listener's backlog: a client with another frontend to go to goes there at once.
            if let Ok(exit) = Arc::clone(&exits).try_acquire_owned() {
                let telling = turn_away(builder.clone(), stream);
                connections.spawn(async move {
                    telling.await;
                    drop((exit, share));
                });
            }
            continue;
        };
        let connection = connection(builder.clone(), stream, peer, router.clone(), limits, stopping.clone());
        connections.spawn(async move {
            connection.await;
            drop((place, share));
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "requests were cut off: they did not end in time");
    }
}

/// Answers the first request of a connection that has no place with 503, and closes.
async fn turn_away(builder: auto::Builder<TokioExecutor>, stream: TcpStream) {
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

async fn connection(
    builder: auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: ServerLimits,
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        // The peer is gone already; serving notices at once.
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let exchanges = Exchanges::new();
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        let exchange = exchanges.begin();
        let answering = router.clone().call(request);
        async move { answering.await.map(|response| response.map(|body| exchange.answer(body))) }
    });
    let io = TokioIo::new(Impatient::new(stream, WRITE_STALL_MAX).opened_by(PREFACE_BYTES, HEAD_WAIT_MAX));
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, service));
    let mut look = tokio::time::interval(limits.look_interval());
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stops = false;
    let ended = loop {
        tokio::select! {
            ended = serving.as_mut() => break ended,
            () = stopping.cancelled(), if !stops => {
                stops = true;
                serving.as_mut().graceful_shutdown();
            }
            _ = look.tick() => {
                exchanges.give_up(limits.answer_stall_max);
                if exchanges.idle_for() >= limits.idle_max {
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
        let (goes, gone) = mpsc::unbounded_channel();
        let large = move || {
            let tells = Tells(goes.clone());
            let chunks = futures::stream::repeat_with(move || {
                let _held = &tells;
                Ok::<_, Infallible>(Bytes::from(vec![0; 1024 * 1024]))
            });
            std::future::ready(Body::from_stream(chunks))
        };
        let router = Router::new().route("/large", get(large)).route("/small", get(async || "small"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, router, limits, stopping.clone()));
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
