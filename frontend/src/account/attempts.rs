//! How many attempts a peer network or an address gets. In this process only, in fixed memory: tables of counters under secret
//! hashes, so that no flood of names makes them grow and nobody can choose names that meet another's.
//!
//! Invariant: what others do at an address keeps nobody out of it. A network is refused for its own failures there, or in
//! all; that many fail at one address slows only strangers, and of them only those who have failed there themselves.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider_api::env::{self, Entropy};
use postrider_api::id::UserId;

use crate::account::counted_peer;

/// Slots of one table: 512 KiB.
const SLOTS: usize = 65_536;
/// How long a network that has logged in at an address is no stranger there: as long as the session may last.
const KNOWN_MAX: Duration = crate::account::login::SESSION_MAX;

/// A limit: `burst` at once, and one more each `refill`.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Attempts that may come at once.
    pub burst: u32,
    /// Time that gives one attempt back.
    pub refill: Duration,
}

/// The limits of [`Attempts`], and of tokens that open nothing.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    /// Wrong passwords for one address from one peer network.
    pub failures_per_pair: Limit,
    /// Wrong passwords for one address from everywhere. Beyond it a stranger has one guess, and the next one when its own
    /// failures there are forgotten.
    pub failures_per_address: Limit,
    /// Wrong passwords from one peer network.
    pub failures_per_peer: Limit,
    /// New accounts from one peer network.
    pub sign_ups_per_peer: Limit,
    /// Tokens that open nothing, from one peer network.
    pub bad_tokens_per_peer: Limit,
}

impl Default for AttemptLimits {
    fn default() -> Self {
        Self {
            failures_per_pair: Limit { burst: 20, refill: Duration::from_secs(30) },
            failures_per_address: Limit { burst: 20, refill: Duration::from_secs(30) },
            failures_per_peer: Limit { burst: 200, refill: Duration::from_secs(3) },
            // An office behind one address signs up in a day; a script does not fill the directory.
            sign_ups_per_peer: Limit { burst: 100, refill: Duration::from_secs(6) },
            bad_tokens_per_peer: Limit { burst: 200, refill: Duration::from_secs(1) },
        }
    }
}

