//! What is open on one connection: requests that are being answered, and answers on their way.
//!
//! Invariant: an answer of which its client takes nothing is given up within a time, whether or not anybody polls it. An
//! HTTP/2 client may keep a stream's window shut for ever (RFC 9113 section 5.2) while it answers pings and takes what comes
//! on other streams: the socket never stalls, and hyper does not ask the answer for more. Only a clock from outside ends that.
//!
//! What is given up lets go of its memory and of the connection that it reads from. The stream itself stays, empty, so that a
//! client of many (a proxy) loses nothing else; a connection that has nothing but such streams counts as idle.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::rest::limit::ANSWER_PIECE_BYTES_MAX;

/// The exchanges of one connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Exchanges(Arc<Mutex<Open>>);

struct Open {
    id_last: u64,
    /// Those that are being answered, and those whose answer is on its way.
    exchanges: BTreeMap<u64, Option<Shared>>,
    /// When the last one ended.
    idle_since: Instant,
}

impl Exchanges {
    /// Of a new connection.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Open { id_last: 0, exchanges: BTreeMap::new(), idle_since: Instant::now() })))
    }

    /// A request has come.
    pub(crate) fn begin(&self) -> Exchange {
        let mut open = self.0.lock();
        open.id_last += 1;
        let id = open.id_last;
        open.exchanges.insert(id, None);
        Exchange { id, exchanges: self.clone() }
    }

    /// Gives up the answers of which nothing has been taken for `stall_max`.
    pub(crate) fn give_up(&self, stall_max: Duration) {
        let now = Instant::now();
        let on_their_way: Vec<(u64, Shared)> = {
            let open = self.0.lock();
            open.exchanges.iter().filter_map(|(id, answer)| Some((*id, answer.clone()?))).collect()
        };
        for (id, answer) in on_their_way {
            let mut answer = answer.lock();
            let stalls =
                answer.as_ref().and_then(|flow| flow.waits_since).is_some_and(|since| now - since >= stall_max);
            if stalls {
                let given_up = answer.take();
                drop(answer);
                // Outside of both locks: what it holds may take its time to go.
                drop(given_up);
                metrics::counter!("postrider_rest_answers_stalled_total").increment(1);
                self.end(id);
            }
        }
    }

    /// How long nothing has been open.
    pub(crate) fn idle_for(&self) -> Duration {
        let open = self.0.lock();
        if open.exchanges.is_empty() { open.idle_since.elapsed() } else { Duration::ZERO }
    }

    fn end(&self, id: u64) {
        let mut open = self.0.lock();
        if open.exchanges.remove(&id).is_some() {
            open.idle_since = Instant::now();
        }
    }
}

/// A request that is being answered; over when it is dropped.
pub(crate) struct Exchange {
    id: u64,
    exchanges: Exchanges,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.exchanges.end(self.id);
    }
}

impl Exchange {
    /// Its answer goes on its way.
    pub(crate) fn answer(self, body: Body) -> Answer {
        let flow = Flow { body, rest: Bytes::new(), copies: false, waits_since: Some(Instant::now()) };
        let flow: Shared = Arc::new(Mutex::new(Some(flow)));
        if let Some(exchange) = self.exchanges.0.lock().exchanges.get_mut(&self.id) {
            *exchange = Some(Arc::clone(&flow));
        }
        Answer { flow, _exchange: self }
    }
}

/// `None`: given up.
type Shared = Arc<Mutex<Option<Flow>>>;

struct Flow {
    body: Body,
    /// What the body gave and has not been passed on.
    rest: Bytes,
    /// Whether pieces of it are copies: a slice would keep all of it in memory.
    copies: bool,
    /// Since when the client could have taken something; `None` while the body has nothing.
    waits_since: Option<Instant>,
}

impl Flow {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) else {
                self.waits_since = None;
                return Poll::Pending;
            };
            match next.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.copies = data.len() > ANSWER_PIECE_BYTES_MAX;
                    self.rest = data;
                }
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                None => return Poll::Ready(None),
            }
        }
        self.waits_since = Some(Instant::now());
        let piece = self.rest.split_to(self.rest.len().min(ANSWER_PIECE_BYTES_MAX));
        let piece = if self.copies { Bytes::copy_from_slice(&piece) } else { piece };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

/// An answer on its way.
pub(crate) struct Answer {
    flow: Shared,
    _exchange: Exchange,
}

/// The client took nothing for too long: there is no more to give it.
#[derive(Debug, thiserror::Error)]
#[error("the client took none of the answer for too long")]
struct GivenUp;

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self.flow.lock() {
            Some(flow) => flow.poll(context),
            None => Poll::Ready(Some(Err(GivenUp.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flow.lock().as_ref().is_some_and(|flow| flow.rest.is_empty() && flow.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let flow = self.flow.lock();
        let Some(flow) = &*flow else { return SizeHint::default() };
        let (rest, body) = (flow.rest.len() as u64, flow.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    async fn next(answer: &mut Answer) -> Bytes {
        answer.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test]
    async fn an_answer_is_passed_on_in_pieces_that_hold_nothing_else() {
        let content: Vec<u8> = (0..3 * ANSWER_PIECE_BYTES_MAX + 5).map(|n| n as u8).collect();
        let whole = Bytes::from(content.clone());
        let mut answer = Exchanges::new().begin().answer(Body::from(whole.clone()));
        assert_eq!(answer.size_hint().exact(), Some(content.len() as u64));
        let mut collected = next(&mut answer).await.to_vec();
        assert_eq!(collected.len(), ANSWER_PIECE_BYTES_MAX);
        assert_eq!(answer.size_hint().exact(), Some((content.len() - collected.len()) as u64));
        while let Some(frame) = answer.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(!whole.as_ptr_range().contains(&piece.as_ptr()), "a slice keeps all of it");
            collected.extend_from_slice(&piece);
        }
        assert!(collected == content);
        assert!(answer.is_end_stream());
    }

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_has_nothing_to_take_is_not() {
        let exchanges = Exchanges::new();
        let taken = Bytes::from_static(b"held");
        let mut stalled = exchanges.begin().answer(Body::from(taken));
        // The body of this one has nothing yet: its client is not to blame.
        let mut slow =
            exchanges.begin().answer(Body::from_stream(futures::stream::pending::<Result<Bytes, BoxError>>()));
        assert!(slow.frame().now_or_never().is_none());
        exchanges.give_up(Duration::from_secs(60));
        assert!(stalled.flow.lock().is_some(), "not yet");
        exchanges.give_up(Duration::ZERO);
        assert!(stalled.flow.lock().is_none());
        assert!(stalled.frame().await.unwrap().unwrap_err().is::<GivenUp>());
        assert!(slow.frame().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_connection_with_nothing_but_given_up_answers_is_idle() {
        let exchanges = Exchanges::new();
        let request = exchanges.begin();
        assert_eq!(exchanges.0.lock().exchanges.len(), 1);
        let answer = request.answer(Body::from("x"));
        exchanges.give_up(Duration::ZERO);
        assert!(exchanges.0.lock().exchanges.is_empty());
        let second = exchanges.begin();
        drop(answer);
        assert_eq!(exchanges.0.lock().exchanges.len(), 1, "the end of a given-up answer ends no other");
        drop(second);
        assert!(exchanges.0.lock().exchanges.is_empty());
    }
}
