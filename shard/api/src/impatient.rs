//! A connection that does not wait for ever for its peer.
//!
//! Invariant: a client that stops reading loses its connection within a time. Without it one that asks for much and reads none of
//! it would keep files open, and hold places that others wait for.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails with [`io::ErrorKind::TimedOut`] once its peer has taken nothing of what is written for too long; where that
/// is asked for, also when the peer does not begin in time.
pub struct Impatient<S> {
    stream: S,
    opening: Option<Opening>,
    stall_max: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Runs until the peer has sent so many bytes.
struct Opening {
    bytes_left: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    /// Waits at most `stall_max` for a peer who takes nothing.
    pub fn new(stream: S, stall_max: Duration) -> Self {
        Self { stream, opening: None, stall_max, stalled: None }
    }

    /// The first `bytes` have to come within `opening_max` from now.
    #[must_use]
    pub fn opened_by(mut self, bytes: usize, opening_max: Duration) -> Self {
        self.opening = Some(Opening { bytes_left: bytes, timer: Box::pin(sleep(opening_max)) });
        self
    }

    /// Lets a read through, and fails it when the peer has not begun in time.
    fn await_opening(
        &mut self,
        context: &mut Context<'_>,
        poll: Poll<io::Result<()>>,
        read: usize,
    ) -> Poll<io::Result<()>> {
        let Some(opening) = &mut self.opening else { return poll };
        opening.bytes_left = opening.bytes_left.saturating_sub(read);
        if opening.bytes_left == 0 {
            self.opening = None;
            return poll;
        }
        if poll.is_pending() && opening.timer.as_mut().poll(context).is_ready() {
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
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        let read = buffer.filled().len() - before;
        self.await_opening(context, poll, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);
    const OPENING_BYTES: usize = 24;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_peer_who_says_nothing_is_dropped() {
        let (mut client, server) = pair().await;
        let mut server = Impatient::new(server, LONG).opened_by(OPENING_BYTES, SHORT);
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
        let mut server = Impatient::new(server, LONG).opened_by(OPENING_BYTES, SHORT);
        client.write_all(&[b'x'; OPENING_BYTES]).await.unwrap();
        server.read_exact(&mut [0; OPENING_BYTES]).await.unwrap();
        let late = async {
            tokio::time::sleep(4 * SHORT).await;
            client.write_all(b"y").await.unwrap();
        };
        let (read, ()) = tokio::join!(server.read_u8(), late);
        assert_eq!(read.unwrap(), b'y');
    }

    #[tokio::test]
    async fn a_peer_who_takes_nothing_is_dropped_and_one_who_takes_a_little_is_not() {
        let (mut client, server) = pair().await;
        let mut server = Impatient::new(server, Duration::from_secs(2));
        let taking = tokio::spawn(async move {
            let mut buffer = vec![0; 1024 * 1024];
            // A piece at a time, well within the limit each, until the server has written all of it.
            for _ in 0..16 {
                tokio::time::sleep(Duration::from_millis(150)).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
            client
        });
        server.write_all(&vec![0; 16 * 1024 * 1024]).await.unwrap();
        let _client = taking.await.unwrap();
        let error = loop {
            // The client reads nothing any more: once both buffers are full the write stalls.
            if let Err(error) = server.write_all(&[0; 64 * 1024]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
