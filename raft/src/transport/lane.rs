//! One connection to a peer, on which all groups' messages of one class travel.
//!
//! Invariant: messages leave in the order in which they were queued, and what is queued is bounded in bytes.
//!
//! One task has the connection, both ways: on the way of a message each task more is one more that has to be woken.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Interval};

use crate::ids::{GroupIdentity, NodeId};
use crate::transport::addresses::Addresses;
use crate::transport::frames::{ClientConnection, Quiet};
use crate::transport::tcp::Dialer;
use crate::transport::{LinkError, Reply};
use crate::types::ENTRY_OVERHEAD_BYTES;
use crate::wire::{
    Answer, Answers, ClientFrame, FRAME_BYTES_TARGET, Message, Purpose, Requests, answer, client_frame, message,
    server_frame,
};

/// Messages that may wait in front of the connection.
const QUEUE_MAX: usize = 1_024;
/// Messages in one frame.
const FRAME_MESSAGES_MAX: usize = 256;
/// After a failed attempt the peer is left alone this long, growing up to the second.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(1_000);
/// How often answers that nobody waits for any more are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

struct Queued {
    group: GroupIdentity,
    body: message::Body,
    bytes: usize,
    tell: oneshot::Sender<Result<answer::Body, LinkError>>,
    permit: OwnedSemaphorePermit,
}

/// The sending end of a lane. The connection goes when the last one is dropped.
pub(crate) struct Lane {
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    room_bytes: usize,
}

impl Lane {
    /// A lane to `to`, with at most `inflight_bytes_max` unanswered.
    pub(crate) fn start(to: NodeId, dialer: Dialer, inflight_bytes_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let feed = Feed { waiting, outbox: VecDeque::new(), pending: HashMap::new(), next_id: 0 };
        tokio::spawn(LaneTask { to, dialer, feed }.run());
        Self { queue, room: Arc::new(Semaphore::new(inflight_bytes_max)), room_bytes: inflight_bytes_max }
    }

    pub(crate) async fn send(&self, group: GroupIdentity, body: message::Body) -> Result<Reply, LinkError> {
        let bytes = weight(&body);
        // A message that is larger than all the room takes all the room.
        let wanted = u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX);
        let closed = || LinkError::Lost("the link is closed".to_owned());
        let permit = self.room.clone().acquire_many_owned(wanted).await.map_err(|_| closed())?;
        let (tell, reply) = oneshot::channel();
        let queued = Queued { group, body, bytes, tell, permit };
        self.queue.send(queued).await.map_err(|_| closed())?;
        Ok(reply)
    }
}

fn weight(body: &message::Body) -> usize {
    let entries = match body {
        message::Body::Append(append) => append.entry_bytes(),
        message::Body::Ballots(ballots) => ballots.ballots.len() * ENTRY_OVERHEAD_BYTES,
        message::Body::Vote(_)
        | message::Body::PreVote(_)
        | message::Body::Transfer(_)
        | message::Body::Quiesce(_)
        | message::Body::Beat(_)
        | message::Body::Progress(_) => 0,
    };
    entries + ENTRY_OVERHEAD_BYTES
}

/// Somebody waits for the answer; the room is given back with it.
struct Pending {
    tell: oneshot::Sender<Result<answer::Body, LinkError>>,
    permit: OwnedSemaphorePermit,
}

/// What waits to be sent, and what waits for its answer.
struct Feed {
    waiting: mpsc::Receiver<Queued>,
    outbox: VecDeque<Queued>,
    pending: HashMap<u64, Pending>,
    next_id: u64,
}

impl Feed {
    /// The next messages, in one frame; none when nobody sends any more.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Poll<Option<Requests>> {
        loop {
            let mut arrived = Vec::new();
            let room = FRAME_MESSAGES_MAX - self.outbox.len().min(FRAME_MESSAGES_MAX);
            let more = if room == 0 { Poll::Pending } else { self.waiting.poll_recv_many(cx, &mut arrived, room) };
            self.outbox.extend(arrived);
            if self.outbox.is_empty() {
                return match ready!(more) {
                    0 => Poll::Ready(None),
                    _ => continue,
                };
            }
            let requests = self.requests();
            if !requests.messages.is_empty() {
                return Poll::Ready(Some(requests));
            }
        }
    }

    /// As much of what is to be sent as goes into one frame; nothing that nobody waits for any more.
    fn requests(&mut self) -> Requests {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.outbox.front() {
            if !messages.is_empty() && bytes + next.bytes > FRAME_BYTES_TARGET {
                break;
            }
            let Some(queued) = self.outbox.pop_front() else { break };
            if queued.tell.is_closed() {
                continue;
            }
            bytes += queued.bytes;
            self.next_id += 1;
            let id = self.next_id;
            let GroupIdentity { id: group, incarnation } = queued.group;
            messages.push(Message { id, group: group.0, body: Some(queued.body), incarnation: incarnation.0 });
            self.pending.insert(id, Pending { tell: queued.tell, permit: queued.permit });
        }
        Requests { messages }
    }

    fn deliver(&mut self, answers: Vec<Answer>) {
        for answer in answers {
            let (Some(waiter), Some(body)) = (self.pending.remove(&answer.id), answer.body) else {
                continue;
            };
            // Whoever has stopped waiting does not need to know.
            drop(waiter.tell.send(Ok(body)));
        }
    }

    /// What is on its way, or was and has no answer yet.
    fn unanswered_bytes(&self) -> u64 {
        self.pending.values().map(|pending| pending.permit.num_permits() as u64).sum()
    }

    /// What was sent or was about to be gets no answer.
    fn end(&mut self, reason: &str) {
        for (_, waiter) in self.pending.drain() {
            // Whoever has stopped waiting does not need to know.
            drop(waiter.tell.send(Err(LinkError::Lost(reason.to_owned()))));
        }
        for queued in self.outbox.drain(..) {
            refuse(queued, reason);
        }
    }
}

