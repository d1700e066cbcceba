//! Which regions may be named: in and out by reports of whether they serve, with damping of those that flap.
//!
//! Whoever watches a region reports each look at it, about one a second. A region is out after
//! [`FAILURES_TO_LEAVE`] looks in a row that failed, so that a kill is out of all answers within five seconds with looks of a
//! second that may take a second. It is back when it has served for [`HOLD`] without a failure, twice as long for each time
//! that it has left in the last while, at most [`HOLD_MAX`] (as RFC 2439 does for routes).
//!
//! A region that nobody reports of stays as it is: whoever watches may be the one that is ill.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::region::RegionSet;

/// Looks in a row that failed until a region leaves.
pub const FAILURES_TO_LEAVE: u32 = 2;
/// How long a region must serve without a failure until it is back, the first time.
pub const HOLD: Duration = Duration::from_secs(5);
/// The longest that it must, however often it left.
pub const HOLD_MAX: Duration = Duration::from_secs(300);
/// The times that it left count half after this long.
pub const FLAP_HALF_LIFE: Duration = Duration::from_secs(600);

/// What a look at a region has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It serves.
    Serves,
    /// Something of it is there, and does not serve: it waits for others, as all regions do while a shard has no leader.
    Answers,
    /// Nothing of it is there.
    Nothing,
}

/// One region.
#[derive(Debug, Clone)]
struct Watched {
    is_in: bool,
    /// Looks in a row that failed.
    failures: u32,
    /// Since when every look was good.
    serving_since: Option<Duration>,
    /// How often it left, decayed to `flaps_at`.
    flaps: f64,
    flaps_at: Duration,
}

impl Watched {
    /// As nobody has looked yet: in, since DNS must not leave out what may be there.
    fn new() -> Self {
        Self { is_in: true, failures: 0, serving_since: None, flaps: 0.0, flaps_at: Duration::ZERO }
    }

    fn report(&mut self, serves: bool, now: Duration) {
        if !serves {
            self.serving_since = None;
            self.failures = self.failures.saturating_add(1);
            if self.is_in && self.failures >= FAILURES_TO_LEAVE {
                self.is_in = false;
                self.flaps = self.flaps_by(now) + 1.0;
                self.flaps_at = now;
            }
            return;
        }
        self.failures = 0;
        let since = *self.serving_since.get_or_insert(now);
        if !self.is_in && now.saturating_sub(since) >= self.hold() {
            self.is_in = true;
        }
    }

    fn flaps_by(&self, now: Duration) -> f64 {
        let halves = now.saturating_sub(self.flaps_at).as_secs_f64() / FLAP_HALF_LIFE.as_secs_f64();
        self.flaps * (-halves).exp2()
    }

    /// By the times it had left when it left last: a region that serves does not wait longer for having waited.
    fn hold(&self) -> Duration {
        HOLD.mul_f64((self.flaps - 1.0).clamp(0.0, 16.0).exp2()).min(HOLD_MAX)
    }
}

/// The health of all regions.
#[derive(Debug)]
pub struct Health {
    watched: Mutex<Vec<Watched>>,
    /// What the answers read: a bit for each region that is in.
    regions: AtomicU64,
}

impl Health {
    /// Of so many regions, all in.
    pub fn new(regions: usize) -> Self {
        Self {
            watched: Mutex::new(vec![Watched::new(); regions]),
            regions: AtomicU64::new(RegionSet::first(regions).bits()),
        }
    }

    /// Somebody looked at a region at `now` on a monotonic clock. Returns whether it has come in or left by this.
    pub fn report(&self, region: usize, serves: bool, now: Duration) -> bool {
        let mut watched = self.watched.lock();
        let Some(one) = watched.get_mut(region) else { return false };
        let before = one.is_in;
        one.report(serves, now);
        if one.is_in == before {
            return false;
        }
        let set: RegionSet =
            watched.iter().enumerate().filter(|(_, one)| one.is_in).map(|(region, _)| region).collect();
        self.regions.store(set.bits(), Ordering::Release);
        true
    }

    /// The regions that are in. May be none: whoever answers gives all of them then.
    pub fn regions(&self) -> RegionSet {
        RegionSet::from_bits(self.regions.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Serves from `from` on, looked at once a second; when it came in.
    fn back_after(health: &Health, from: u64) -> u64 {
        (from..from + 1000).find(|second| health.report(0, true, at(*second))).unwrap() - from
    }

    #[test]
    fn it_leaves_at_the_second_failure_and_one_alone_is_forgiven() {
        let health = Health::new(2);
        for second in 0..100 {
            assert!(!health.report(0, second % 2 == 0, at(second)), "every other look fails");
        }
        assert!(!health.report(1, false, at(100)));
        assert!(health.report(1, false, at(101)));
        assert_eq!(health.regions(), RegionSet::first(1));
        assert!(!health.report(7, false, at(101)), "there is no such region");
    }

    #[test]
    fn it_comes_back_soon_and_later_each_time_it_leaves() {
        let health = Health::new(1);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..10 {
            health.report(0, false, at(now));
            assert!(health.report(0, false, at(now + 1)));
            waits.push(back_after(&health, now + 2));
            now += 2 + waits.last().unwrap() + 1;
        }
        assert_eq!(waits[0], 5);
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!(waits[3] >= 30 && *waits.last().unwrap() <= 300, "{waits:?}");
        // Two hours later it has been forgiven.
        let later = now + 7200;
        health.report(0, false, at(later));
        health.report(0, false, at(later + 1));
        let wait = back_after(&health, later + 2);
        assert!(wait <= 6, "{wait}");
    }

    proptest! {
        #[test]
        fn a_region_that_serves_long_enough_is_always_in(
            looks in proptest::collection::vec(any::<bool>(), 0..200)
        ) {
            let health = Health::new(1);
            for (second, serves) in looks.iter().enumerate() {
                health.report(0, *serves, at(second as u64));
            }
            let from = looks.len() as u64;
            for second in from..=from + 300 {
                health.report(0, true, at(second));
            }
            prop_assert!(!health.regions().is_empty());
        }
    }
}
