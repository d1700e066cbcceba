//! Taking in the body of a message to send: memory that grows with what has arrived, and a pace.
//!
//! Invariant: bodies of messages to send hold at most [`SEND_BYTES_IN_FLIGHT_MAX`] together, and a body's share of that is
//! what has arrived of it: announcing much and sending little holds nothing.
//! Invariant: one of those that want more can always have it, to its end: bodies that have grown half never wait for each
//! other.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::rest::extract::too_large;
use crate::rest::limit::{
    LARGE_BODY_WAIT_MAX, PACE_BYTES_MIN, PACE_WINDOW, SEND_BODY_BYTES_MAX, SEND_BYTES_IN_FLIGHT_MAX,
    SEND_SHARE_STEP_BYTES, SEND_WAIT_MAX,
};
use crate::rest::problem::{Kind, Problem};

/// What a permit of [`Memory::pool`] stands for, bytes.
const PERMIT_BYTES: usize = 1024;

const _: () = assert!(SEND_BYTES_IN_FLIGHT_MAX >= 2 * SEND_BODY_BYTES_MAX, "the pool has room for a whole body, too");

/// Memory for bodies of messages to send. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Memory {
    /// For all.
    pool: Arc<Semaphore>,
    /// Room for one whole body, for whichever finds the pool empty first.
    reserve: Arc<Semaphore>,
    wait_max: Duration,
}

impl Memory {
    /// [`SEND_BYTES_IN_FLIGHT_MAX`] of it.
    pub(crate) fn new() -> Self {
        Self::of(SEND_BYTES_IN_FLIGHT_MAX - SEND_BODY_BYTES_MAX, SEND_WAIT_MAX)
    }

    fn of(pool_bytes: usize, wait_max: Duration) -> Self {
        let pool = Arc::new(Semaphore::new(pool_bytes / PERMIT_BYTES));
        Self { pool, reserve: Arc::new(Semaphore::new(1)), wait_max }
    }
}

/// A body's share of the memory; given back when it is dropped.
pub(crate) struct Share {
    memory: Memory,
    held: Option<OwnedSemaphorePermit>,
    reserve: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Of nothing yet.
    pub(crate) fn new(memory: Memory) -> Self {
        Self { memory, held: None, reserve: None }
    }

    /// What it has room for, bytes.
    pub(crate) fn used(&self) -> usize {
        self.bytes()
    }

    fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.num_permits() * PERMIT_BYTES)
    }

    /// Makes room for `bytes` in all.
    pub(crate) async fn grow_to(&mut self, bytes: usize) -> Result<(), Problem> {
        if self.reserve.is_some() || bytes <= self.bytes() {
            return Ok(());
        }
        let wanted = bytes.next_multiple_of(SEND_SHARE_STEP_BYTES) - self.bytes();
        let permits = u32::try_from(wanted.div_ceil(PERMIT_BYTES)).expect("the limit is below 2^32");
        let (pool, reserve) = (Arc::clone(&self.memory.pool), Arc::clone(&self.memory.reserve));
        let waiting = async {
            tokio::select! {
                biased;
                more = pool.acquire_many_owned(permits) => more.map(|more| match &mut self.held {
                    Some(held) => held.merge(more),
                    None => self.held = Some(more),
                }),
                reserve = reserve.acquire_owned() => reserve.map(|reserve| self.reserve = Some(reserve)),
            }
        };
        match timeout(self.memory.wait_max, waiting).await {
            Ok(Ok(())) => Ok(()),
            // The semaphores are never closed.
            Ok(Err(_)) | Err(_) => Err(Problem::new(Kind::Busy).detail("too many messages are being sent")),
        }
    }
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    window: Duration,
    bytes_min: usize,
    /// For all of the body.
    wait_max: Duration,
}

const PACE: Pace = Pace { window: PACE_WINDOW, bytes_min: PACE_BYTES_MIN, wait_max: LARGE_BODY_WAIT_MAX };

