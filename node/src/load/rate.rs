//! How fast a number rises, over the last minutes.

use std::time::Duration;

/// What happened this long ago counts for less than half of what happens now, seconds.
const TIME_CONSTANT_S: f64 = 300.0;

/// A rate that follows what it measures slowly: what should move must not hang on one busy minute.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    at: Duration,
    /// The number then: an index in the shard's log.
    count: u64,
    per_s: f64,
}

impl Rate {
    /// Begins to measure: what was counted before says nothing of when.
    pub(super) fn new(at: Duration, count: u64) -> Self {
        Self { at, count, per_s: 0.0 }
    }

    /// With one sample more.
    pub(super) fn at(self, now: Duration, count: u64) -> Self {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        if elapsed <= 0.0 {
            return self;
        }
        let kept = (-elapsed / TIME_CONSTANT_S).exp();
        let newest = count.saturating_sub(self.count) as f64 / elapsed;
        Self { at: now, count, per_s: self.per_s * kept + newest * (1.0 - kept) }
    }

    /// The rate.
    pub(super) fn per_s(&self) -> u32 {
        // Saturates.
        self.per_s.round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(rate: Rate, seconds: u64, per_s: u64) -> Rate {
        (0..seconds / 30).fold(rate, |rate, _| {
            let at = rate.at + Duration::from_secs(30);
            rate.at(at, rate.count + 30 * per_s)
        })
    }

    #[test]
    fn it_comes_to_what_is_steady_and_forgets_what_is_over() {
        let rate = Rate::new(Duration::from_secs(7), 1_000_000);
        assert_eq!(rate.per_s(), 0);
        let busy = after(rate, 3600, 100);
        assert_eq!(busy.per_s(), 100);
        assert!((50..100).contains(&after(busy, 120, 0).per_s()), "one quiet moment changes little");
        assert_eq!(after(busy, 3600, 0).per_s(), 0);
        assert!(after(rate, 60, 1000).per_s() < 200, "nor does one busy one");
        assert_eq!(busy.at(busy.at, busy.count + 5).per_s(), 100, "no time has passed");
    }
}
