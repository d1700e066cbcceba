//! One connection to a peer, with one stream on which all groups' messages of one class travel.
//!
//! Invariant: messages leave in the order in which they were queued, and what is queued is bounded in bytes.
//!
//! The connection takes frames straight from the queue: on the way of a message each task more is one more that has to be woken.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Streaming;

use crate::ids::{GroupId, NodeId};
use crate::transport::grpc::Dialer;
use crate::transport::{LinkError, Reply};
use crate::types::ENTRY_OVERHEAD_BYTES;
use crate::wire::{Answers, FRAME_BYTES_TARGET, Message, Requests, answer, message};

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
    group: GroupId,
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
    /// A lane from `from` to `to`, with at most `inflight_bytes_max` unanswered.
    pub(crate) fn start(from: NodeId, to: NodeId, dialer: Dialer, inflight_bytes_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let feed = Feed {
            from,
            to,
            waiting,
            outbox: VecDeque::new(),
            pending: HashMap::new(),
            session: 0,
            connection: None,
            next_id: 0,
        };
        let lane = Arc::new(Shared { feed: Mutex::new(feed), closed: Notify::new() });
        tokio::spawn(LaneTask { to, dialer, lane }.run());
        Self { queue, room: Arc::new(Semaphore::new(inflight_bytes_max)), room_bytes: inflight_bytes_max }
    }

    pub(crate) async fn send(&self, group: GroupId, body: message::Body) -> Result<Reply, LinkError> {
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
    _permit: OwnedSemaphorePermit,
}

/// What waits to be sent, and what waits for its answer.
struct Feed {
    from: NodeId,
    to: NodeId,
    waiting: mpsc::Receiver<Queued>,
    outbox: VecDeque<Queued>,
    pending: HashMap<u64, Pending>,
    /// Numbers the connections: one that was given up gets nothing more.
    session: u64,
    /// Wakes the connection of the session.
    connection: Option<Waker>,
    next_id: u64,
}

impl Feed {
    /// The next frame; none when nobody sends any more.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Requests>> {
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
            let frame = self.frame();
            if !frame.messages.is_empty() {
                return Poll::Ready(Some(frame));
            }
        }
    }

    /// As much of what is to be sent as goes into one frame; nothing that nobody waits for any more.
    fn frame(&mut self) -> Requests {
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
            messages.push(Message { id, group: queued.group.0, body: Some(queued.body) });
            self.pending.insert(id, Pending { tell: queued.tell, _permit: queued.permit });
        }
        Requests { from: self.from.0, to: self.to.0, messages }
    }

    fn deliver(&mut self, frame: Answers) {
        for answer in frame.answers {
            let (Some(waiter), Some(body)) = (self.pending.remove(&answer.id), answer.body) else {
                continue;
            };
            // Whoever has stopped waiting does not need to know.
            drop(waiter.tell.send(Ok(body)));
        }
    }

    /// Ends the session: what was sent or was about to be gets no answer, and its connection learns that nothing more comes.
    fn end(&mut self, reason: &str) {
        self.session += 1;
        if let Some(connection) = self.connection.take() {
            connection.wake();
        }
        for (_, waiter) in self.pending.drain() {
            // Whoever has stopped waiting does not need to know.
            drop(waiter.tell.send(Err(LinkError::Lost(reason.to_owned()))));
        }
        for queued in self.outbox.drain(..) {
            refuse(queued, reason);
        }
    }
}

/// Between the lane's task and its connection.
struct Shared {
    feed: Mutex<Feed>,
    /// Told when the connection has found that nobody sends any more.
    closed: Notify,
}

/// The frames of one session, as its connection takes them.
pub(crate) struct Frames {
    lane: Arc<Shared>,
    session: u64,
}

impl Stream for Frames {
    type Item = Requests;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Requests>> {
        let mut feed = self.lane.feed.lock();
        if feed.session != self.session {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = feed.poll_frame(cx) else {
            feed.connection = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if frame.is_none() {
            self.lane.closed.notify_one();
        }
        Poll::Ready(frame)
    }
}

struct LaneTask {
    to: NodeId,
    dialer: Dialer,
    lane: Arc<Shared>,
}

/// Why a session ended.
enum Ended {
    /// Nobody sends any more.
    Closed,
    Lost(String),
}

impl LaneTask {
    async fn run(self) {
        let mut backoff = BACKOFF_MIN;
        while let Some(first) = self.next().await {
            let frames = {
                let mut feed = self.lane.feed.lock();
                feed.outbox.push_back(first);
                Frames { lane: self.lane.clone(), session: feed.session }
            };
            let ended = match self.dialer.exchange(frames).await {
                Ok(answers) => {
                    let started = Instant::now();
                    let ended = self.session(answers).await;
                    if started.elapsed() > BACKOFF_MAX {
                        backoff = BACKOFF_MIN;
                    }
                    ended
                }
                Err(reason) => Ended::Lost(reason),
            };
            let reason = match ended {
                Ended::Closed => return self.lane.feed.lock().end("the link is closed"),
                Ended::Lost(reason) => reason,
            };
            self.lane.feed.lock().end(&reason);
            tracing::debug!(to = %self.to, %reason, "no connection to the peer");
            if !self.rest(backoff, &reason).await {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// What is queued next; none when nobody sends any more.
    async fn next(&self) -> Option<Queued> {
        std::future::poll_fn(|cx| self.lane.feed.lock().waiting.poll_recv(cx)).await
    }

    /// Leaves the peer alone for a while; what is to be sent meanwhile fails at once. False when nobody sends any more.
    async fn rest(&self, pause: Duration, reason: &str) -> bool {
        let until = Instant::now() + pause;
        loop {
            match tokio::time::timeout_at(until, self.next()).await {
                Ok(Some(queued)) => refuse(queued, reason),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// Passes answers on until the stream ends.
    async fn session(&self, mut answers: Streaming<Answers>) -> Ended {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => self.lane.feed.lock().deliver(frame),
                    Ok(None) => return Ended::Lost("the peer closed the stream".to_owned()),
                    Err(status) => return Ended::Lost(status.message().to_owned()),
                },
                () = self.lane.closed.notified() => return Ended::Closed,
                _ = sweep.tick() => self.lane.feed.lock().pending.retain(|_, pending| !pending.tell.is_closed()),
            }
        }
    }
}

fn refuse(queued: Queued, reason: &str) {
    // Whoever has stopped waiting does not need to know.
    drop(queued.tell.send(Err(LinkError::Unreachable(reason.to_owned()))));
}