/// The whole body, of at most [`SEND_BODY_BYTES_MAX`], and its share of the memory.
pub(crate) async fn take_in(body: Body, memory: Memory) -> Result<(Bytes, Share), Problem> {
    let mut share = Share::new(memory);
    let bytes = collect(body, &mut share, PACE).await?;
    Ok((bytes, share))
}

async fn collect(body: Body, share: &mut Share, pace: Pace) -> Result<Bytes, Problem> {
    // One more than it may have: it ends, or it is too large.
    Intake::paced(body, SEND_BODY_BYTES_MAX, pace).next(SEND_BODY_BYTES_MAX + 1, share).await
}

/// A body on its way in, piece by piece.
pub(crate) struct Intake {
    body: Body,
    bytes_max: usize,
    pace: Pace,
    /// When all of it is to be here.
    deadline: Instant,
    /// When its pace is looked at next, and what has come since the last time.
    look: Instant,
    arrived: usize,
    /// What has come in all.
    taken: usize,
    /// What came with the piece before.
    rest: Bytes,
}

impl Intake {
    /// Of a body that may be large.
    pub(crate) fn new(body: Body, bytes_max: usize) -> Self {
        Self::paced(body, bytes_max, PACE)
    }

    fn paced(body: Body, bytes_max: usize, pace: Pace) -> Self {
        let now = Instant::now();
        let (deadline, look) = (now + pace.wait_max, now + pace.window);
        Self { body, bytes_max, pace, deadline, look, arrived: 0, taken: 0, rest: Bytes::new() }
    }

    /// The next `size` bytes; fewer at the end of the body, and none behind it. They count in `share` as they come.
    pub(crate) async fn next(&mut self, size: usize, share: &mut Share) -> Result<Bytes, Problem> {
        let mut piece = BytesMut::new();
        loop {
            let part = self.rest.split_to(self.rest.len().min(size - piece.len()));
            let asked = Instant::now();
            share.grow_to(piece.len() + part.len()).await?;
            // What it waited for memory, the client could not send.
            self.look += asked.elapsed();
            piece.extend_from_slice(&part);
            if piece.len() == size || !self.take_frame().await? {
                return Ok(piece.freeze());
            }
        }
    }

    /// For so long nothing was asked of the client.
    pub(crate) fn stood_still(&mut self, time: Duration) {
        self.look += time;
        self.deadline += time;
    }

