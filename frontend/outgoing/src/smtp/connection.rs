//! Bytes to and from a peer, each step within its time.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use super::reply::{Reply, ReplyReader};
use super::{Step, Trouble};

/// What is read at once, bytes.
const READ_BYTES: usize = 4096;

/// Any stream: plain or encrypted.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection to a peer.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    incoming: BytesMut,
    reader: ReplyReader,
    /// When the whole attempt is over, whatever a step might take.
    deadline: Instant,
}

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>, deadline: Instant) -> Self {
        Self { stream, incoming: BytesMut::new(), reader: ReplyReader::default(), deadline }
    }

    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn until(&self, limit: Duration) -> Instant {
        self.deadline.min(Instant::now() + limit)
    }

    /// Writes, and sees to it that it goes out.
    pub(crate) async fn write(&mut self, step: Step, bytes: &[u8], limit: Duration) -> Result<(), Trouble> {
        let until = self.until(limit);
        let written = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout_at(until, written).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(broken(step, &error)),
            Err(_) => Err(Trouble::TimedOut(step)),
        }
    }

    /// The next reply.
    pub(crate) async fn read(&mut self, step: Step, limit: Duration) -> Result<Reply, Trouble> {
        let until = self.until(limit);
        loop {
            if let Some(reply) =
                self.reader.take(&mut self.incoming).map_err(|malformed| Trouble::Malformed(step, malformed))?
            {
                return Ok(reply);
            }
            self.incoming.reserve(READ_BYTES);
            match timeout_at(until, self.stream.read_buf(&mut self.incoming)).await {
                Ok(Ok(0)) => return Err(Trouble::Closed(step)),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(broken(step, &error)),
                Err(_) => return Err(Trouble::TimedOut(step)),
            }
        }
    }

    /// One command and its reply.
    pub(crate) async fn ask(&mut self, step: Step, command: &str, limit: Duration) -> Result<Reply, Trouble> {
        // Whatever came before was not asked for.
        if !self.incoming.is_empty() {
            return self.out_of_step(step);
        }
        self.write(step, command.as_bytes(), limit).await?;
        self.read(step, limit).await
    }

    /// A reply that stands in the buffer though nothing was asked: most often 421, before the peer closes.
    fn out_of_step<T>(&mut self, step: Step) -> Result<T, Trouble> {
        let text = match self.reader.take(&mut self.incoming) {
            Ok(Some(reply)) => reply.to_string(),
            Ok(None) => "part of one".to_owned(),
            Err(malformed) => malformed.to_string(),
        };
        Err(Trouble::OutOfStep(step, text))
    }

    /// The bare stream, for a TLS handshake. Whatever came behind the reply to STARTTLS was not encrypted, and would be read as if it
    /// had been (CVE-2011-0411): a peer with such bytes is one to talk to no more.
    pub(crate) fn into_stream(mut self, step: Step) -> Result<Box<dyn Stream>, Trouble> {
        if !self.incoming.is_empty() {
            return self.out_of_step(step);
        }
        Ok(self.stream)
    }
}

fn broken(step: Step, error: &std::io::Error) -> Trouble {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Trouble::Closed(step),
        _ => Trouble::Broken(step, error.to_string()),
    }
}
