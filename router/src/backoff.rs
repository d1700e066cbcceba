//! Pauses between attempts.

use std::time::Duration;

use postrider_api::env::{Entropy, random};

/// Exponential pauses with full jitter: each is drawn from (0, ceiling], and the ceiling doubles up to a limit. Full jitter
/// spreads the callers that a failover has put in step.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    ceiling: Duration,
    min: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { ceiling: min, min, max }
    }

    pub(crate) fn next(&mut self, entropy: &dyn Entropy) -> Duration {
        let share = f64::from(u32::from_be_bytes(random(entropy))) / f64::from(u32::MAX);
        let pause = self.ceiling.mul_f64(share).max(self.min.min(Duration::from_millis(1)));
        self.ceiling = (self.ceiling * 2).min(self.max);
        pause
    }

    pub(crate) fn reset(&mut self) {
        self.ceiling = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(self.0);
        }
    }

    proptest! {
        #[test]
        fn pauses_stay_within_their_ceiling(byte: u8, rounds in 1usize..40) {
            let (min, max) = (Duration::from_millis(10), Duration::from_millis(300));
            let mut backoff = Backoff::new(min, max);
            let mut ceiling = min;
            for _ in 0..rounds {
                let pause = backoff.next(&Fixed(byte));
                prop_assert!(pause > Duration::ZERO);
                prop_assert!(pause <= ceiling, "{pause:?} of {ceiling:?}");
                ceiling = (ceiling * 2).min(max);
            }
            backoff.reset();
            prop_assert!(backoff.next(&Fixed(byte)) <= min);
        }
    }
}
