//! How much a destination gets at once: its own answers say.
//!
//! Additive increase, multiplicative decrease: each transaction that a destination takes lets it have a little more at once, a 421 or
//! a 4yz to a connection halves it. One that cannot be reached is asked by one message at a time. Which part a worker has of what all
//! of a region may is asked of [`Turns`].
//!
//! Invariant: no more messages are on their way to a destination from this process than its limit says, and never more than its part.
//! Invariant: where messages are limited, a destination gets no more of them in any [`PACE_WINDOW`] than this worker's part. A message counts
//! from when it has its place until a window after it gave it back: whenever in between the host saw it, it was counted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::dns::Domain;
use crate::limit::{CONNECTIONS_START, DESTINATIONS_MAX, PACE_LOOK, PACE_WINDOW, SLOWED, WAITING_MAX};

/// How long a destination that nobody sends to is remembered.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// What the workers of a region have together of a destination.
pub trait Turns: Send + Sync + 'static {
    /// What this worker has now of `limit` that all of the region may have of the destination: connections at once, messages in a window.
    fn part(&self, destination: &Domain, limit: u32) -> u32;
}

/// There is nobody else: one worker alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Turns for Alone {
    fn part(&self, _: &Domain, limit: u32) -> u32 {
        limit
    }
}

#[derive(Debug)]
struct State {
    /// Connections that it may have at once.
    limit: f32,
    open: u32,
    /// Messages that wait for one of them.
    waiting: u32,
    /// Until when it is left alone.
    slowed_until: Option<Instant>,
    /// When the messages of the last window gave their places back, the oldest first; empty where messages are not limited.
    ended: VecDeque<Instant>,
}

/// What this worker has of a destination.
#[derive(Debug, Clone, Copy)]
struct Part {
    connections: u32,
    /// Messages in a window; `None`: as many as go.
    messages: Option<u32>,
}

#[derive(Debug)]
struct Destination {
    state: Mutex<State>,
    freed: Notify,
}

/// The limits of all destinations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Destinations {
    known: Cache<Domain, Arc<Destination>>,
    turns: Arc<dyn Turns>,
    limits: PerDestination,
}

/// What all workers of the region may have of one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PerDestination {
    /// Connections at once.
    pub(crate) connections: u32,
    /// Messages in a [`PACE_WINDOW`]; `None`: as many as go.
    pub(crate) messages: Option<u32>,
}

/// No room now, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Others have all of its connections.
    Connections,
    /// It is left alone for now.
    Wait(Duration),
    /// Other workers of the region have all of its connections, or messages.
    Elsewhere,
    /// It had all the messages of this window.
    Pace,
}

/// A place at a destination; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    destination: Arc<Destination>,
    limits: PerDestination,
}

impl Destinations {
    pub(crate) fn new(turns: Arc<dyn Turns>, limits: PerDestination) -> Self {
        let known = Cache::builder().max_capacity(DESTINATIONS_MAX).time_to_idle(REMEMBERED).build();
        Self { known, turns, limits }
    }

    /// A place at a destination, waited for until `until` at most.
    pub(crate) async fn place(&self, domain: &Domain, until: Instant) -> Result<Place, Full> {
        let destination = self.known.get_with_by_ref(domain, || Arc::new(Destination::unknown()));
        let mut waiting = None;
        loop {
            // Listened to before it is looked, so that nothing is missed in between.
            let freed = destination.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let part = Part {
                connections: self.turns.part(domain, self.limits.connections),
                messages: self.limits.messages.map(|messages| self.turns.part(domain, messages)),
            };
            let full = match destination.enter(part, Instant::now()) {
                Ok(()) => break,
                Err(full @ (Full::Connections | Full::Pace)) => full,
                Err(full) => return Err(full),
            };
            if waiting.is_none() {
                waiting = Some(destination.wait().ok_or(full)?);
            }
            // A window moves on without anybody's giving something back.
            let look = if self.limits.messages.is_some() { until.min(Instant::now() + PACE_LOOK) } else { until };
            if timeout_at(look, freed).await.is_err() && Instant::now() >= until {
                return Err(full);
            }
        }
        drop(waiting);
        Ok(Place { destination, limits: self.limits })
    }
}

impl Destination {
    /// Nothing has been sent to it yet.
    fn unknown() -> Self {
        let (limit, ended) = (CONNECTIONS_START as f32, VecDeque::new());
        let state = State { limit, open: 0, waiting: 0, slowed_until: None, ended };
        Self { state: Mutex::new(state), freed: Notify::new() }
    }

