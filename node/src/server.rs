//! The listener: gRPC from everybody, consensus from nodes, on one port.
//!
//! Which of the two a connection is for is said in its TLS handshake (ALPN, RFC 7301). gRPC's are handed over to tonic.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postrider_api::identity::Caller;
use postrider_api::tls::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, HTTP2, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW_BYTES,
};
use postrider_raft::{Host, transport};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::roles;

/// What is read of a connection at once. TLS (rustls) asks for four KiB at a time: for a message of 50 KB that were sixteen system calls. Two
/// records of TLS, and as much memory for each connection that somebody opens.
const READ_BYTES: usize = 32 << 10;
/// What may be chosen in a handshake.
pub(crate) const PROTOCOLS: [&[u8]; 2] = [transport::ALPN, HTTP2];
/// One frame of HTTP/2. A message that comes in one frame is read into a buffer of its size; of the default's 16 KiB each makes the
/// buffer grow. Other calls on a connection wait for so much at most.
const HTTP2_FRAME_BYTES_MAX: u32 = 256 << 10;
/// Calls and watches that are open on one connection.
const STREAMS_MAX: u32 = 1_024;
/// After a connection that could not be accepted: there may be no descriptors left, and it would be tried again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections whose handshake is done and that tonic has not taken yet.
const HANDED_OVER_MAX: usize = 16;

/// A gRPC server with windows for whole commands, frames that hold a message, and an eye on peers that have gone.
pub(crate) fn grpc() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Takes connections in.
#[derive(Clone)]
pub(crate) struct Acceptor {
    pub(crate) tls: TlsAcceptor,
    pub(crate) host: Host,
    /// Connections that may be open: what is beyond waits in the kernel's backlog.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) peers: PeerConnections,
}

/// The connections of peers. They outlive the others: what has been proposed before the node stopped is committed by them.
#[derive(Clone)]
pub(crate) struct PeerConnections {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl PeerConnections {
    pub(crate) fn new() -> Self {
        Self { tasks: TaskTracker::new(), cut: CancellationToken::new() }
    }

    fn serve(&self, host: &Host, stream: impl transport::Socket + 'static, place: OwnedSemaphorePermit) {
        let (serving, cut) = (host.serve(stream), self.cut.clone());
        self.tasks.spawn(async move {
            cut.run_until_cancelled(serving).await;
            drop(place);
        });
    }

    /// Cuts them all when it is dropped.
    pub(crate) fn guard(&self) -> DropGuard {
        self.cut.clone().drop_guard()
    }

    /// Cuts them all.
    pub(crate) async fn close(&self) {
        self.cut.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Where gRPC's connections go.
type Grpc = mpsc::Sender<std::io::Result<Connection>>;

impl Acceptor {
    /// Accepts until the node stops. Returns gRPC's connections.
    pub(crate) fn run(self, listener: TcpListener) -> mpsc::Receiver<std::io::Result<Connection>> {
        let (grpc, connections) = mpsc::channel(HANDED_OVER_MAX);
        self.tasks.clone().spawn(async move {
            let stop = self.stop.clone();
            stop.run_until_cancelled(self.accept(listener, grpc)).await;
        });
        connections
    }

    async fn accept(&self, listener: TcpListener, grpc: Grpc) {
        // Never closed.
        while let Ok(place) = self.places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (acceptor, grpc) = (self.clone(), grpc.clone());
                    self.tasks.spawn(async move {
                        let stop = acceptor.stop.clone();
                        stop.run_until_cancelled(acceptor.serve(stream, place, grpc)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(&self, stream: TcpStream, place: OwnedSemaphorePermit, grpc: Grpc) {
        let stream = match self.shake_hands(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a handshake has failed");
                return;
            }
        };
        let (_, session) = stream.get_ref();
        let caller = Caller::of(session.peer_certificates());
        if session.alpn_protocol() != Some(transport::ALPN) {
            // Nobody takes it when the node stops.
            drop(grpc.send(Ok(Connection { stream, caller, _place: place })).await);
            return;
        }
        match caller.require(roles::CONSENSUS) {
            Ok(_) => self.peers.serve(&self.host, stream, place),
            Err(status) => {
                let reason = status.message().to_owned();
                tracing::warn!(%reason, "somebody who is no node wants to take part in consensus");
                transport::refuse(stream, reason).await;
            }
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> std::io::Result<TlsStream<BufReader<TcpStream>>> {
        // An answer takes 40 ms otherwise.
        stream.set_nodelay(true)?;
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        tokio::time::timeout(CONNECT_TIMEOUT, self.tls.accept(stream)).await?
    }
}

/// A connection that gives its place back when it is closed.
pub(crate) struct Connection {
    stream: TlsStream<BufReader<TcpStream>>,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
