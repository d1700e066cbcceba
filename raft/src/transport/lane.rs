//! One connection to a peer, with one stream on which all groups' messages of one class travel.
//!
//! Invariant: messages leave in the order in which they were queued, and what is queued is bounded in bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::Streaming;

use crate::ids::{GroupId, NodeId};
use crate::transport::grpc::Dialer;
use crate::transport::{LinkError, Reply};
use crate::types::ENTRY_OVERHEAD_BYTES;
use crate::wire::{Answers, FRAME_BYTES_TARGET, Message, Requests, answer, message};

/// Messages that may wait in front of the connection.
const QUEUE_MAX: usize = 1_024;
/// Frames between this task and the connection's.
const FRAMES_AHEAD: usize = 2;
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
        let task = LaneTask { from, to, dialer, waiting, next_id: 0 };
        tokio::spawn(task.run());
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

struct LaneTask {
    from: NodeId,
    to: NodeId,
    dialer: Dialer,
    waiting: mpsc::Receiver<Queued>,
    next_id: u64,
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
        while let Some(first) = self.waiting.recv().await {
            let reason = match self.dialer.exchange().await {
                Ok((frames, answers)) => {
                    let started = Instant::now();
                    match self.session(first, frames, answers).await {
                        Ended::Closed => return,
                        Ended::Lost(reason) => {
                            if started.elapsed() > BACKOFF_MAX {
                                backoff = BACKOFF_MIN;
                            }
                            reason
                        }
                    }
                }
                Err(reason) => {
                    refuse(first, &reason);
                    reason
                }
            };
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
            match tokio::time::timeout_at(until, self.waiting.recv()).await {
                Ok(Some(queued)) => refuse(queued, reason),
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    async fn session(
        &mut self,
        first: Queued,
        frames: mpsc::Sender<Requests>,
        mut answers: Streaming<Answers>,
    ) -> Ended {
        let mut pending: HashMap<u64, Pending> = HashMap::new();
        let mut outbox = VecDeque::from([first]);
        let mut arrived = Vec::new();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        let ended = loop {
            tokio::select! {
                count = self.waiting.recv_many(&mut arrived, FRAME_MESSAGES_MAX), if outbox.len() < FRAME_MESSAGES_MAX => {
                    if count == 0 {
                        break Ended::Closed;
                    }
                    outbox.extend(arrived.drain(..));
                }
                room = frames.reserve(), if !outbox.is_empty() => match room {
                    Ok(room) => room.send(self.frame(&mut outbox, &mut pending)),
                    Err(_) => break Ended::Lost("the stream was closed".to_owned()),
                },
                frame = answers.message() => match frame {
                    Ok(Some(frame)) => deliver(frame, &mut pending),
                    Ok(None) => break Ended::Lost("the peer closed the stream".to_owned()),
                    Err(status) => break Ended::Lost(status.message().to_owned()),
                },
                _ = sweep.tick() => pending.retain(|_, pending| !pending.tell.is_closed()),
            }
        };
        let reason = match &ended {
            Ended::Closed => "the link is closed",
            Ended::Lost(reason) => reason,
        };
        for (_, waiter) in pending.drain() {
            // Whoever has stopped waiting does not need to know.
            drop(waiter.tell.send(Err(LinkError::Lost(reason.to_owned()))));
        }
        for queued in outbox {
            refuse(queued, reason);
        }
        ended
    }

    fn frame(&mut self, outbox: &mut VecDeque<Queued>, pending: &mut HashMap<u64, Pending>) -> Requests {
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some(next) = outbox.front() {
            if !messages.is_empty() && bytes + next.bytes > FRAME_BYTES_TARGET {
                break;
            }
            let Some(queued) = outbox.pop_front() else { break };
            if queued.tell.is_closed() {
                continue;
            }
            bytes += queued.bytes;
            self.next_id += 1;
            let id = self.next_id;
            messages.push(Message { id, group: queued.group.0, body: Some(queued.body) });
            pending.insert(id, Pending { tell: queued.tell, _permit: queued.permit });
        }
        Requests { from: self.from.0, to: self.to.0, messages }
    }
}

fn refuse(queued: Queued, reason: &str) {
    // Whoever has stopped waiting does not need to know.
    drop(queued.tell.send(Err(LinkError::Unreachable(reason.to_owned()))));
}

fn deliver(frame: Answers, pending: &mut HashMap<u64, Pending>) {
    for answer in frame.answers {
        let (Some(waiter), Some(body)) = (pending.remove(&answer.id), answer.body) else {
            continue;
        };
        // Whoever has stopped waiting does not need to know.
        drop(waiter.tell.send(Ok(body)));
    }
}

/// The channel between a lane and its connection.
pub(crate) fn frames() -> (mpsc::Sender<Requests>, mpsc::Receiver<Requests>) {
    mpsc::channel(FRAMES_AHEAD)
}
