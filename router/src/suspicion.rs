//! Whether a node that did not answer is believed to be there.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::options::RouterTimings;

/// Doublings before the limit in time ends them: keeps the arithmetic within its bounds.
const DOUBLINGS_MAX: u32 = 16;

/// How a node has failed since it last answered. Two calls at the same moment may lose one failure: it is a hint.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    /// Microseconds on the router's clock, plus one; 0: has not failed since it last answered.
    failed_at: AtomicU64,
    failures: AtomicU32,
}

impl Suspicion {
    /// It did not answer. Calls that fail together are one failure: the first makes it suspect, and the others follow.
    pub(crate) fn failed(&self, now: Duration, timings: &RouterTimings) {
        if !self.holds(now, timings) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.failed_at.store(micros(now).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn answered(&self) {
        self.failed_at.store(0, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// How often it has failed, one suspicion after the other, since it last answered.
    pub(crate) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether it failed a moment ago and has not answered since. The moment doubles with each failure.
    pub(crate) fn holds(&self, now: Duration, timings: &RouterTimings) -> bool {
        let Some(at) = self.failed_at.load(Ordering::Relaxed).checked_sub(1) else { return false };
        let doublings = self.failures().saturating_sub(1).min(DOUBLINGS_MAX);
        let moment = timings.suspicion.saturating_mul(1 << doublings).min(timings.suspicion_max);
        micros(now).saturating_sub(at) < micros(moment)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn it_lasts_longer_each_time_until_the_node_answers() {
        let timings = RouterTimings { suspicion: at(1000), suspicion_max: at(3000), ..Default::default() };
        let suspicion = Suspicion::default();
        assert!(!suspicion.holds(at(0), &timings));
        let mut now = 10_000;
        for (failures, lasts) in [(1, 1000), (2, 2000), (3, 3000), (4, 3000)] {
            suspicion.failed(at(now), &timings);
            suspicion.failed(at(now), &timings);
            assert_eq!(suspicion.failures(), failures, "calls that fail together are one failure");
            assert!(suspicion.holds(at(now + lasts - 1), &timings));
            now += lasts;
            assert!(!suspicion.holds(at(now), &timings));
        }
        suspicion.answered();
        assert_eq!(suspicion.failures(), 0);
        suspicion.failed(at(now), &timings);
        assert!(!suspicion.holds(at(now + 1000), &timings), "as the first time");
    }
}
