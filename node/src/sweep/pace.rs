//! A pace in bytes: whoever has moved some waits until that many were due.

use std::time::Duration;

/// A pace. Its own time is that of the waits: nothing is saved up for later.
pub(crate) struct Pace {
    bytes_per_s: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1) }
    }

    /// What so many bytes take.
    fn time_of(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64)
    }

    pub(crate) async fn after(&self, bytes: u64) {
        tokio::time::sleep(self.time_of(bytes)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time() {
        assert_eq!(Pace::new(1024).time_of(512), Duration::from_millis(500));
        assert_eq!(Pace::new(0).time_of(1), Duration::from_secs(1), "a pace of nothing would never end");
    }
}
