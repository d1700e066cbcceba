//! How many event streams are open, in all and of each user; and when they have to end.

use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::rest::limit::{EVENT_STREAMS_MAX, EVENT_STREAMS_PER_USER_MAX};
use crate::rest::problem::{Kind, Problem};
use crate::rest::shares::{Held, Shares};

/// Lets streams open.
#[derive(Clone)]
pub(crate) struct Streams {
    places: Arc<Semaphore>,
    by_user: Shares<UserId>,
    stopping: CancellationToken,
}

impl Streams {
    /// `stopping` ends all of them.
    pub(crate) fn new(stopping: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(EVENT_STREAMS_MAX));
        Self { places, by_user: Shares::new(EVENT_STREAMS_PER_USER_MAX), stopping }
    }

    /// A place for one more stream of the user.
    pub(crate) fn open(&self, user: UserId) -> Result<Place, Problem> {
        if self.stopping.is_cancelled() {
            return Err(Problem::new(Kind::Stopping));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Problem::new(Kind::Busy))?;
        let share = self.by_user.take(user).ok_or_else(|| {
            let detail = format!("at most {EVENT_STREAMS_PER_USER_MAX} of one account");
            Problem::new(Kind::TooManyStreams).detail(detail).retry_after(Duration::from_secs(1))
        })?;
        metrics::gauge!("postrider_rest_open_streams").increment(1.0);
        Ok(Place { stopping: self.stopping.clone(), _place: place, _share: share })
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
    stopping: CancellationToken,
    _place: OwnedSemaphorePermit,
    _share: Held<UserId>,
}

impl Place {
    /// Resolves when the process stops.
    pub(crate) async fn stopping(&self) {
        self.stopping.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!("postrider_rest_open_streams").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    #[test]
    fn places_are_given_back() {
        let streams = Streams::new(CancellationToken::new());
        let user = UserId::new(ZoneId(1), Slot(1), [1; 12]);
        let places: Vec<_> = (0..EVENT_STREAMS_PER_USER_MAX).map(|_| streams.open(user).unwrap()).collect();
        assert_eq!(streams.open(user).err().unwrap().kind(), Kind::TooManyStreams);
        assert!(streams.open(UserId::new(ZoneId(1), Slot(1), [2; 12])).is_ok());
        drop(places);
        assert!(streams.open(user).is_ok());
    }

    #[test]
    fn nothing_opens_while_stopping() {
        let stopping = CancellationToken::new();
        let streams = Streams::new(stopping.clone());
        stopping.cancel();
        assert_eq!(streams.open(UserId::new(ZoneId(1), Slot(1), [1; 12])).err().unwrap().kind(), Kind::Stopping);
    }
}
