//! Whether a message comes in fast enough: within its time, and never far behind the least rate.
//!
//! Invariant: however much came at first, a message that then stands still is given up after the grace, so nobody holds memory
//! by sending the last bytes one by one.

use std::time::Duration;

use super::limit::SmtpLimits;

/// One message on its way in. Times are on the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When it must have ended.
    end: Duration,
    /// When it is too far behind, should nothing more come.
    behind: Duration,
    grace: Duration,
    bytes_per_second: u64,
}

impl Pace {
    /// A message that begins now.
    pub(super) fn begin(now: Duration, limits: &SmtpLimits) -> Self {
        Self {
            end: now.saturating_add(limits.content),
            behind: now.saturating_add(limits.content_grace),
            grace: limits.content_grace,
            bytes_per_second: u64::from(limits.content_bytes_per_second_min.max(1)),
        }
    }

    /// Bytes of it came: they buy the time that the least rate gives them, and no more than the grace in all.
    pub(super) fn came(&mut self, bytes: usize, now: Duration) {
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.bytes_per_second;
        let bought = self.behind.saturating_add(Duration::from_micros(micros));
        self.behind = bought.min(now.saturating_add(self.grace));
    }

    /// Until when more has to come.
    pub(super) fn until(&self) -> Duration {
        self.end.min(self.behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> SmtpLimits {
        SmtpLimits {
            content: SECOND * 1000,
            content_grace: SECOND * 60,
            content_bytes_per_second_min: 100,
            ..SmtpLimits::default()
        }
    }

    /// When a message is given up of which `bytes` come each second, after `at_once` in the first.
    fn given_up(at_once: usize, bytes: usize) -> u32 {
        let mut pace = Pace::begin(SECOND, &limits());
        pace.came(at_once, SECOND);
        (2..)
            .find(|second| {
                let now = SECOND * *second;
                let over = now >= pace.until();
                pace.came(bytes, now);
                over
            })
            .unwrap()
    }

    #[test]
    fn standing_still_is_borne_for_the_grace() {
        assert_eq!(given_up(0, 0), 61);
        // What came at once buys nothing beyond it.
        assert_eq!(given_up(1 << 30, 0), 61);
    }

    #[test]
    fn the_rate_must_be_kept() {
        // Half of the rate: the grace lasts twice as long. One byte a second is next to nothing.
        assert!((119..=122).contains(&given_up(0, 50)), "{}", given_up(0, 50));
        assert!((61..=62).contains(&given_up(1 << 30, 1)), "{}", given_up(1 << 30, 1));
    }

    #[test]
    fn a_message_that_keeps_it_has_its_whole_time() {
        assert_eq!(given_up(0, 100), 1001);
        assert_eq!(given_up(0, 1 << 20), 1001);
    }
}