    fn enter(&self, part: Part, now: Instant) -> Result<(), Full> {
        if part.connections == 0 || part.messages == Some(0) {
            return Err(Full::Elsewhere);
        }
        let mut state = self.state.lock();
        if let Some(messages) = part.messages {
            state.look_at(now);
            // As many as were in the window, and are on their way: below the limit, which fits.
            if state.ended.len() + state.open as usize >= messages as usize {
                return Err(Full::Pace);
            }
        }
        if let Some(until) = state.slowed_until {
            let left = until.saturating_duration_since(now);
            // While it is left alone one at a time asks whether it takes mail again.
            if !left.is_zero() && state.open > 0 {
                return Err(Full::Wait(left));
            }
            if left.is_zero() {
                state.slowed_until = None;
            }
        }
        // The limit is at least 1, and far below 2^32.
        if state.open >= (state.limit as u32).min(part.connections) {
            return Err(Full::Connections);
        }
        state.open += 1;
        Ok(())
    }

    /// A place is given back. `is_paced`: messages are limited.
    fn leave(&self, is_paced: bool, now: Instant) {
        let mut state = self.state.lock();
        state.open -= 1;
        if is_paced {
            state.look_at(now);
            state.ended.push_back(now);
        }
        drop(state);
        self.freed.notify_one();
    }

    /// A place among those who wait; `None`: enough do.
    fn wait(self: &Arc<Self>) -> Option<Waiting> {
        let mut state = self.state.lock();
        if state.waiting >= WAITING_MAX {
            return None;
        }
        state.waiting += 1;
        Some(Waiting { destination: Arc::clone(self) })
    }

    /// One at a time asks whether it takes mail again; whoever waits need not wait for that.
    fn leave_alone(&self, state: &mut State) {
        state.slowed_until = Some(Instant::now() + SLOWED);
        self.freed.notify_waiters();
    }
}

impl State {
    /// Forgets what has left the window.
    fn look_at(&mut self, now: Instant) {
        while self.ended.front().is_some_and(|ended| now.saturating_duration_since(*ended) >= PACE_WINDOW) {
            self.ended.pop_front();
        }
    }
}

/// One that waits for a place.
struct Waiting {
    destination: Arc<Destination>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.destination.state.lock().waiting -= 1;
    }
}

impl Place {
    /// A transaction was taken: one more connection after as many as it has now.
    pub(crate) fn went_well(&self) {
        let mut state = self.destination.state.lock();
        state.slowed_until = None;
        state.limit = (state.limit + 1.0 / state.limit).min(self.limits.connections.max(1) as f32);
        drop(state);
        self.destination.freed.notify_one();
    }

    /// It said that it is too much.
    pub(crate) fn too_much(&self) {
        let mut state = self.destination.state.lock();
        state.limit = (state.limit / 2.0).max(1.0);
        self.destination.leave_alone(&mut state);
    }

