//! Whether a connection is worth asking: after so many failures in a row it is not, for good. Who keeps the connection then makes
//! another one, and lets nobody wait for it before it has answered.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::cache::limit::FAILURES_MAX;

/// The breaker of one connection.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    /// In a row.
    failures: AtomicU32,
    is_open: AtomicBool,
}

impl Breaker {
    /// Whether nobody asks any more.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// It answered.
    pub(crate) fn answered(&self) {
        // Nearly always there is nothing to write.
        if self.failures.load(Ordering::Relaxed) > 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// It did not answer in time, or not at all. Whether that was one too many, which is said once.
    pub(crate) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        failures >= FAILURES_MAX && !self.is_open.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_once() {
        let breaker = Breaker::default();
        for _ in 0..10 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.failed());
            }
            breaker.answered();
        }
        assert!(!breaker.is_open());
        let opened: Vec<bool> = (0..2 * FAILURES_MAX).map(|_| breaker.failed()).collect();
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
        assert_eq!(opened.iter().position(|opened| *opened), Some(FAILURES_MAX as usize - 1));
        breaker.answered();
        assert!(breaker.is_open(), "a late answer does not close it");
    }
}
