//! Turns at something that takes memory or connections: so many at once in all, and of each user. Others wait a while.
//!
//! Invariant: whoever takes all that he can leaves room for others: a user waits for his own turns first, and holds a place
//! among all only once he has one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::UserId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rest::limit::{TURN_WAIT_MAX, TURNS_WAITING_PER_USER_MAX};
use crate::rest::problem::{Kind, Problem};

/// Gives turns. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    per_user: usize,
    users: Arc<Mutex<HashMap<UserId, User>>>,
    wait_max: Duration,
}

/// A user who has turns, or waits for one.
struct User {
    turns: Arc<Semaphore>,
    present: usize,
}

/// A user's entry in the table; the last one takes it away.
struct Presence {
    user: UserId,
    users: Arc<Mutex<HashMap<UserId, User>>>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Entry::Occupied(mut user) = self.users.lock().entry(self.user) {
            user.get_mut().present -= 1;
            if user.get().present == 0 {
                user.remove();
            }
        }
    }
}

/// A turn; over when it is dropped.
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    _presence: Presence,
}

impl Turns {
    /// `all` at once, and `per_user` of each user.
    pub(crate) fn new(all: usize, per_user: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), per_user, users: Arc::default(), wait_max: TURN_WAIT_MAX }
    }

    /// The user's turn.
    pub(crate) async fn take(&self, user: UserId) -> Result<Turn, Problem> {
        let (presence, own) = self.enter(user)?;
        let waiting = async {
            let own = own.acquire_owned().await;
            (own, Arc::clone(&self.all).acquire_owned().await)
        };
        match tokio::time::timeout(self.wait_max, waiting).await {
            Ok((Ok(own), Ok(all))) => Ok(Turn { _all: all, _own: own, _presence: presence }),
            // The semaphores are never closed.
            Ok(_) | Err(_) => Err(busy()),
        }
    }

    fn enter(&self, user: UserId) -> Result<(Presence, Arc<Semaphore>), Problem> {
        let mut users = self.users.lock();
        let entry =
            users.entry(user).or_insert_with(|| User { turns: Arc::new(Semaphore::new(self.per_user)), present: 0 });
        if entry.present >= self.per_user + TURNS_WAITING_PER_USER_MAX {
            return Err(busy());
        }
        entry.present += 1;
        Ok((Presence { user, users: Arc::clone(&self.users) }, Arc::clone(&entry.turns)))
    }
}

fn busy() -> Problem {
    Problem::new(Kind::Busy).detail("too much of this is going on at once")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    fn user(number: u8) -> UserId {
        UserId::new(ZoneId(1), Slot(1), [number; 12])
    }

    #[tokio::test]
    async fn one_who_takes_all_leaves_room_for_others() {
        let turns = Turns::new(3, 2);
        let mut held = Vec::new();
        for _ in 0..2 {
            held.push(turns.take(user(1)).await.unwrap());
        }
        let mut third = Box::pin(turns.take(user(1)));
        assert!(futures::poll!(&mut third).is_pending(), "he waits for himself");
        let other = turns.take(user(2)).await.unwrap();
        held.pop();
        held.push(third.await.unwrap());
        assert!(turns.take(user(3)).now_or_never().is_none(), "all are taken");
        drop((held, other));
        assert!(turns.users.lock().is_empty(), "nothing is kept of who has gone");
        assert_eq!(turns.all.available_permits(), 3);
    }

    #[tokio::test]
    async fn waiting_is_bounded_in_time_and_number() {
        let turns = Turns { wait_max: Duration::from_millis(20), ..Turns::new(1, 1) };
        let held = turns.take(user(1)).await.unwrap();
        assert_eq!(turns.take(user(2)).await.err().unwrap().kind(), Kind::Busy);
        let patient = Turns { wait_max: Duration::from_secs(600), ..turns.clone() };
        let mut waiting: Vec<_> = (0..TURNS_WAITING_PER_USER_MAX).map(|_| Box::pin(patient.take(user(1)))).collect();
        for one in &mut waiting {
            assert!(futures::poll!(one).is_pending());
        }
        assert_eq!(patient.take(user(1)).now_or_never().unwrap().err().unwrap().kind(), Kind::Busy);
        drop((held, waiting));
        assert!(turns.users.lock().is_empty());
    }
}
