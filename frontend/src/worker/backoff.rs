//! When a recipient who waits is tried again.

use postrider_api::env::{Entropy, random};

use super::limit::WorkerTimings;

/// Doublings after which a pause is certainly at its longest.
const DOUBLINGS_MAX: u32 = 20;

/// Milliseconds until the attempt after `attempts` failed ones: doubling, and a random half of it less, so that what failed
/// together does not come back together.
pub(super) fn pause_ms(attempts: u32, timings: &WorkerTimings, entropy: &dyn Entropy) -> u32 {
    let doubled = timings.backoff_min.saturating_mul(1 << attempts.min(DOUBLINGS_MAX));
    // A pause of 2^31 ms would be 24 days.
    let whole = u32::try_from(doubled.min(timings.backoff_max).as_millis()).unwrap_or(u32::MAX / 2);
    let half = whole / 2;
    half + u32::from_be_bytes(random::<4>(entropy)) % (half + 1)
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    #[test]
    fn doubles_within_bounds() {
        let timings = WorkerTimings::default();
        for (attempts, whole) in [(0, 500), (1, 1000), (5, 16_000), (20, 60_000), (u32::MAX, 60_000)] {
            for _ in 0..100 {
                let pause = pause_ms(attempts, &timings, &SystemEntropy);
                assert!((whole / 2..=whole).contains(&pause), "{attempts}: {pause}");
            }
        }
    }
}
