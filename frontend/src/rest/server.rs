//! The HTTP server: HTTP/1.1 and HTTP/2 (prior knowledge) on one port, bounded in connections, heads, streams and patience.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

use crate::account::counted_peer;
use crate::rest::extract::Peer;
use crate::rest::limit::{
    CONNECTION_BUFFER_BYTES_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_PEER_MAX, DRAIN_MAX, HEAD_WAIT_MAX,
    HEADERS_BYTES_MAX, HEADERS_MAX, STREAMS_MAX, WRITE_STALL_MAX,
};
use crate::rest::shares::Shares;

/// How long the accept loop rests after an error of the listener: mostly the process has no file descriptor left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then lets open requests end within [`DRAIN_MAX`].
pub(crate) async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let peers = Shares::new(CONNECTIONS_PER_PEER_MAX);
    let builder = builder();
    loop {
        // A place first: whoever comes beyond the limit waits in the listener's backlog.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = stopping.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = stopping.cancelled() => break,
        };
        let Some(share) = peers.take(counted_peer(peer.ip())) else {
            metrics::counter!("postrider_rest_turned_away_connections_total").increment(1);
            continue;
        };
        let connection = connection(builder.clone(), stream, peer, router.clone(), stopping.clone());
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
    stopping: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        // The peer is gone already; serving notices at once.
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer.ip()));
        router.clone().call(request)
    });
    let io = TokioIo::new(Impatient::new(stream, HEAD_WAIT_MAX, WRITE_STALL_MAX));
    let mut serving = pin!(builder.serve_connection_with_upgrades(io, service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stopping.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        // Clients go away and send what is no HTTP all day long.
        tracing::debug!(error, "a connection ended with an error");
    }
}

/// Bytes by which HTTP/1 and HTTP/2 are told apart (RFC 9113 section 3.4). Nothing times a client out before, elsewhere.
const PREFACE_BYTES: usize = 24;

/// A stream whose peer has to begin within a time, and to take what is written to it within another.
struct Impatient {
    stream: TcpStream,
    /// Runs until the peer has sent as much as a preface has.
    opening: Option<Pin<Box<Sleep>>>,
    received: usize,
    stall_max: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(stream: TcpStream, opening_max: Duration, stall_max: Duration) -> Self {
        let opening = Some(Box::pin(tokio::time::sleep(opening_max)));
        Self { stream, opening, received: 0, stall_max, stalled: None }
    }

    /// Lets a read through, and fails it when the peer has not begun in time.
    fn await_opening(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<()>>,
        read: usize,
    ) -> Poll<io::Result<()>> {
        let Some(opening) = &mut self.opening else { return poll };
        self.received += read;
        if self.received >= PREFACE_BYTES {
            self.opening = None;
            return poll;
        }
        if poll.is_pending() && opening.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }

    /// Lets a write through, and fails it when the peer took nothing for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let deadline = Instant::now() + self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = buffer.filled().len() - before;
        self.await_opening(cx, poll, read)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_peer_who_says_nothing_is_dropped() {
        let (mut client, server) = pair().await;
        let mut server = Impatient::new(server, SHORT, LONG);
        client.write_all(b"PRI * HTTP").await.unwrap();
        let mut bytes = [0; 64];
        let error = loop {
            if let Err(error) = server.read(&mut bytes).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_who_has_begun_may_take_his_time() {
        let (mut client, server) = pair().await;
        let mut server = Impatient::new(server, SHORT, LONG);
        client.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
        server.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let late = async {
            tokio::time::sleep(4 * SHORT).await;
            client.write_all(b"y").await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_u8(), late);
        assert_eq!(read.unwrap(), b'y');
    }

    #[tokio::test]
    async fn a_peer_who_takes_nothing_is_dropped() {
        let (client, server) = pair().await;
        let mut server = Impatient::new(server, LONG, SHORT);
        let error = loop {
            // The client reads nothing: once both buffers are full the write stalls.
            if let Err(error) = server.write_all(&[0; 64 * 1024]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(client);
    }
}
