//! How many attempts a client network or an address gets. In this process only, in fixed memory: tables of counters under secret
//! hashes, so that no flood of names makes them grow and nobody can choose names that meet another's.
//!
//! Invariant: what others do keeps nobody out of an address where he has logged in before: a network that has logged in there waits
//! only for its own failures there. Any other is refused for its own failures there, or in all; that many fail at one address slows
//! only strangers, and of them only those who have failed there themselves.
//! Invariant: an attempt is counted before its password is compared, and given back when that was the right one. However many come at
//! once, no more of them are compared than of those that come one by one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider_api::env::{self, Entropy};
use postrider_api::id::UserId;

use crate::network::{Network, SITE_FACTOR};

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

impl Limit {
    /// What all networks of an IPv6 site get together.
    fn of_site(self) -> Self {
        Self { burst: self.burst.saturating_mul(SITE_FACTOR), refill: self.refill / SITE_FACTOR }
    }
}

/// The limits of [`Attempts`], and of tokens that open nothing. Of a client network: an IPv4 address or an IPv6 /64; a /48 gets
/// [`SITE_FACTOR`] times as much.
#[derive(Debug, Clone)]
pub struct AttemptLimits {
    /// Wrong passwords for one address from one client network; the same again from one that has logged in there.
    pub failures_per_pair: Limit,
    /// Wrong passwords for one address from everywhere. Beyond it a stranger has one guess, and the next one when its own
    /// failures there are forgotten.
    pub failures_per_address: Limit,
    /// Wrong passwords from one client network.
    pub failures_per_peer: Limit,
    /// New accounts from one client network.
    pub sign_ups_per_peer: Limit,
    /// Tokens that open nothing, from one client network.
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

