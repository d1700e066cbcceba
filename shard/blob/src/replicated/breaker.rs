//! Remembers for a short time that a store fails, so that not everyone has to find out.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::env::Clock;

/// Reads in a row that another store had to answer first, before a slow store is left alone.
const RACES_LOST_MAX: u32 = 3;

/// One store's record. A store rests after a failure; the rest doubles with each further one, and ends with a success.
pub(super) struct Breaker {
    clock: Arc<dyn Clock>,
    rest_min: Duration,
    rest_max: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    races_lost: u32,
    /// On the monotonic clock.
    rests_until: Duration,
}

impl Breaker {
    pub(super) fn new(clock: Arc<dyn Clock>, rest_min: Duration, rest_max: Duration) -> Self {
        Self { clock, rest_min, rest_max, state: Mutex::default() }
    }

    /// Whether the store is to be left alone where there is a choice.
    pub(super) fn rests(&self) -> bool {
        self.clock.monotonic() < self.state.lock().rests_until
    }

    pub(super) fn success(&self) {
        *self.state.lock() = State::default();
    }

    pub(super) fn failure(&self) {
        let now = self.clock.monotonic();
        let mut state = self.state.lock();
        // Calls that were under way when the first one failed are the same failure.
        if now < state.rests_until {
            return;
        }
        let rest = self.rest_min.saturating_mul(1 << state.failures.min(16)).min(self.rest_max);
        state.failures += 1;
        state.races_lost = 0;
        state.rests_until = now + rest;
    }

    /// Another store was asked later and answered first.
    pub(super) fn lost_race(&self) {
        let tired = {
            let mut state = self.state.lock();
            state.races_lost += 1;
            state.races_lost >= RACES_LOST_MAX
        };
        if tired {
            self.failure();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicated::tests::ManualClock;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn rests_double_and_end() {
        let clock = ManualClock::shared();
        let breaker = Breaker::new(clock.clone(), S, S * 3);
        assert!(!breaker.rests());
        for rest in [S, S * 2, S * 3, S * 3] {
            breaker.failure();
            breaker.failure(); // the same outage
            assert!(breaker.rests());
            clock.advance(rest - Duration::from_millis(1));
            assert!(breaker.rests());
            clock.advance(Duration::from_millis(1));
            assert!(!breaker.rests());
        }
        breaker.success();
        breaker.failure();
        clock.advance(S);
        assert!(!breaker.rests(), "a success forgets");
    }

    #[test]
    fn slowness_in_a_row_counts_as_failure() {
        let breaker = Breaker::new(ManualClock::shared(), S, S);
        breaker.lost_race();
        breaker.lost_race();
        breaker.success();
        breaker.lost_race();
        breaker.lost_race();
        assert!(!breaker.rests());
        breaker.lost_race();
        assert!(breaker.rests());
    }
}