    /// None of its hosts took anything.
    pub(crate) fn is_dead(&self) {
        self.destination.leave_alone(&mut self.destination.state.lock());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.destination.leave(self.limits.messages.is_some(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::CONNECTIONS_MAX;

    fn far() -> Domain {
        "far.example".parse().unwrap()
    }

    fn limits(connections: u32) -> PerDestination {
        PerDestination { connections, messages: None }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_destination_has_so_many_connections_and_more_when_it_goes_well() {
        let all = Destinations::new(Arc::new(Alone), limits(CONNECTIONS_MAX));
        let mut places = Vec::new();
        for _ in 0..CONNECTIONS_START {
            places.push(all.place(&far(), soon()).await.unwrap());
        }
        assert_eq!(all.place(&far(), soon()).await.unwrap_err(), Full::Connections);
        for _ in 0..=CONNECTIONS_START {
            places[0].went_well();
        }
        places.push(all.place(&far(), soon()).await.unwrap());
        for _ in 0..1000 {
            places[0].went_well();
        }
        while places.len() < CONNECTIONS_MAX as usize {
            places.push(all.place(&far(), soon()).await.unwrap());
        }
        assert_eq!(all.place(&far(), soon()).await.unwrap_err(), Full::Connections);
        // Another destination has its own.
        all.place(&"near.example".parse().unwrap(), soon()).await.unwrap();
    }

    #[tokio::test]
    async fn a_destination_that_has_too_much_is_asked_by_one_at_a_time_for_a_while() {
        let all = Destinations::new(Arc::new(Alone), limits(CONNECTIONS_MAX));
        let first = all.place(&far(), soon()).await.unwrap();
        first.too_much();
        assert!(matches!(all.place(&far(), soon()).await.unwrap_err(), Full::Wait(_)));
        drop(first);
        let first = all.place(&far(), soon()).await.unwrap();
        assert!(matches!(all.place(&far(), soon()).await.unwrap_err(), Full::Wait(_)));
        first.went_well();
        let second = all.place(&far(), soon()).await.unwrap();
        // It was halved.
        assert_eq!(all.place(&far(), soon()).await.unwrap_err(), Full::Connections);
        drop((first, second));
    }

    #[tokio::test]
    async fn a_worker_has_its_part_and_no_more() {
        struct Half;
        impl Turns for Half {
            fn part(&self, destination: &Domain, limit: u32) -> u32 {
                if *destination == far() { limit / 2 } else { 0 }
            }
        }
        let all = Destinations::new(Arc::new(Half), limits(8));
        let first = all.place(&far(), soon()).await.unwrap();
        (0..1000).for_each(|_| first.went_well());
        let mut places = vec![first];
        while places.len() < 4 {
            places.push(all.place(&far(), soon()).await.unwrap());
        }
        assert_eq!(all.place(&far(), soon()).await.unwrap_err(), Full::Connections);
        assert_eq!(all.place(&"near.example".parse().unwrap(), soon()).await.unwrap_err(), Full::Elsewhere);
    }

    #[tokio::test]
    async fn one_that_cannot_be_reached_keeps_nobody_waiting() {
        let all = Destinations::new(Arc::new(Alone), limits(CONNECTIONS_MAX));
        let mut places = Vec::new();
        for _ in 0..CONNECTIONS_START {
            places.push(all.place(&far(), soon()).await.unwrap());
        }
        let later = Instant::now() + Duration::from_secs(60);
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let all = all.clone();
                tokio::spawn(async move { all.place(&far(), later).await.map(|_| ()) })
            })
            .collect();
        while places[0].destination.state.lock().waiting < WAITING_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(all.place(&far(), later).await.unwrap_err(), Full::Connections, "enough wait already");
        places[0].is_dead();
        for waiting in waiting {
            assert!(matches!(waiting.await.unwrap(), Err(Full::Wait(_))));
        }
        assert!(matches!(all.place(&far(), later).await.unwrap_err(), Full::Wait(_)));
        places.clear();
        let probe = all.place(&far(), later).await.unwrap();
        assert_eq!(probe.destination.state.lock().waiting, 0);
        probe.went_well();
        all.place(&far(), later).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_place_that_is_given_back() {
        let all = Destinations::new(Arc::new(Alone), limits(CONNECTIONS_MAX));
        let mut places = Vec::new();
        for _ in 0..CONNECTIONS_START {
            places.push(all.place(&far(), soon()).await.unwrap());
        }
        let waiting = tokio::spawn({
            let all = all.clone();
            async move { all.place(&far(), Instant::now() + Duration::from_secs(60)).await.is_ok() }
        });
        tokio::task::yield_now().await;
        places.pop();
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn no_window_has_more_messages_than_its_limit_however_long_each_takes() {
        let destination = Destination::unknown();
        let part = Part { connections: CONNECTIONS_MAX, messages: Some(6) };
        let (begun, step) = (Instant::now(), Duration::from_millis(100));
        // When each message ends, and when its host sees it: somewhere before.
        let (mut on_their_way, mut seen) = (Vec::<(Instant, Instant)>::new(), Vec::new());
        let mut takes = 0;
        for now in (1..3000).map(|steps| begun + step * steps) {
            on_their_way.retain(|(end, at)| {
                if *at == now {
                    seen.push(now);
                }
                if *end == now {
                    destination.leave(true, now);
                }
                *end > now
            });
            if destination.enter(part, now).is_ok() {
                takes = (takes + 31) % 97;
                on_their_way.push((now + step * (takes + 2), now + step * (takes / 2 + 1)));
            }
            let in_window = seen.iter().filter(|seen| now - **seen < PACE_WINDOW).count();
            assert!(in_window <= 6, "{in_window} in one window");
        }
        // It is a limit, and no standstill: thirty windows, and each message takes half of one.
        assert!(seen.len() > 80, "{}", seen.len());
    }

    #[tokio::test]
    async fn who_waits_for_the_window_is_told_so() {
        let limits = PerDestination { connections: CONNECTIONS_MAX, messages: Some(3) };
        let all = Destinations::new(Arc::new(Alone), limits);
        for _ in 0..3 {
            drop(all.place(&far(), soon()).await.unwrap());
        }
        assert_eq!(all.place(&far(), soon()).await.unwrap_err(), Full::Pace);
        all.place(&"near.example".parse().unwrap(), soon()).await.unwrap();
    }
}
