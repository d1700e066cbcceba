//! How many attempts a peer or an address gets. In this process only, in fixed memory: a table of counters under a secret
//! hash, so that no flood of names makes it grow and nobody can choose names that share a counter with another's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider_api::env::{self, Entropy};

use crate::account::counted_peer;

/// Counters of one table: 512 KiB.
const COUNTERS: usize = 65_536;

/// A limit: `burst` at once, and one more each `refill`.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Attempts that may come at once.
    pub burst: u32,
    /// Time that gives one attempt back.
    pub refill: Duration,
}

/// The limits of [`Attempts`].
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    /// Wrong passwords for one address.
    pub failures_per_address: Limit,
    /// Wrong passwords from one peer.
    pub failures_per_peer: Limit,
    /// New accounts from one peer.
    pub sign_ups_per_peer: Limit,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            failures_per_address: Limit { burst: 20, refill: Duration::from_secs(30) },
            failures_per_peer: Limit { burst: 200, refill: Duration::from_secs(3) },
            sign_ups_per_peer: Limit { burst: 5_000, refill: Duration::from_secs(1) },
        }
    }
}

/// Counts attempts by key, GCRA: each counter is the moment at which its bucket would be full again.
struct Counters {
    limit: Limit,
    key: [u8; 32],
    /// Milliseconds of the monotonic clock.
    full_at_ms: Box<[AtomicU64]>,
}

impl Counters {
    fn new(limit: Limit, entropy: &dyn Entropy) -> Self {
        let full_at_ms = (0..COUNTERS).map(|_| AtomicU64::new(0)).collect();
        Self { limit, key: env::random(entropy), full_at_ms }
    }

    fn counter(&self, name: &[u8]) -> &AtomicU64 {
        let hash = blake3::keyed_hash(&self.key, name);
        let [a, b, ..] = *hash.as_bytes();
        &self.full_at_ms[usize::from(u16::from_be_bytes([a, b]))]
    }

    fn refill_ms(&self) -> u64 {
        millis(self.limit.refill).max(1)
    }

    /// How long the name has to wait; zero when it may go on.
    fn wait(&self, name: &[u8], now: Duration) -> Duration {
        let full_at = self.counter(name).load(Ordering::Relaxed);
        let spent_ms = full_at.saturating_sub(millis(now));
        let may_spend_ms = u64::from(self.limit.burst).saturating_sub(1).saturating_mul(self.refill_ms());
        Duration::from_millis(spent_ms.saturating_sub(may_spend_ms))
    }

    fn count(&self, name: &[u8], now: Duration) {
        let (now, refill) = (millis(now), self.refill_ms());
        let counter = self.counter(name);
        let mut full_at = counter.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now).saturating_add(refill);
            match counter.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => full_at = current,
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Attempts of this process's clients.
pub struct Attempts {
    by_address: Counters,
    by_peer: Counters,
    sign_ups: Counters,
}

impl Attempts {
    pub(super) fn new(limits: &AttemptLimits, entropy: &dyn Entropy) -> Self {
        Self {
            by_address: Counters::new(limits.failures_per_address, entropy),
            by_peer: Counters::new(limits.failures_per_peer, entropy),
            sign_ups: Counters::new(limits.sign_ups_per_peer, entropy),
        }
    }

    /// How long a log-in for this address from this peer has to wait; zero when it may go on.
    pub(super) fn wait_log_in(&self, address: &str, peer: IpAddr, now: Duration) -> Duration {
        let by_address = self.by_address.wait(address.as_bytes(), now);
        by_address.max(self.by_peer.wait(&peer_name(peer), now))
    }

    /// A wrong password came.
    pub(super) fn count_failure(&self, address: &str, peer: IpAddr, now: Duration) {
        self.by_address.count(address.as_bytes(), now);
        self.by_peer.count(&peer_name(peer), now);
    }

    /// Takes one new account from the peer's share, or says how long he has to wait.
    pub(super) fn take_sign_up(&self, peer: IpAddr, now: Duration) -> Duration {
        let name = peer_name(peer);
        let wait = self.sign_ups.wait(&name, now);
        if wait.is_zero() {
            self.sign_ups.count(&name, now);
        }
        wait
    }
}

fn peer_name(peer: IpAddr) -> [u8; 16] {
    match counted_peer(peer) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    fn attempts(burst: u32) -> Attempts {
        let limit = Limit { burst, refill: Duration::from_secs(10) };
        let limits = AttemptLimits {
            failures_per_address: limit,
            failures_per_peer: Limit { burst: 1000, ..limit },
            sign_ups_per_peer: limit,
        };
        Attempts::new(&limits, &SystemEntropy)
    }

    #[test]
    fn burst_then_refill() {
        let attempts = attempts(3);
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let now = Duration::from_secs(100);
        for _ in 0..3 {
            assert_eq!(attempts.wait_log_in("a@x.example", peer, now), Duration::ZERO);
            attempts.count_failure("a@x.example", peer, now);
        }
        assert_eq!(attempts.wait_log_in("a@x.example", peer, now), Duration::from_secs(10));
        let later = now + Duration::from_secs(10);
        assert_eq!(attempts.wait_log_in("a@x.example", peer, later), Duration::ZERO);
        attempts.count_failure("a@x.example", peer, later);
        assert_eq!(attempts.wait_log_in("a@x.example", peer, later), Duration::from_secs(10));
    }

    #[test]
    fn sign_ups_are_taken_one_by_one() {
        let attempts = attempts(2);
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let now = Duration::from_secs(1);
        assert!(attempts.take_sign_up(peer, now).is_zero());
        assert!(attempts.take_sign_up(peer, now).is_zero());
        assert!(!attempts.take_sign_up(peer, now).is_zero());
    }
}