struct LaneTask {
    to: NodeId,
    dialer: Dialer,
    feed: Feed,
}

/// Why a session ended.
enum Ended {
    /// Nobody sends any more.
    Closed,
    Lost(String),
}

impl LaneTask {
    async fn run(mut self) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = self.feed.waiting.recv().await {
            self.feed.outbox.push_back(first);
            let ended = match self.dialer.open(Purpose::Exchange).await {
                Ok(connection) => {
                    let started = Instant::now();
                    let mut session =
                        Session::new(&mut self.feed, connection, self.dialer.patience, &self.dialer.addresses);
                    let ended = std::future::poll_fn(|cx| session.poll(cx)).await;
                    if started.elapsed() > BACKOFF_MAX {
                        backoff = BACKOFF_MIN;
                    }
                    ended
                }
                Err(reason) => Ended::Lost(reason),
            };
            let reason = match ended {
                Ended::Closed => return self.feed.end("the link is closed"),
                Ended::Lost(reason) => reason,
            };
            self.feed.end(&reason);
            tracing::debug!(to = %self.to, %reason, "no connection to the peer");
            if !self.rest(backoff, &reason).await {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Leaves the peer alone for a while; what is to be sent meanwhile fails at once. False when nobody sends any more.
    async fn rest(&mut self, pause: Duration, reason: &str) -> bool {
        let until = Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.feed.waiting.recv()).await {
                Ok(Some(queued)) => refuse(queued, reason),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }
}

fn refuse(queued: Queued, reason: &str) {
    // Whoever has stopped waiting does not need to know.
    drop(queued.tell.send(Err(LinkError::Unreachable(reason.to_owned()))));
}

/// One connection, for as long as it lasts.
struct Session<'a> {
    feed: &'a mut Feed,
    connection: ClientConnection,
    addresses: &'a Addresses,
    sweep: Interval,
    quiet: Quiet,
    patience: Patience,
    probing: Probing,
}

/// Whether the peer was asked if it is there, and has not said anything since.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Probing {
    No,
    Due,
    Asked,
}

/// How long a peer may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// So long before it is asked, and so long again until it has answered.
    pub(crate) keepalive: Duration,
    /// The slowest link that still counts as working, in bytes per second.
    pub(crate) link_bytes_per_s_min: u64,
}

/// What is on its way to a peer may take so many times as long as it would on the slowest link: a snapshot may share it.
const LINK_SHARED: u64 = 2;

impl Patience {
    /// How long it may be silent in all with so much in front of what it is asked.
    fn limit(&self, unanswered_bytes: u64) -> Duration {
        let transfer = unanswered_bytes * LINK_SHARED * 1_000 / self.link_bytes_per_s_min.max(1);
        2 * self.keepalive + Duration::from_millis(transfer)
    }
}

impl<'a> Session<'a> {
    fn new(feed: &'a mut Feed, connection: ClientConnection, patience: Patience, addresses: &'a Addresses) -> Self {
        let sweep = tokio::time::interval(SWEEP_EVERY);
        Self {
            feed,
            connection,
            addresses,
            sweep,
            quiet: Quiet::new(patience.keepalive),
            patience,
            probing: Probing::No,
        }
    }

