//! Who waits for which mailbox to change.
//!
//! Invariant: an entry exists while somebody watches that mailbox, and no longer: memory is bounded by the watches, which
//! are counted, and waking a mailbox that nobody watches costs one look-up.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use postrider_api::id::{ShardId, UserId};
use postrider_api::trace::Context;
use tokio::sync::watch;

/// Locks that the watched mailboxes are spread over, so that apply and watchers seldom meet.
const STRIPES: usize = 64;

type Key = (ShardId, UserId);
/// Each mailbox that somebody watches, and where its newest change stands in a trace.
type Stripe = Mutex<HashMap<Key, watch::Sender<Option<Context>>>>;

/// Wakes the watches of mailboxes.
pub(crate) struct Hub {
    stripes: Vec<Stripe>,
    watches: AtomicUsize,
    watches_max: usize,
}

impl Hub {
    pub(crate) fn new(watches_max: usize) -> Self {
        Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect(), watches: AtomicUsize::new(0), watches_max }
    }

    fn stripe(&self, (shard, user): Key) -> &Stripe {
        // The last byte of a user id is random.
        &self.stripes[(usize::from(user.0[15]) + shard.0 as usize) % STRIPES]
    }

    /// Watches a mailbox until the subscription is dropped; `None` at the limit.
    pub(crate) fn subscribe(self: &Arc<Self>, shard: ShardId, user: UserId) -> Option<Subscription> {
        if self.watches.fetch_add(1, Ordering::Relaxed) >= self.watches_max {
            self.watches.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let key = (shard, user);
        let mut stripe = self.stripe(key).lock();
        let receiver = stripe.entry(key).or_insert_with(|| watch::Sender::new(None)).subscribe();
        metrics::gauge!("postrider_node_watches_count").set(self.watches.load(Ordering::Relaxed) as f64);
        Some(Subscription { hub: self.clone(), key, receiver: Some(receiver) })
    }

    /// A mailbox has changed; `trace`: by a command that stands there in a trace.
    pub(crate) fn wake(&self, shard: ShardId, user: UserId, trace: Option<Context>) {
        let key = (shard, user);
        if let Some(sender) = self.stripe(key).lock().get(&key) {
            sender.send_replace(trace);
        }
    }

    /// Anything in a shard may have changed.
    pub(crate) fn wake_shard(&self, shard: ShardId) {
        for stripe in &self.stripes {
            for (key, sender) in stripe.lock().iter() {
                if key.0 == shard {
                    sender.send_replace(None);
                }
            }
        }
    }

    #[cfg(test)]
    fn entries(&self) -> usize {
        self.stripes.iter().map(|stripe| stripe.lock().len()).sum()
    }
}

/// One watch of a mailbox.
pub(crate) struct Subscription {
    hub: Arc<Hub>,
    key: Key,
    /// `None` only while it is dropped.
    receiver: Option<watch::Receiver<Option<Context>>>,
}

impl Subscription {
    /// Returns when the mailbox has changed since the last return (or since the subscription), and where the newest change stands in a
    /// trace. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Option<Context> {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        // The sender lives as long as this subscription; without one nothing will ever change.
        if !changed {
            return std::future::pending().await;
        }
        self.receiver.as_mut().and_then(|receiver| *receiver.borrow_and_update())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver = None;
        self.hub.watches.fetch_sub(1, Ordering::Relaxed);
        if let Entry::Occupied(entry) = self.hub.stripe(self.key).lock().entry(self.key)
            && entry.get().receiver_count() == 0
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use postrider_api::id::{Slot, ZoneId};

    const SHARD: ShardId = ShardId(1000);

    fn user(last: u8) -> UserId {
        UserId::new(ZoneId(1), Slot(0), [last; 12])
    }

    #[tokio::test]
    async fn wakes_who_watches_and_nobody_else() {
        let hub = Arc::new(Hub::new(10));
        let mut ada = hub.subscribe(SHARD, user(1)).unwrap();
        let mut also_ada = hub.subscribe(SHARD, user(1)).unwrap();
        let mut bob = hub.subscribe(SHARD, user(2)).unwrap();
        hub.wake(SHARD, user(1), None);
        assert!(ada.changed().now_or_never().is_some());
        assert!(ada.changed().now_or_never().is_none(), "once");
        assert!(also_ada.changed().now_or_never().is_some());
        assert!(bob.changed().now_or_never().is_none());
        hub.wake_shard(SHARD);
        assert!(bob.changed().now_or_never().is_some());
        hub.wake_shard(ShardId(1001));
        assert!(bob.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_wake_before_the_wait_is_not_lost() {
        let hub = Arc::new(Hub::new(10));
        let mut ada = hub.subscribe(SHARD, user(1)).unwrap();
        hub.wake(SHARD, user(1), None);
        hub.wake(SHARD, user(1), None);
        assert!(ada.changed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn tells_where_the_newest_change_stands_in_a_trace_once() {
        let hub = Arc::new(Hub::new(10));
        let mut ada = hub.subscribe(SHARD, user(1)).unwrap();
        let context = Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        hub.wake(SHARD, user(1), None);
        hub.wake(SHARD, user(1), context);
        assert_eq!(ada.changed().now_or_never(), Some(context));
        hub.wake_shard(SHARD);
        assert_eq!(ada.changed().now_or_never(), Some(None), "it was told already");
    }

    #[tokio::test]
    async fn holds_nothing_for_who_has_left_and_no_more_than_its_limit() {
        let hub = Arc::new(Hub::new(2));
        let ada = hub.subscribe(SHARD, user(1)).unwrap();
        let bob = hub.subscribe(SHARD, user(1)).unwrap();
        assert!(hub.subscribe(SHARD, user(3)).is_none(), "the limit");
        assert_eq!(hub.entries(), 1);
        drop(ada);
        assert_eq!(hub.entries(), 1);
        drop(bob);
        assert_eq!(hub.entries(), 0);
        assert!(hub.subscribe(SHARD, user(3)).is_some());
    }
}
