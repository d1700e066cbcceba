//! When a recipient who waits is tried again.

use postrider_api::env::{Entropy, random};

use super::limit::{BACKOFF_MS_MAX, BACKOFF_MS_MIN};

/// Milliseconds until the attempt after `attempts` failed ones: doubling, and a random half of it less, so that what failed
/// together does not come back together.
pub(super) fn pause_ms(attempts: u32, entropy: &dyn Entropy) -> i64 {
    let whole = BACKOFF_MS_MIN.saturating_mul(1 << attempts.min(20)).min(BACKOFF_MS_MAX);
    let half = whole / 2;
    let random = i64::from(u32::from_be_bytes(random::<4>(entropy)));
    half + random % (half + 1)
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    #[test]
    fn doubles_within_bounds() {
        for attempts in [0, 1, 5, 20, u32::MAX] {
            for _ in 0..100 {
                let pause = pause_ms(attempts, &SystemEntropy);
                let whole = BACKOFF_MS_MIN.saturating_mul(1 << attempts.min(20)).min(BACKOFF_MS_MAX);
                assert!((whole / 2..=whole).contains(&pause), "{attempts}: {pause}");
            }
        }
    }
}
