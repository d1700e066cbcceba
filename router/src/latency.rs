//! How far a node is: a moving average of measured round trips.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Share of a new measurement: 1/8, as for TCP's round trips (RFC 6298 section 2).
const SHARE: u64 = 8;

/// An exponentially weighted moving average; 0 stands for "never measured".
#[derive(Debug, Default)]
pub(crate) struct Latency(AtomicU64);

impl Latency {
    /// Takes in one round trip. Two at the same moment may lose one of them: it is an estimate.
    pub(crate) fn record(&self, round_trip: Duration) {
        let new = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).clamp(1, u64::from(u32::MAX));
        let old = self.0.load(Ordering::Relaxed);
        let next = if old == 0 { new } else { (old * (SHARE - 1) + new).div_ceil(SHARE) };
        self.0.store(next, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_is_measured() {
        let latency = Latency::default();
        assert_eq!(latency.get(), None);
        latency.record(Duration::from_millis(80));
        assert_eq!(latency.get(), Some(Duration::from_millis(80)));
        for _ in 0..64 {
            latency.record(Duration::from_millis(10));
        }
        let now = latency.get().unwrap();
        assert!(now >= Duration::from_millis(10) && now < Duration::from_millis(11), "{now:?}");
    }

    #[test]
    fn one_slow_answer_does_not_reorder_regions() {
        let near = Latency::default();
        near.record(Duration::from_millis(1));
        near.record(Duration::from_millis(200));
        assert!(near.get().unwrap() < Duration::from_millis(80));
    }
}