    /// Writes what `next` makes of the name's moment, unless that is nothing; whether it did.
    fn update(&self, name: Name<'_>, next: impl Fn(u64) -> Option<u64>) -> bool {
        let (slot, tag) = self.slot(name);
        let mut held = slot.load(Ordering::Relaxed);
        loop {
            let Some(next) = next(moment(held, tag)) else { return false };
            let written = tag << MOMENT_BITS | next.min(MOMENT_MAX);
            match slot.compare_exchange_weak(held, written, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
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

    /// How far the bucket may be from full for one more, milliseconds.
    fn may_spend_ms(&self) -> u64 {
        u64::from(self.limit.burst).saturating_sub(1).saturating_mul(self.refill_ms())
    }

    /// How long the name has to wait; zero when it may go on.
    fn wait(&self, name: Name<'_>, now: Duration) -> Duration {
        self.until_full(name, now).saturating_sub(Duration::from_millis(self.may_spend_ms()))
    }

    /// Counts one, also beyond the limit; what is far beyond is forgotten no later than twice the limit.
    fn count(&self, name: Name<'_>, now: Duration) {
        let (now, refill) = (millis(now), self.refill_ms());
        let latest = now.saturating_add(2 * refill.saturating_mul(u64::from(self.limit.burst).max(1)));
        self.full_at.update(name, |full_at| Some(full_at.max(now).saturating_add(refill).min(latest)));
    }

    /// Counts one if there is room for it, and says whether there was. Of those who come at once no more are counted than that.
    fn take(&self, name: Name<'_>, now: Duration) -> bool {
        let (now, refill, may_spend) = (millis(now), self.refill_ms(), self.may_spend_ms());
        self.full_at.update(name, |full_at| {
            let fits = full_at.saturating_sub(now) <= may_spend;
            fits.then(|| full_at.max(now).saturating_add(refill))
        })
    }

    /// Forgets one that was counted. A name that a flood has pushed out of its slot has nothing to be forgotten.
    fn give_back(&self, name: Name<'_>) {
        let refill = self.refill_ms();
        self.full_at.update(name, |full_at| (full_at > 0).then(|| full_at.saturating_sub(refill).max(1)));
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Counts attempts by client network, and by site.
pub(crate) struct NetworkCounters {
    networks: Counters,
    sites: Counters,
}

impl NetworkCounters {
    /// With one limit for each network; a site gets [`SITE_FACTOR`] times as much.
    pub(crate) fn new(limit: Limit, entropy: &dyn Entropy) -> Self {
        Self { networks: Counters::new(limit, entropy), sites: Counters::new(limit.of_site(), entropy) }
    }

    /// How long the network has to wait with `what`; zero when it may go on.
    pub(crate) fn wait(&self, network: Network, what: &str, now: Duration) -> Duration {
        let own = self.networks.wait(&[&network.octets(), what.as_bytes()], now);
        let of_site = network.site().map(|site| self.sites.wait(&[&site.octets(), what.as_bytes()], now));
        own.max(of_site.unwrap_or_default())
    }

    /// One more of the network, also beyond the limit.
    pub(crate) fn count(&self, network: Network, what: &str, now: Duration) {
        self.networks.count(&[&network.octets(), what.as_bytes()], now);
        if let Some(site) = network.site() {
            self.sites.count(&[&site.octets(), what.as_bytes()], now);
        }
    }

    /// One more of the network, or how long it has to wait.
    fn take(&self, network: Network, what: &str, now: Duration) -> Result<(), Duration> {
        let name = network.octets();
        let own: Name<'_> = &[&name, what.as_bytes()];
        if !self.networks.take(own, now) {
            return Err(self.wait(network, what, now).max(TURN_MIN));
        }
        if let Some(site) = network.site()
            && !self.sites.take(&[&site.octets(), what.as_bytes()], now)
        {
            self.networks.give_back(own);
            return Err(self.wait(network, what, now).max(TURN_MIN));
        }
        Ok(())
    }

    fn give_back(&self, network: Network, what: &str) {
        self.networks.give_back(&[&network.octets(), what.as_bytes()]);
        if let Some(site) = network.site() {
            self.sites.give_back(&[&site.octets(), what.as_bytes()]);
        }
    }

    /// How long until everything that was counted of the network is forgotten.
    fn until_full(&self, network: Network, what: &str, now: Duration) -> Duration {
        self.networks.until_full(&[&network.octets(), what.as_bytes()], now)
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

/// What somebody is told to wait whose turn was taken in this very moment.
const TURN_MIN: Duration = Duration::from_millis(1);

/// Attempts of this process's clients.
pub struct Attempts {
    by_pair: NetworkCounters,
    /// The failures of networks that have logged in there before.
    by_known_pair: Counters,
    by_address: Counters,
    by_network: NetworkCounters,
    sign_ups: NetworkCounters,
    /// When somebody last logged in at an address from a network.
    known: Moments,
}

/// A log-in whose password is compared. It counts as failed until it is known to have succeeded.
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    address: &'a str,
    network: Network,
    is_known: bool,
}

impl Attempts {
    pub(super) fn new(limits: &AttemptLimits, entropy: &dyn Entropy) -> Self {
        Self {
            by_pair: NetworkCounters::new(limits.failures_per_pair, entropy),
            by_known_pair: Counters::new(limits.failures_per_pair, entropy),
            by_address: Counters::new(limits.failures_per_address, entropy),
            by_network: NetworkCounters::new(limits.failures_per_peer, entropy),
            sign_ups: NetworkCounters::new(limits.sign_ups_per_peer, entropy),
            known: Moments::new(entropy),
        }
    }

    /// Whether a log-in for this address from this peer may go on: whether it comes from where somebody has logged in there before, or
    /// how long it has to wait.
    pub(super) fn check(&self, address: &str, peer: IpAddr, now: Duration) -> Result<bool, Duration> {
        let network = Network::of(peer);
        let is_known = self.is_known(network, address, now);
        let wait = match is_known {
            true => self.by_known_pair.wait(&[&network.octets(), address.as_bytes()], now),
            false => {
                let own = self.by_pair.wait(network, address, now).max(self.by_network.wait(network, "", now));
                own.max(self.wait_of_stranger(network, address, now))
            }
        };
        if wait.is_zero() { Ok(is_known) } else { Err(wait) }
    }

    /// Where many fail, a stranger who has failed there waits until that is forgotten.
    fn wait_of_stranger(&self, network: Network, address: &str, now: Duration) -> Duration {
        match self.by_address.wait(&[address.as_bytes()], now) {
            Duration::ZERO => Duration::ZERO,
            _ => self.by_pair.until_full(network, address, now),
        }
    }

    /// Counts a log-in whose password is about to be compared, or says how long it has to wait after all.
    pub(super) fn begin<'a>(&'a self, address: &'a str, peer: IpAddr, now: Duration) -> Result<Attempt<'a>, Duration> {
        let network = Network::of(peer);
        let is_known = self.is_known(network, address, now);
        if is_known {
            let pair: Name<'_> = &[&network.octets(), address.as_bytes()];
            if !self.by_known_pair.take(pair, now) {
                return Err(self.by_known_pair.wait(pair, now).max(TURN_MIN));
            }
        } else {
            let wait = self.wait_of_stranger(network, address, now);
            if !wait.is_zero() {
                return Err(wait);
            }
            self.by_pair.take(network, address, now)?;
            if let Err(wait) = self.by_network.take(network, "", now) {
                self.by_pair.give_back(network, address);
                return Err(wait);
            }
        }
        self.by_address.count(&[address.as_bytes()], now);
        Ok(Attempt { attempts: self, address, network, is_known })
    }

    fn is_known(&self, network: Network, address: &str, now: Duration) -> bool {
        let since = self.known.get(&[&network.octets(), address.as_bytes()]);
        since > 0 && millis(now).saturating_sub(since) < millis(KNOWN_MAX)
    }

    /// Takes one new account from the peer's share, or says how long he has to wait.
    pub(super) fn take_sign_up(&self, peer: IpAddr, now: Duration) -> Result<(), Duration> {
        self.sign_ups.take(Network::of(peer), "", now)
    }
}

impl Attempt<'_> {
    /// The right password came.
    pub(super) fn succeeded(self, now: Duration) {
        // Zero says that there was none.
        let since = millis(now).max(1);
        self.attempts.known.update(&[&self.network.octets(), self.address.as_bytes()], |_| Some(since));
        let Self { attempts, address, network, is_known } = self;
        if is_known {
            attempts.by_known_pair.give_back(&[&network.octets(), address.as_bytes()]);
        } else {
            attempts.by_pair.give_back(network, address);
            attempts.by_network.give_back(network, "");
        }
        attempts.by_address.give_back(&[address.as_bytes()]);
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

    fn wait(attempts: &Attempts, address: &str, peer: IpAddr, now: Duration) -> Duration {
        attempts.check(address, peer, now).err().unwrap_or_default()
    }

    fn fail(attempts: &Attempts, address: &str, peer: IpAddr, now: Duration) {
        assert!(attempts.begin(address, peer, now).is_ok(), "it is let through");
    }

    fn succeed(attempts: &Attempts, address: &str, peer: IpAddr, now: Duration) {
        attempts.begin(address, peer, now).map_err(|wait| format!("waits {wait:?}")).unwrap().succeeded(now);
    }

    #[test]
    fn burst_then_refill() {
        let attempts = attempts(3);
        succeed(&attempts, ADA, peer(1), NOW);
        for _ in 0..3 {
            assert_eq!(wait(&attempts, ADA, peer(1), NOW), Duration::ZERO);
            fail(&attempts, ADA, peer(1), NOW);
        }
        assert_eq!(wait(&attempts, ADA, peer(1), NOW), Duration::from_secs(10));
        let later = NOW + Duration::from_secs(10);
        assert_eq!(wait(&attempts, ADA, peer(1), later), Duration::ZERO);
        fail(&attempts, ADA, peer(1), later);
        assert_eq!(wait(&attempts, ADA, peer(1), later), Duration::from_secs(10));
    }

    #[test]
    fn an_attack_from_everywhere_slows_only_those_who_take_part() {
        let attempts = attempts(3);
        succeed(&attempts, ADA, peer(1), NOW);
        // She has mistyped it once herself.
        fail(&attempts, ADA, peer(1), NOW);
        for last in 100..200 {
            assert_eq!(wait(&attempts, ADA, peer(last), NOW), Duration::ZERO, "each has one guess");
            fail(&attempts, ADA, peer(last), NOW);
        }
        assert_eq!(wait(&attempts, ADA, peer(100), NOW), Duration::from_secs(10), "and then waits");
        assert_eq!(wait(&attempts, ADA, peer(1), NOW), Duration::ZERO, "the owner does not");
        assert_eq!(wait(&attempts, ADA, peer(2), NOW), Duration::ZERO, "nor does she where she never was");
        assert_eq!(wait(&attempts, "bob@x.example", peer(100), NOW), Duration::ZERO);
        // However many took part, it is over a while after the last of them.
        let later = NOW + Duration::from_secs(2 * 3 * 10);
        fail(&attempts, ADA, peer(100), later);
        assert_eq!(wait(&attempts, ADA, peer(100), later), Duration::ZERO);
    }

    #[test]
    fn what_others_of_a_network_do_keeps_nobody_out_who_was_there_before() {
        let attempts = attempts(3);
        succeed(&attempts, ADA, peer(1), NOW);
        // Somebody behind the same address tries the names of this world, until the address may not go on.
        let refused = (0..2_000_u32).find(|n| attempts.begin(&format!("n{n}@x.example"), peer(1), NOW).is_err());
        assert_eq!(refused, Some(1000), "what a network may");
        assert!(!wait(&attempts, "bob@x.example", peer(1), NOW).is_zero());
        succeed(&attempts, ADA, peer(1), NOW);
    }

    #[test]
    fn those_who_come_at_once_are_no_more_than_those_who_come_one_by_one() {
        let attempts = attempts(3);
        let held: Vec<_> = (0..10).filter_map(|_| attempts.begin(ADA, peer(1), NOW).ok()).collect();
        assert_eq!(held.len(), 3, "none of them has failed yet");
        assert!(!wait(&attempts, ADA, peer(1), NOW).is_zero());
        for attempt in held {
            attempt.succeeded(NOW);
        }
        assert_eq!(wait(&attempts, ADA, peer(1), NOW), Duration::ZERO, "and none has");
        assert_eq!(attempts.by_network.until_full(Network::of(peer(1)), "", NOW), Duration::ZERO);
    }

    #[test]
    fn a_site_has_no_limit_for_each_of_its_networks() {
        let attempts = attempts(3);
        let of_site = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
        let admitted = (0..1000).filter(|subnet| attempts.begin(ADA, of_site(*subnet), NOW).is_ok()).count();
        assert_eq!(admitted, 24, "eight times what one network has");
        assert_eq!(wait(&attempts, ADA, "2001:db8:2::1".parse().unwrap(), NOW), Duration::ZERO);
    }

    #[test]
    fn who_logged_in_long_ago_is_a_stranger_again() {
        let attempts = attempts(3);
        succeed(&attempts, ADA, peer(1), NOW);
        let later = NOW + KNOWN_MAX;
        for last in [1, 100, 101, 102] {
            fail(&attempts, ADA, peer(last), later);
        }
        assert_eq!(wait(&attempts, ADA, peer(1), later), Duration::from_secs(10));
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
        assert!(attempts.take_sign_up(peer(1), NOW).is_ok());
        assert!(attempts.take_sign_up(peer(1), NOW).is_ok());
        assert!(attempts.take_sign_up(peer(1), NOW).is_err());
        assert!(attempts.take_sign_up(peer(2), NOW).is_ok());
    }
}
