//! How many event streams are open, in all and of each user; and when they have to end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::rest::limit::{EVENT_STREAMS_MAX, EVENT_STREAMS_PER_USER_MAX};
use crate::rest::problem::{Kind, Problem};

/// Lets streams open.
#[derive(Clone)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    by_user: Arc<Mutex<HashMap<UserId, u32>>>,
    stopping: CancellationToken,
}

impl Streams {
    /// `stopping` ends all of them.
    pub(crate) fn new(stopping: CancellationToken) -> Self {
        Self { places: Arc::new(Semaphore::new(EVENT_STREAMS_MAX)), by_user: Arc::default(), stopping }
    }

    /// A place for one more stream of the user.
    pub(crate) fn open(&self, user: UserId) -> Result<Place, Problem> {
        if self.stopping.is_cancelled() {
            return Err(Problem::new(Kind::Stopping));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Problem::new(Kind::Busy))?;
        let mut by_user = self.by_user.lock();
        let open = by_user.entry(user).or_insert(0);
        if *open >= EVENT_STREAMS_PER_USER_MAX {
            let detail = format!("at most {EVENT_STREAMS_PER_USER_MAX} of one account");
            return Err(Problem::new(Kind::TooManyStreams).detail(detail).retry_after(Duration::from_secs(1)));
        }
        *open += 1;
        drop(by_user);
        metrics::gauge!("postrider_rest_streams").increment(1.0);
        Ok(Place { user, by_user: Arc::clone(&self.by_user), stopping: self.stopping.clone(), _place: place })
    }

    /// Waits until every stream has ended.
    pub(crate) async fn ended(&self) {
        let all = u32::try_from(EVENT_STREAMS_MAX).expect("the limit is below 2^32");
        // Closed semaphores are the only error, and nobody closes this one.
        drop(self.places.acquire_many(all).await);
    }
}

/// An open stream's place; given back when it is dropped.
pub(crate) struct Place {
    user: UserId,
    by_user: Arc<Mutex<HashMap<UserId, u32>>>,
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Place {
    /// Resolves when the process stops.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("postrider_rest_streams").decrement(1.0);
        if let Entry::Occupied(mut open) = self.by_user.lock().entry(self.user) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::id::Slot;

    use super::*;

    #[test]
    fn places_are_given_back() {
        let streams = Streams::new(CancellationToken::new());
        let user = UserId::new(Slot(1), [1; 14]);
        let places: Vec<_> = (0..EVENT_STREAMS_PER_USER_MAX).map(|_| streams.open(user).unwrap()).collect();
        assert_eq!(streams.open(user).err().unwrap().kind(), Kind::TooManyStreams);
        assert!(streams.open(UserId::new(Slot(1), [2; 14])).is_ok());
        drop(places);
        assert!(streams.open(user).is_ok());
        assert!(streams.by_user.lock().is_empty());
    }

    #[test]
    fn nothing_opens_while_stopping() {
        let stopping = CancellationToken::new();
        let streams = Streams::new(stopping.clone());
        stopping.cancel();
        assert_eq!(streams.open(UserId::new(Slot(1), [1; 14])).err().unwrap().kind(), Kind::Stopping);
    }
}