    /// Whether there was one more.
    async fn take_frame(&mut self) -> Result<bool, Problem> {
        loop {
            let Ok(next) = timeout_at(self.look.min(self.deadline), self.body.frame()).await else {
                if Instant::now() >= self.deadline || self.arrived < self.pace.bytes_min {
                    return Err(Problem::new(Kind::RequestTimeout).detail("the body did not arrive in time"));
                }
                (self.look, self.arrived) = (Instant::now() + self.pace.window, 0);
                continue;
            };
            let Some(frame) = next else { return Ok(false) };
            let frame = frame.map_err(|_| Problem::new(Kind::BodyUnreadable))?;
            // Trailers mean nothing here.
            let Ok(data) = frame.into_data() else { continue };
            self.taken += data.len();
            if self.taken > self.bytes_max {
                return Err(too_large(self.bytes_max));
            }
            self.arrived += data.len();
            self.rest = data;
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream::{self, StreamExt as _};

    use super::*;

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(50);

    /// So many bytes at once, and then nothing.
    fn begun(bytes: usize) -> Body {
        let first = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test]
    async fn memory_is_held_for_what_has_arrived() {
        let memory = Memory::of(1024 * 1024, LONG);
        let all = memory.pool.available_permits() * PERMIT_BYTES;
        let mut share = Share::new(memory.clone());
        let pace = Pace { window: LONG, bytes_min: 1, wait_max: LONG };
        let mut collecting = Box::pin(collect(begun(100_000), &mut share, pace));
        assert!(futures::poll!(&mut collecting).is_pending());
        drop(collecting);
        assert_eq!(share.bytes(), 2 * SEND_SHARE_STEP_BYTES);
        assert_eq!(memory.pool.available_permits() * PERMIT_BYTES, all - share.bytes());
        drop(share);
        assert_eq!(memory.pool.available_permits() * PERMIT_BYTES, all);
    }

    #[tokio::test]
    async fn bodies_that_have_grown_half_do_not_wait_for_each_other() {
        let memory = Memory::of(2 * SEND_SHARE_STEP_BYTES, LONG);
        let (mut first, mut second) = (Share::new(memory.clone()), Share::new(memory.clone()));
        first.grow_to(1).await.unwrap();
        second.grow_to(1).await.unwrap();
        // Nothing is left, and both want all: one has it at once, the other when that one is through.
        first.grow_to(SEND_BODY_BYTES_MAX).await.unwrap();
        let mut waiting = Box::pin(second.grow_to(2 * SEND_SHARE_STEP_BYTES));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn waiting_for_memory_ends() {
        let memory = Memory::of(0, SHORT);
        let mut first = Share::new(memory.clone());
        first.grow_to(1).await.unwrap();
        let second = Share::new(memory).grow_to(1).await;
        assert_eq!(second.unwrap_err().kind(), Kind::Busy);
    }

    #[tokio::test]
    async fn a_body_has_to_keep_its_pace() {
        let memory = Memory::of(1024 * 1024, LONG);
        let mut share = Share::new(memory);
        // One drop of ten bytes in a window is enough, and eight of one byte are not.
        let (drop_every, window) = (Duration::from_millis(250), Duration::from_secs(2));
        let pace = Pace { window, bytes_min: 10, wait_max: LONG };
        let dripping = |bytes: usize| {
            let drops = stream::iter(0..12).then(move |_| async move {
                tokio::time::sleep(drop_every).await;
                Ok::<_, Infallible>(Bytes::from(vec![b'x'; bytes]))
            });
            Body::from_stream(drops)
        };
        assert_eq!(collect(dripping(10), &mut share, pace).await.unwrap().len(), 120);
        let late = collect(dripping(1), &mut share, pace).await;
        assert_eq!(late.unwrap_err().kind(), Kind::RequestTimeout);
        let whole = Pace { window: SHORT, bytes_min: 0, wait_max: SHORT * 2 };
        let late = collect(begun(5), &mut share, whole).await;
        assert_eq!(late.unwrap_err().kind(), Kind::RequestTimeout);
    }

    #[tokio::test]
    async fn a_large_body_passes_in_pieces_and_holds_one_of_them() {
        const PIECE: usize = 256 * 1024;
        let memory = Memory::of(PIECE, SHORT);
        let whole: Vec<u8> = (0..10 * PIECE + 17).map(|n| (n % 251) as u8).collect();
        let frames: Vec<_> =
            whole.chunks(60_000).map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk))).collect();
        let mut intake = Intake::new(Body::from_stream(stream::iter(frames)), whole.len());
        let (mut share, mut seen) = (Share::new(memory), Vec::new());
        loop {
            // The reserve is for those who want more than there is: this one never does.
            let piece = intake.next(PIECE, &mut share).await.unwrap();
            assert!(share.bytes() <= PIECE && share.reserve.is_none(), "{}", share.bytes());
            if piece.is_empty() {
                break;
            }
            assert!(piece.len() == PIECE || seen.len() == 10 * PIECE);
            seen.extend_from_slice(&piece);
        }
        assert!(seen == whole);
        let mut short = Intake::new(Body::from(whole), 5 * PIECE);
        assert_eq!(short.next(PIECE, &mut share).await.unwrap_err().kind(), Kind::BodyTooLarge);
    }

    #[tokio::test]
    async fn a_body_is_not_longer_than_it_may_be() {
        let (largest, larger) = (SEND_BODY_BYTES_MAX, SEND_BODY_BYTES_MAX + 1);
        assert!(take_in(Body::from(vec![b'x'; largest]), Memory::new()).await.is_ok());
        let refused = take_in(Body::from(vec![b'x'; larger]), Memory::new()).await;
        assert_eq!(refused.err().unwrap().kind(), Kind::BodyTooLarge);
    }
}
