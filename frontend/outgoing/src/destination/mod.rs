//! How much a destination gets at once: its own answers say.
//!
//! Additive increase, multiplicative decrease: each transaction that a destination takes lets it have a little more at once, a 421 or
//! a 4yz to a connection halves it. What all workers of a region together may do is asked of [`Turns`].
//!
//! Invariant: no more connections to a destination are open from this process than its limit says, and never more than
//! [`CONNECTIONS_MAX`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::dns::Domain;
use crate::limit::{CONNECTIONS_MAX, CONNECTIONS_START, DESTINATIONS_MAX, SLOWED};

/// How long a destination that nobody sends to is remembered.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// What the workers of a region count together.
#[async_trait]
pub trait Turns: Send + Sync + 'static {
    /// One transaction with the destination.
    ///
    /// # Errors
    /// How long to wait, when the region has had its share.
    async fn take(&self, destination: &Domain) -> Result<(), Duration>;
}

/// Nobody else is asked: one worker alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

#[async_trait]
impl Turns for Alone {
    async fn take(&self, _: &Domain) -> Result<(), Duration> {
        Ok(())
    }
}

#[derive(Debug)]
struct State {
    /// Connections that it may have at once.
    limit: f32,
    open: u32,
    /// Until when it is left alone.
    slowed_until: Option<Instant>,
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
}

/// No room now, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// Others have all of its connections.
    Connections,
    /// It asked to be left alone, or the region has had its share.
    Wait(Duration),
}

/// A place at a destination; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    destination: Arc<Destination>,
}

impl Destinations {
    pub(crate) fn new(turns: Arc<dyn Turns>) -> Self {
        let known = Cache::builder().max_capacity(DESTINATIONS_MAX).time_to_idle(REMEMBERED).build();
        Self { known, turns }
    }

    /// A place at a destination, waited for until `until` at most.
    pub(crate) async fn place(&self, domain: &Domain, until: Instant) -> Result<Place, Full> {
        let destination = self.known.get_with_by_ref(domain, || {
            let state = State { limit: CONNECTIONS_START as f32, open: 0, slowed_until: None };
            Arc::new(Destination { state: Mutex::new(state), freed: Notify::new() })
        });
        loop {
            // Listened to before it is looked, so that nothing is missed in between.
            let freed = destination.freed.notified();
            match destination.enter() {
                Ok(()) => break,
                Err(Full::Wait(wait)) => return Err(Full::Wait(wait)),
                Err(Full::Connections) => {}
            }
            if timeout_at(until, freed).await.is_err() {
                return Err(Full::Connections);
            }
        }
        let place = Place { destination };
        match self.turns.take(domain).await {
            Ok(()) => Ok(place),
            Err(wait) => Err(Full::Wait(wait)),
        }
    }
}

impl Destination {
    fn enter(&self) -> Result<(), Full> {
        let mut state = self.state.lock();
        if let Some(until) = state.slowed_until {
            let left = until.saturating_duration_since(Instant::now());
            // While it is left alone one at a time asks whether it takes mail again.
            if !left.is_zero() && state.open > 0 {
                return Err(Full::Wait(left));
            }
            if left.is_zero() {
                state.slowed_until = None;
            }
        }
        // The limit is between 1 and CONNECTIONS_MAX.
        if state.open >= state.limit as u32 {
            return Err(Full::Connections);
        }
        state.open += 1;
        Ok(())
    }
}

impl Place {
    /// A transaction was taken: one more connection after as many as it has now.
    pub(crate) fn went_well(&self) {
        let mut state = self.destination.state.lock();
        state.slowed_until = None;
        state.limit = (state.limit + 1.0 / state.limit).min(CONNECTIONS_MAX as f32);
        drop(state);
        self.destination.freed.notify_one();
    }

    /// It said that it is too much.
    pub(crate) fn too_much(&self) {
        let mut state = self.destination.state.lock();
        state.limit = (state.limit / 2.0).max(1.0);
        state.slowed_until = Some(Instant::now() + SLOWED);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.destination.state.lock().open -= 1;
        self.destination.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn far() -> Domain {
        "far.example".parse().unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_destination_has_so_many_connections_and_more_when_it_goes_well() {
        let all = Destinations::new(Arc::new(Alone));
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
        let all = Destinations::new(Arc::new(Alone));
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
    async fn whoever_waits_gets_the_place_that_is_given_back() {
        let all = Destinations::new(Arc::new(Alone));
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
}