    /// Reads answers and sends messages until one of them is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        while let Poll::Ready(frame) = self.connection.poll_next_unpin(cx) {
            match frame {
                Some(Ok(frame)) => {
                    self.quiet.hear();
                    self.probing = Probing::No;
                    match frame.body {
                        Some(server_frame::Body::Answers(Answers { answers })) => self.feed.deliver(answers),
                        Some(server_frame::Body::Refused(reason)) => return Poll::Ready(Ended::Lost(reason)),
                        Some(server_frame::Body::Reached(reached)) => {
                            let nodes = reached.nodes.into_iter().map(|at| (NodeId(at.node), at.address));
                            self.addresses.overhear(nodes);
                        }
                        Some(server_frame::Body::Installed(_)) | None => {}
                    }
                }
                Some(Err(error)) => return Poll::Ready(Ended::Lost(error.to_string())),
                None => return Poll::Ready(Ended::Lost("the peer closed the connection".to_owned())),
            }
        }
        while let Poll::Ready(silence) = self.quiet.poll(cx) {
            if self.probing == Probing::No {
                self.probing = Probing::Due;
            } else if silence >= self.patience.limit(self.feed.unanswered_bytes()) {
                return Poll::Ready(Ended::Lost("the peer is silent".to_owned()));
            }
        }
        while self.sweep.poll_tick(cx).is_ready() {
            self.feed.pending.retain(|_, pending| !pending.tell.is_closed());
        }
        self.poll_send(cx)
    }

    /// Sends what there is; ready only when that is over.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let sent = loop {
            if let Err(error) = ready!(self.connection.poll_ready_unpin(cx)) {
                break Err(error);
            }
            let body = if self.probing == Probing::Due {
                self.probing = Probing::Asked;
                None
            } else {
                match self.feed.poll_requests(cx) {
                    Poll::Ready(Some(requests)) => Some(client_frame::Body::Requests(requests)),
                    Poll::Ready(None) => return Poll::Ready(Ended::Closed),
                    Poll::Pending => break ready!(self.connection.poll_flush_unpin(cx)),
                }
            };
            if let Err(error) = self.connection.start_send_unpin(ClientFrame { body }) {
                break Err(error);
            }
        };
        match sent {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Ended::Lost(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, DuplexStream};

    use super::*;
    use crate::ids::{GroupId, Incarnation};
    use crate::transport::frames::Frames;
    use crate::wire::{Append, Entry, Vote, entry};

    const KEEPALIVE: Duration = Duration::from_millis(50);
    const BYTES: usize = 64 << 10;

    /// Sends one message with `bytes` of entries to a peer that reads and says nothing. Returns how long it is waited for.
    async fn patience(bytes: usize, link_bytes_per_s_min: u64) -> (Duration, DuplexStream) {
        let (near, far) = tokio::io::duplex(2 * BYTES);
        let (queue, waiting) = mpsc::channel(1);
        let room = Arc::new(Semaphore::new(BYTES));
        let permit = room.acquire_many_owned(bytes as u32).await.expect("room");
        let (tell, reply) = oneshot::channel();
        let command = Entry { log_id: None, body: Some(entry::Body::Command(vec![7; bytes].into())) };
        let append = Append { vote: Some(Vote::default()), entries: vec![command], ..Append::default() };
        let queued = Queued {
            group: GroupIdentity { id: GroupId(1), incarnation: Incarnation(1) },
            body: message::Body::Append(append),
            bytes,
            tell,
            permit,
        };
        queue.send(queued).await.expect("a lane");
        let mut feed = Feed { waiting, outbox: VecDeque::new(), pending: HashMap::new(), next_id: 0 };
        let connection = ClientConnection::new(Box::new(near), Frames::new());
        let began = Instant::now();
        let (patience, addresses) = (Patience { keepalive: KEEPALIVE, link_bytes_per_s_min }, Addresses::default());
        let mut session = Session::new(&mut feed, connection, patience, &addresses);
        let ended = std::future::poll_fn(|cx| session.poll(cx)).await;
        let waited = began.elapsed();
        assert!(matches!(&ended, Ended::Lost(reason) if reason == "the peer is silent"));
        feed.end("it is over");
        assert_eq!(reply.await, Ok(Err(LinkError::Lost("it is over".to_owned()))));
        (waited, far)
    }

    #[tokio::test]
    async fn a_silent_peer_is_asked_whether_it_is_there_and_given_up() {
        let (waited, mut far) = patience(1, u64::MAX).await;
        assert!(waited >= 2 * KEEPALIVE, "{waited:?}");
        let mut sent = Vec::new();
        far.read_to_end(&mut sent).await.expect("what was sent");
        let message = u32::from_be_bytes(*sent.first_chunk().expect("a message")) as usize;
        assert_eq!(sent[4 + message..], [0; 4], "then the question");
    }

    /// Over a slow link nothing can be answered before all that was sent has come.
    #[tokio::test]
    async fn what_is_on_its_way_gives_it_time() {
        let (waited, _far) = patience(BYTES, (BYTES * 4) as u64).await;
        assert!(waited >= 2 * KEEPALIVE + Duration::from_millis(500), "{waited:?}");
    }
}