/// What is counted under: parts whose lengths are fixed, but for the last one.
type Name<'a> = &'a [&'a [u8]];

/// A moment for each of the latest names. Where two names meet in a slot, the later one has it: a flood makes the table
/// forget, it never makes one name pay for another.
struct Moments {
    key: [u8; 32],
    /// Above [`MOMENT_BITS`] what tells a slot's names apart, below it milliseconds of the monotonic clock.
    slots: Box<[AtomicU64]>,
}

/// 34 years of milliseconds.
const MOMENT_BITS: u32 = 40;
const MOMENT_MAX: u64 = (1 << MOMENT_BITS) - 1;

impl Moments {
    fn new(entropy: &dyn Entropy) -> Self {
        Self { key: env::random(entropy), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    fn slot(&self, name: Name<'_>) -> (&AtomicU64, u64) {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        for part in name {
            hasher.update(part);
        }
        let hash = hasher.finalize();
        let [a, b, c, d, e, ..] = *hash.as_bytes();
        (&self.slots[usize::from(u16::from_be_bytes([a, b]))], u64::from(u32::from_be_bytes([0, c, d, e])))
    }

    /// The name's moment; 0 when it has none any more.
    fn get(&self, name: Name<'_>) -> u64 {
        let (slot, tag) = self.slot(name);
        moment(slot.load(Ordering::Relaxed), tag)
    }

    fn update(&self, name: Name<'_>, next: impl Fn(u64) -> u64) {
        let (slot, tag) = self.slot(name);
        let mut held = slot.load(Ordering::Relaxed);
        loop {
            let written = tag << MOMENT_BITS | next(moment(held, tag)).min(MOMENT_MAX);
            match slot.compare_exchange_weak(held, written, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(current) => held = current,
            }
        }
    }
}

fn moment(held: u64, tag: u64) -> u64 {
    if held >> MOMENT_BITS == tag { held & MOMENT_MAX } else { 0 }
}

/// Counts attempts by name, GCRA: each moment is the one at which the name's bucket would be full again.
struct Counters {
    limit: Limit,
    full_at: Moments,
}

impl Counters {
    fn new(limit: Limit, entropy: &dyn Entropy) -> Self {
        Self { limit, full_at: Moments::new(entropy) }
    }

    fn refill_ms(&self) -> u64 {
        millis(self.limit.refill).max(1)
    }

    /// How long until everything that was counted is forgotten.
    fn until_full(&self, name: Name<'_>, now: Duration) -> Duration {
        Duration::from_millis(self.full_at.get(name).saturating_sub(millis(now)))
    }

    /// How long the name has to wait; zero when it may go on.
    fn wait(&self, name: Name<'_>, now: Duration) -> Duration {
        let may_spend_ms = u64::from(self.limit.burst).saturating_sub(1).saturating_mul(self.refill_ms());
        self.until_full(name, now).saturating_sub(Duration::from_millis(may_spend_ms))
    }

    fn count(&self, name: Name<'_>, now: Duration) {
        let (now, refill) = (millis(now), self.refill_ms());
        self.full_at.update(name, |full_at| full_at.max(now).saturating_add(refill));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts attempts by peer network.
pub(crate) struct PeerCounters(Counters);

impl PeerCounters {
    /// With one limit for each network.
    pub(crate) fn new(limit: Limit, entropy: &dyn Entropy) -> Self {
        Self(Counters::new(limit, entropy))
    }

    /// How long the peer's network has to wait; zero when it may go on.
    pub(crate) fn wait(&self, peer: IpAddr, now: Duration) -> Duration {
        self.0.wait(&[&network(peer)], now)
    }

    /// One more of the peer's network.
    pub(crate) fn count(&self, peer: IpAddr, now: Duration) {
        self.0.count(&[&network(peer)], now);
    }
}

/// Counts requests by account.
pub(crate) struct AccountCounters(Counters);

impl AccountCounters {
    /// With one limit for each account.
    pub(crate) fn new(limit: Limit, entropy: &dyn Entropy) -> Self {
        Self(Counters::new(limit, entropy))
    }

    /// Takes one from the account's share, or says how long to wait for it.
    pub(crate) fn take(&self, user: UserId, now: Duration) -> Duration {
        let wait = self.0.wait(&[&user.0], now);
        if wait.is_zero() {
            self.0.count(&[&user.0], now);
        }
        wait
    }
}

/// Attempts of this process's clients.
pub struct Attempts {
    by_pair: Counters,
    by_address: Counters,
    by_peer: PeerCounters,
    sign_ups: PeerCounters,
    /// When somebody last logged in at an address from a network.
    known: Moments,
}

impl Attempts {
    pub(super) fn new(limits: &AttemptLimits, entropy: &dyn Entropy) -> Self {
        Self {
            by_pair: Counters::new(limits.failures_per_pair, entropy),
            by_address: Counters::new(limits.failures_per_address, entropy),
            by_peer: PeerCounters::new(limits.failures_per_peer, entropy),
            sign_ups: PeerCounters::new(limits.sign_ups_per_peer, entropy),
            known: Moments::new(entropy),
        }
    }

    /// How long a log-in for this address from this peer has to wait; zero when it may go on.
    pub(super) fn wait_log_in(&self, address: &str, peer: IpAddr, now: Duration) -> Duration {
        let network = network(peer);
        let pair: Name<'_> = &[&network, address.as_bytes()];
        let own = self.by_peer.wait(peer, now).max(self.by_pair.wait(pair, now));
        let is_attacked = !self.by_address.wait(&[address.as_bytes()], now).is_zero();
        if is_attacked && !self.is_known(pair, now) { own.max(self.by_pair.until_full(pair, now)) } else { own }
    }

    fn is_known(&self, pair: Name<'_>, now: Duration) -> bool {
        let since = self.known.get(pair);
        since > 0 && millis(now).saturating_sub(since) < millis(KNOWN_MAX)
    }

    /// A wrong password came.
    pub(super) fn count_failure(&self, address: &str, peer: IpAddr, now: Duration) {
        self.by_pair.count(&[&network(peer), address.as_bytes()], now);
        self.by_address.count(&[address.as_bytes()], now);
        self.by_peer.count(peer, now);
    }

    /// The right password came.
    pub(super) fn count_success(&self, address: &str, peer: IpAddr, now: Duration) {
        // Zero says that there was none.
        self.known.update(&[&network(peer), address.as_bytes()], |_| millis(now).max(1));
    }

    /// Takes one new account from the peer's share, or says how long he has to wait.
    pub(super) fn take_sign_up(&self, peer: IpAddr, now: Duration) -> Duration {
        let wait = self.sign_ups.wait(peer, now);
        if wait.is_zero() {
            self.sign_ups.count(peer, now);
        }
        wait
    }
}

fn network(peer: IpAddr) -> [u8; 16] {
    match counted_peer(peer) {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    const ADA: &str = "ada@x.example";
    const NOW: Duration = Duration::from_secs(100);

    fn attempts(burst: u32) -> Attempts {
        let limit = Limit { burst, refill: Duration::from_secs(10) };
        let limits = AttemptLimits {
            failures_per_pair: limit,
            failures_per_address: limit,
            failures_per_peer: Limit { burst: 1000, ..limit },
            sign_ups_per_peer: limit,
            bad_tokens_per_peer: limit,
        };
        Attempts::new(&limits, &SystemEntropy)
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn burst_then_refill() {
        let attempts = attempts(3);
        attempts.count_success(ADA, peer(1), NOW);
        for _ in 0..3 {
            assert_eq!(attempts.wait_log_in(ADA, peer(1), NOW), Duration::ZERO);
            attempts.count_failure(ADA, peer(1), NOW);
        }
        assert_eq!(attempts.wait_log_in(ADA, peer(1), NOW), Duration::from_secs(10));
        let later = NOW + Duration::from_secs(10);
        assert_eq!(attempts.wait_log_in(ADA, peer(1), later), Duration::ZERO);
        attempts.count_failure(ADA, peer(1), later);
        assert_eq!(attempts.wait_log_in(ADA, peer(1), later), Duration::from_secs(10));
    }

    #[test]
    fn an_attack_from_everywhere_slows_only_those_who_take_part() {
        let attempts = attempts(3);
        attempts.count_success(ADA, peer(1), NOW);
        // She has mistyped it once herself.
        attempts.count_failure(ADA, peer(1), NOW);
        for last in 100..200 {
            assert_eq!(attempts.wait_log_in(ADA, peer(last), NOW), Duration::ZERO, "each has one guess");
            attempts.count_failure(ADA, peer(last), NOW);
        }
        assert_eq!(attempts.wait_log_in(ADA, peer(100), NOW), Duration::from_secs(10), "and then waits");
        assert_eq!(attempts.wait_log_in(ADA, peer(1), NOW), Duration::ZERO, "the owner does not");
        assert_eq!(attempts.wait_log_in(ADA, peer(2), NOW), Duration::ZERO, "nor does she where she never was");
        assert_eq!(attempts.wait_log_in("bob@x.example", peer(100), NOW), Duration::ZERO);
    }

    #[test]
    fn who_logged_in_long_ago_is_a_stranger_again() {
        let attempts = attempts(3);
        attempts.count_success(ADA, peer(1), NOW);
        let later = NOW + KNOWN_MAX;
        for last in [1, 100, 101, 102] {
            attempts.count_failure(ADA, peer(last), later);
        }
        assert_eq!(attempts.wait_log_in(ADA, peer(1), later), Duration::from_secs(10));
    }

    #[test]
    fn a_flood_of_names_makes_nobody_else_wait() {
        let attempts = attempts(1);
        for n in 0..200_000_u32 {
            attempts.by_address.count(&[&n.to_be_bytes()], NOW);
        }
        // Each slot was counted in three times or so; a table that adds up what meets in a slot would refuse nearly all.
        let refused = (0..1000_u32).filter(|n| !attempts.by_address.wait(&[b"other", &n.to_be_bytes()], NOW).is_zero());
        assert_eq!(refused.count(), 0);
    }

    #[test]
    fn sign_ups_are_taken_one_by_one() {
        let attempts = attempts(2);
        assert!(attempts.take_sign_up(peer(1), NOW).is_zero());
        assert!(attempts.take_sign_up(peer(1), NOW).is_zero());
        assert!(!attempts.take_sign_up(peer(1), NOW).is_zero());
        assert!(attempts.take_sign_up(peer(2), NOW).is_zero());
    }
}
