//! The gRPC service in front of a host's inbox.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::ids::{GroupId, NodeId};
use crate::transport::grpc::{CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES};
use crate::transport::{Inbox, InstallError};
use crate::wire::raft_transport_server::RaftTransport;
use crate::wire::{Answer, Answers, InstallAnswer, Refusal, Requests, SnapshotPart, answer};

/// Messages of one stream that wait for their answer; past it, the stream is not read.
const RUNNING_MAX: usize = 4_096;
/// A message that its replica has not answered for this long is given up: its sender has, and a replica that hangs must
/// not fill the room of all others on the stream.
const DELIVERY_MAX: Duration = Duration::from_secs(10);
const PARTS_AHEAD: usize = 4;
/// Streams that one connection may have: snapshots, and the one of its class.
const STREAMS_MAX: u32 = 1_024;
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Sets on a server what hosts need of it: windows that fill a long link, frames that hold a message, no delay, streams for all. Who accepts connections by
/// himself and hands them over must switch the delay off there: an answer takes 40 ms otherwise.
pub fn tune(server: tonic::transport::Server) -> tonic::transport::Server {
    server
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// Takes messages from peers. Checks of who the peer is belong in front of it.
#[derive(Clone)]
pub struct TransportService {
    inbox: Arc<dyn Inbox>,
}

impl TransportService {
    pub(crate) fn new(inbox: Arc<dyn Inbox>) -> Self {
        Self { inbox }
    }
}

#[tonic::async_trait]
impl RaftTransport for TransportService {
    type ExchangeStream = BoxStream<'static, Result<Answers, Status>>;

    async fn exchange(&self, request: Request<Streaming<Requests>>) -> Result<Response<Self::ExchangeStream>, Status> {
        let exchange = Exchange {
            inbox: self.inbox.clone(),
            inbound: request.into_inner(),
            running: FuturesUnordered::new(),
            ready: VecDeque::new(),
        };
        // The connection itself asks for answers, which reads what comes: a task between the two would have to be woken twice.
        let answers = stream::unfold(Some(exchange), |exchange| async {
            let mut exchange = exchange?;
            match exchange.answers().await {
                Ok(answers) => answers.map(|answers| (Ok(answers), Some(exchange))),
                Err(refusal) => Some((Err(refusal), None)),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn install(&self, request: Request<Streaming<SnapshotPart>>) -> Result<Response<InstallAnswer>, Status> {
        let mut parts = request.into_inner();
        let (feed, fed) = mpsc::channel(PARTS_AHEAD);
        let installed = self.inbox.install(fed);
        let feeding = async move {
            while let Some(part) = parts.message().await? {
                if feed.send(part).await.is_err() {
                    // The receiver has failed and says why.
                    break;
                }
            }
            drop(feed);
            Ok::<(), Status>(())
        };
        // How the stream ended shows in what was installed.
        let (_, installed) = tokio::join!(feeding, installed);
        match installed {
            Ok(answer) => Ok(Response::new(answer)),
            Err(error @ InstallError::Interrupted) => Err(Status::aborted(error.to_string())),
            Err(error @ InstallError::Malformed(_)) => Err(Status::invalid_argument(error.to_string())),
            Err(error @ InstallError::UnknownGroup) => Err(Status::not_found(error.to_string())),
            Err(error @ InstallError::Busy) => Err(Status::resource_exhausted(error.to_string())),
            Err(error @ InstallError::Failed(_)) => Err(Status::internal(error.to_string())),
        }
    }
}

/// One stream of messages and their answers.
struct Exchange {
    inbox: Arc<dyn Inbox>,
    inbound: Streaming<Requests>,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
    ready: VecDeque<Answer>,
}

impl Exchange {
    /// Takes messages until there are answers; none when the stream is over.
    ///
    /// # Errors
    /// When the peer takes this for another node.
    async fn answers(&mut self) -> Result<Option<Answers>, Status> {
        while self.ready.is_empty() {
            tokio::select! {
                frame = self.inbound.message(), if self.running.len() < RUNNING_MAX => match frame {
                    Ok(Some(_)) if self.inbox.closed() => return Ok(None),
                    Ok(Some(frame)) if frame.to != self.inbox.node().0 => {
                        return Err(Status::failed_precondition("this is another node"));
                    }
                    Ok(Some(frame)) => self.accept(frame).await,
                    // The peer has closed the stream or lost the connection; it sends again what it must.
                    Ok(None) | Err(_) => return Ok(None),
                },
                Some(answer) = self.running.next(), if !self.running.is_empty() => self.ready.push_back(answer),
            }
        }
        while let Some(Some(answer)) = self.running.next().now_or_never() {
            self.ready.push_back(answer);
        }
        Ok(Some(Answers { answers: self.ready.drain(..).collect() }))
    }

    /// Puts the messages of a frame into their replicas' queues, in order.
    async fn accept(&mut self, frame: Requests) {
        let from = NodeId(frame.from);
        for message in frame.messages {
            let id = message.id;
            let Some(body) = message.body else {
                let body = Some(answer::Body::Refused(Refusal::Malformed.into()));
                self.ready.push_back(Answer { id, body });
                continue;
            };
            let delivery = self.inbox.deliver(from, GroupId(message.group), body);
            let mut answer = async move {
                let late = || answer::Body::Refused(Refusal::Late.into());
                let body = tokio::time::timeout(DELIVERY_MAX, delivery).await.unwrap_or_else(|_| late());
                Answer { id, body: Some(body) }
            }
            .boxed();
            // The first poll is what queues the message, so it happens here and now, one after the other.
            match futures::poll!(&mut answer) {
                Poll::Ready(answer) => self.ready.push_back(answer),
                Poll::Pending => self.running.push(answer),
            }
        }
    }
}
