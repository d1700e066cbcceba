//! The arithmetic of a token bucket that is one number (GCRA, ITU-T I.371): the moment at which the bucket would be full again.
//!
//! Twice: here, and in `gcra.lua` for what frontends share. A property test in `shared` holds them together, one here holds this
//! against a bucket that is filled and emptied token by token.
//!
//! Invariant: no moment lies further ahead than twice the time that a bucket takes to fill: what is far beyond its limit is
//! forgotten no later than that, and attempts that were refused write nothing. A moment that lies further ahead was not written by
//! this arithmetic (another clock, another hand) and counts as none.

use crate::limits::{Limit, millis};

/// A limit in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Time that gives one back.
    pub(crate) refill_ms: u64,
    /// How far the bucket may be from full for one more.
    pub(crate) may_spend_ms: u64,
    /// How far ahead a moment may lie.
    pub(crate) ahead_max_ms: u64,
}

impl Rate {
    pub(crate) fn of(limit: Limit) -> Self {
        let refill_ms = millis(limit.refill).max(1);
        let burst = u64::from(limit.burst);
        Self {
            refill_ms,
            may_spend_ms: burst.saturating_sub(1).saturating_mul(refill_ms),
            ahead_max_ms: burst.max(1).saturating_mul(refill_ms).saturating_mul(2),
        }
    }

    /// In which time the bucket would be full.
    pub(crate) fn until_full(&self, full_at: u64, now: u64) -> u64 {
        let until_full = full_at.saturating_sub(now);
        if until_full > self.ahead_max_ms { 0 } else { until_full }
    }

    /// How long until there is room for one.
    pub(crate) fn wait(&self, until_full: u64) -> u64 {
        until_full.saturating_sub(self.may_spend_ms)
    }

    /// How many more would fit.
    pub(crate) fn left(&self, until_full: u64) -> u64 {
        let all = self.may_spend_ms.saturating_add(self.refill_ms);
        all.saturating_sub(until_full) / self.refill_ms
    }

    /// One is counted if there is room.
    pub(crate) fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let until_full = self.until_full(full_at, now);
        (self.wait(until_full) == 0).then(|| now.saturating_add(until_full).saturating_add(self.refill_ms))
    }

    /// One is counted.
    pub(crate) fn count(&self, full_at: u64, now: u64) -> u64 {
        let until_full = self.until_full(full_at, now).saturating_add(self.refill_ms);
        now.saturating_add(until_full.min(self.ahead_max_ms))
    }

    /// One that was counted is forgotten; `None`: nothing is counted.
    pub(crate) fn give_back(&self, full_at: u64, now: u64) -> Option<u64> {
        let until_full = self.until_full(full_at, now);
        (until_full > 0).then(|| now.saturating_add(until_full.saturating_sub(self.refill_ms)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A bucket with tokens in it, in parts of which `refill_ms` make one: exact, and as slow as one likes.
    struct Naive {
        size: u64,
        parts: u64,
        refill_ms: u64,
        at: u64,
    }

    impl Naive {
        fn new(limit: Limit, now: u64) -> Self {
            let refill_ms = millis(limit.refill);
            let size = u64::from(limit.burst) * refill_ms;
            Self { size, parts: size, refill_ms, at: now }
        }

        fn fill(&mut self, now: u64) {
            // One part each millisecond.
            self.parts = self.size.min(self.parts + (now - self.at));
            self.at = now;
        }

        fn take(&mut self, now: u64) -> bool {
            self.fill(now);
            let fits = self.parts >= self.refill_ms;
            if fits {
                self.parts -= self.refill_ms;
            }
            fits
        }

        fn give_back(&mut self, now: u64) {
            self.fill(now);
            self.parts = self.size.min(self.parts + self.refill_ms);
        }

        fn wait(&mut self, now: u64) -> u64 {
            self.fill(now);
            self.refill_ms.saturating_sub(self.parts)
        }
    }

    proptest! {
        #[test]
        fn it_is_a_bucket_of_tokens(
            burst in 1..30_u32,
            refill_ms in 1..500_u64,
            steps in prop::collection::vec((0..3_u8, 0..700_u64), 1..200),
        ) {
            let limit = Limit { burst, refill: Duration::from_millis(refill_ms) };
            let rate = Rate::of(limit);
            let (mut now, mut full_at) = (1_000, 0);
            let mut naive = Naive::new(limit, now);
            for (step, passes) in steps {
                now += passes;
                prop_assert_eq!(rate.wait(rate.until_full(full_at, now)), naive.wait(now));
                prop_assert_eq!(rate.left(rate.until_full(full_at, now)), naive.parts / refill_ms);
                if step < 2 {
                    let taken = rate.take(full_at, now);
                    prop_assert_eq!(taken.is_some(), naive.take(now));
                    full_at = taken.unwrap_or(full_at);
                } else {
                    full_at = rate.give_back(full_at, now).unwrap_or(full_at);
                    naive.give_back(now);
                }
            }
        }
    }

    #[test]
    fn what_is_refused_or_far_beyond_is_forgotten_in_time() {
        let limit = Limit { burst: 3, refill: Duration::from_secs(10) };
        let rate = Rate::of(limit);
        let mut full_at = 0;
        for _ in 0..3 {
            full_at = rate.take(full_at, 1_000).unwrap();
        }
        // However often it is tried: nothing is written.
        assert!((0..1_000).all(|_| rate.take(full_at, 1_000).is_none()));
        assert_eq!(rate.wait(rate.until_full(full_at, 1_000)), 10_000);
        for _ in 0..1_000 {
            full_at = rate.count(full_at, 1_000);
        }
        assert_eq!(rate.until_full(full_at, 1_000), 2 * 3 * 10_000);
        // What no count can have written counts as none.
        assert_eq!(rate.until_full(full_at + 1, 1_000), 0);
        assert_eq!(rate.until_full(u64::MAX, 1_000), 0);
        assert_eq!(rate.take(u64::MAX, 1_000), Some(11_000));
    }
}
