//! How long a leased entry is still this worker's, as far as the worker itself can know.
//!
//! Invariant: the lease is counted from when it was asked for, which is before the leader gave it, on a clock that goes on while the
//! machine sleeps. So the worker takes it for lapsed before the leader does, also when the reply lay unread while the process was
//! stopped.
//! Invariant: work under a lease is not so much as polled once the lease is over for it. What is on its way to a node by then
//! cannot be called back; the target refuses it by the time of the lease that it carries (P-6).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// A clock that goes on while the machine sleeps.
pub trait BootClock: Send + Sync + 'static {
    /// Time since the machine was started, sleep included.
    fn since_boot(&self) -> Duration;
}

/// The operating system's (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemBootClock;

impl BootClock for SystemBootClock {
    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither is ever negative.
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
    }
}

/// The lease of one call.
#[derive(Clone)]
pub(super) struct Lease {
    clock: Arc<dyn BootClock>,
    until: Duration,
}

/// The lease was over, or its rest too short, before the work was done: what the work did is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lapsed;

impl Lease {
    /// A lease that is asked for now, and lasts for `lasts` from when it is given.
    pub(super) fn asked(clock: Arc<dyn BootClock>, lasts: Duration) -> Self {
        let until = clock.since_boot().saturating_add(lasts);
        Self { clock, until }
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.until.saturating_sub(self.clock.since_boot())
    }

    /// Does `work` while more than `reserve` of the lease is left; it is told how long it may take, at most `limit`.
    pub(super) async fn within<T, F: Future<Output = T>>(
        &self,
        reserve: Duration,
        limit: Duration,
        work: impl FnOnce(Duration) -> F,
    ) -> Result<T, Lapsed> {
        let end = self.until.saturating_sub(reserve);
        let left = || end.saturating_sub(self.clock.since_boot());
        if left().is_zero() {
            return Err(Lapsed);
        }
        let limit = limit.min(left());
        let mut work = pin!(work(limit));
        let polled =
            poll_fn(
                |context| {
                    if left().is_zero() { Poll::Ready(Err(Lapsed)) } else { work.as_mut().poll(context).map(Ok) }
                },
            );
        // Whoever keeps to `limit` has answered by then; whoever does not is not waited for.
        tokio::time::timeout(left(), polled).await.unwrap_or(Err(Lapsed))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use parking_lot::Mutex;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The machine's clock, and whatever time the test lets it sleep.
    #[derive(Default)]
    pub(in crate::worker) struct Sleeper(Mutex<Duration>);

    impl Sleeper {
        pub(in crate::worker) fn sleep(&self, time: Duration) {
            *self.0.lock() += time;
        }
    }

    impl BootClock for Sleeper {
        fn since_boot(&self) -> Duration {
            SystemBootClock.since_boot() + *self.0.lock()
        }
    }

    #[tokio::test]
    async fn work_is_given_what_is_left() {
        let clock = Arc::new(Sleeper::default());
        let lease = Lease::asked(Arc::clone(&clock) as _, SECOND * 100);
        let told = async |limit| lease.within(SECOND * 10, limit, std::future::ready).await;
        assert_eq!(told(SECOND).await, Ok(SECOND));
        clock.sleep(SECOND * 85);
        let rest = told(SECOND * 100).await.unwrap();
        assert!(rest > SECOND && rest <= SECOND * 5, "{rest:?}");
        clock.sleep(SECOND * 5);
        assert_eq!(told(SECOND).await, Err(Lapsed));
    }

    #[tokio::test]
    async fn work_is_not_polled_when_the_lease_is_over() {
        let clock = Arc::new(Sleeper::default());
        let lease = Lease::asked(Arc::clone(&clock) as _, SECOND * 100);
        let mut went_on = false;
        let done = lease
            .within(Duration::ZERO, SECOND * 50, async |_| {
                clock.sleep(SECOND * 101);
                tokio::task::yield_now().await;
                went_on = true;
            })
            .await;
        assert_eq!((done, went_on), (Err(Lapsed), false));
    }

    #[tokio::test]
    async fn work_that_does_not_keep_to_its_time_is_left() {
        let lease = Lease::asked(Arc::new(SystemBootClock), Duration::from_millis(100));
        let done = lease.within(Duration::from_millis(50), SECOND, |_| std::future::pending::<()>()).await;
        assert_eq!(done, Err(Lapsed));
    }

    #[test]
    fn the_systems_clock_goes_on() {
        let first = SystemBootClock.since_boot();
        assert!(first > Duration::ZERO);
        assert!(SystemBootClock.since_boot() >= first);
    }
}
