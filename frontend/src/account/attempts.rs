//! Who may try a password, and who may sign up: which limits an attempt is counted under (see [`crate::limits`]).
//!
//! Invariant: what others do keeps nobody out of an address where he has logged in before: a network that has logged in there waits
//! only for its own failures there. Any other is refused for its own failures there, or in all; that many fail at one address slows
//! only strangers, and of them only those who have failed there themselves.
//! Invariant: an attempt is counted before its password is compared, and given back when that was the right one. However many come at
//! once, no more of them are compared than of those that come one by one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use postrider_api::env::Clock;

use crate::limits::{Counter, LimitKind, Limiter, Moments, Refused, Wanted};
use crate::network::Network;

/// How long a network that has logged in at an address is no stranger there: as long as the session may last.
const KNOWN_MAX: Duration = crate::account::login::SESSION_MAX;

/// Attempts of this process's clients.
pub struct Attempts {
    limiter: Limiter,
    clock: Arc<dyn Clock>,
    /// When somebody last logged in at an address from a network, milliseconds of the monotonic clock. Of this process only: at
    /// another frontend he is a stranger with one guess, which is enough (ADR 085).
    known: Moments,
}

/// A log-in whose password is compared. It counts as failed until it is known to have succeeded.
pub(super) struct Attempt<'a> {
    attempts: &'a Attempts,
    address: &'a str,
    network: Network,
    counted: Vec<Counter>,
}

impl Attempts {
    pub(super) fn new(limiter: Limiter, clock: Arc<dyn Clock>) -> Self {
        Self { limiter, clock, known: Moments::new() }
    }

    /// Whether a log-in for this address from this peer may go on, as far as this process knows: whether it comes from where somebody
    /// has logged in there before, or how long it has to wait.
    pub(super) fn check(&self, address: &str, peer: IpAddr) -> Result<bool, Refused> {
        let network = Network::of(peer);
        let is_known = self.is_known(network, address);
        if is_known {
            self.limiter.check(&self.of_known(network, address))?;
        } else {
            self.limiter.check(&self.of_stranger(network, address))?;
            self.check_stranger(network, address)?;
        }
        Ok(is_known)
    }

    /// Where many fail, a stranger who has failed there waits until that is forgotten.
    fn check_stranger(&self, network: Network, address: &str) -> Result<(), Refused> {
        let of_address = self.limiter.of_name(LimitKind::WrongPasswordsOfAddress, address);
        let pair = self.limiter.of_network_alone(LimitKind::WrongPasswords, network, address);
        let (Some(of_address), Some(pair)) = (of_address, pair) else { return Ok(()) };
        let (of_all, own) = (self.limiter.until_full(&of_address), self.limiter.until_full(&pair));
        if of_address.wait(of_all).is_zero() || own.is_zero() {
            return Ok(());
        }
        Err(Refused::for_time(&of_address, own))
    }

    /// The failures of a network that has logged in there before.
    fn of_known(&self, network: Network, address: &str) -> Vec<Counter> {
        self.limiter.of_network_alone(LimitKind::WrongPasswordsKnown, network, address).into_iter().collect()
    }

    /// Those of any other: first its own there.
    fn of_stranger(&self, network: Network, address: &str) -> Vec<Counter> {
        let mut counters = self.limiter.of_network(LimitKind::WrongPasswords, network, address);
        counters.extend(self.limiter.of_network(LimitKind::WrongPasswordsOfNetwork, network, ""));
        counters
    }

    /// Counts a log-in whose password is about to be compared, or says how long it has to wait after all.
    pub(super) async fn begin<'a>(&'a self, address: &'a str, peer: IpAddr) -> Result<Attempt<'a>, Refused> {
        let network = Network::of(peer);
        let is_known = self.is_known(network, address);
        let within = match is_known {
            true => self.of_known(network, address),
            false => {
                self.check_stranger(network, address)?;
                self.of_stranger(network, address)
            }
        };
        let of_address = self.limiter.of_name(LimitKind::WrongPasswordsOfAddress, address);
        let mut wanted: Vec<Wanted> = within.into_iter().map(Wanted::within).collect();
        wanted.extend(of_address.map(Wanted::beyond));
        let before = self.limiter.take(&wanted).await?;
        let counted = wanted.iter().map(Wanted::counter).collect();
        let attempt = Attempt { attempts: self, address, network, counted };
        if !is_known
            && let (Some(of_address), Some(of_all), Some(own)) = (of_address, before.last(), before.first())
            && !of_address.wait(*of_all).is_zero()
            && !own.is_zero()
        {
            // The rule of strangers, by what the others of the region have counted.
            attempt.give_back();
            return Err(Refused::for_time(&of_address, *own));
        }
        Ok(attempt)
    }

    fn is_known(&self, network: Network, address: &str) -> bool {
        let since = self.known.get(&self.known_name(network, address));
        since > 0 && millis(self.clock.monotonic()).saturating_sub(since) < millis(KNOWN_MAX)
    }

    fn known_name(&self, network: Network, address: &str) -> [u8; 32] {
        self.limiter.hash(&[&network.octets(), address.as_bytes()])
    }

    /// Takes one new account from the peer's share, or says how long he has to wait.
    pub(super) async fn take_sign_up(&self, peer: IpAddr) -> Result<(), Refused> {
        let counters = self.limiter.of_network(LimitKind::SignUps, Network::of(peer), "");
        self.limiter.take_all(&counters).await
    }
}

impl Attempt<'_> {
    /// The right password came.
    pub(super) fn succeeded(self) {
        // Zero says that there was none.
        let since = millis(self.attempts.clock.monotonic()).max(1);
        self.attempts.known.update(&self.attempts.known_name(self.network, self.address), |_| Some(since));
        self.give_back();
    }

    fn give_back(self) {
        self.attempts.limiter.give_back(&self.counted);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::limits::{Limit, LimitTable};

    const ADA: &str = "ada@x.example";

    struct Hands(Mutex<Duration>);

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    struct Tried {
        attempts: Attempts,
        clock: Arc<Hands>,
    }

    impl Tried {
        fn new(burst: u32) -> Self {
            let limit = Some(Limit { burst, refill: Duration::from_secs(10) });
            let table = LimitTable::default()
                .with(LimitKind::WrongPasswords, limit)
                .with(LimitKind::WrongPasswordsKnown, limit)
                .with(LimitKind::WrongPasswordsOfAddress, limit)
                .with(LimitKind::WrongPasswordsOfNetwork, limit.map(|limit| Limit { burst: 1000, ..limit }))
                .with(LimitKind::SignUps, limit);
            let clock = Arc::new(Hands(Mutex::new(Duration::from_secs(100))));
            let limiter = Limiter::local(table, [1; 32], Arc::clone(&clock) as _);
            Self { attempts: Attempts::new(limiter, Arc::clone(&clock) as _), clock }
        }

        fn pass(&self, time: Duration) {
            *self.clock.0.lock() += time;
        }

        fn wait(&self, address: &str, peer: IpAddr) -> Duration {
            self.attempts.check(address, peer).err().map(|refused| refused.wait).unwrap_or_default()
        }

        async fn fail(&self, address: &str, peer: IpAddr) {
            assert!(self.attempts.begin(address, peer).await.is_ok(), "it is let through");
        }

        async fn succeed(&self, address: &str, peer: IpAddr) {
            let attempt = self.attempts.begin(address, peer).await;
            attempt.map_err(|refused| format!("waits {refused:?}")).unwrap().succeeded();
        }
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn burst_then_refill() {
        let tried = Tried::new(3);
        tried.succeed(ADA, peer(1)).await;
        for _ in 0..3 {
            assert_eq!(tried.wait(ADA, peer(1)), Duration::ZERO);
            tried.fail(ADA, peer(1)).await;
        }
        assert_eq!(tried.wait(ADA, peer(1)), Duration::from_secs(10));
        tried.pass(Duration::from_secs(10));
        assert_eq!(tried.wait(ADA, peer(1)), Duration::ZERO);
        tried.fail(ADA, peer(1)).await;
        assert_eq!(tried.wait(ADA, peer(1)), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn an_attack_from_everywhere_slows_only_those_who_take_part() {
        let tried = Tried::new(3);
        tried.succeed(ADA, peer(1)).await;
        // She has mistyped it once herself.
        tried.fail(ADA, peer(1)).await;
        for last in 100..200 {
            assert_eq!(tried.wait(ADA, peer(last)), Duration::ZERO, "each has one guess");
            tried.fail(ADA, peer(last)).await;
        }
        assert_eq!(tried.wait(ADA, peer(100)), Duration::from_secs(10), "and then waits");
        assert!(tried.attempts.begin(ADA, peer(100)).await.is_err());
        assert_eq!(tried.wait(ADA, peer(1)), Duration::ZERO, "the owner does not");
        assert_eq!(tried.wait(ADA, peer(2)), Duration::ZERO, "nor does she where she never was");
        assert_eq!(tried.wait("bob@x.example", peer(100)), Duration::ZERO);
        // However many took part, it is over a while after the last of them.
        tried.pass(Duration::from_secs(2 * 3 * 10));
        tried.fail(ADA, peer(100)).await;
        assert_eq!(tried.wait(ADA, peer(100)), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_others_of_a_network_do_keeps_nobody_out_who_was_there_before() {
        let tried = Tried::new(3);
        tried.succeed(ADA, peer(1)).await;
        // Somebody behind the same address tries the names of this world, until the address may not go on.
        let mut admitted = 0;
        for n in 0..2_000_u32 {
            admitted += u32::from(tried.attempts.begin(&format!("n{n}@x.example"), peer(1)).await.is_ok());
        }
        assert_eq!(admitted, 1000, "what a network may");
        assert!(!tried.wait("bob@x.example", peer(1)).is_zero());
        tried.succeed(ADA, peer(1)).await;
    }

    #[tokio::test]
    async fn those_who_come_at_once_are_no_more_than_those_who_come_one_by_one() {
        let tried = Tried::new(3);
        let mut held = Vec::new();
        for _ in 0..10 {
            held.extend(tried.attempts.begin(ADA, peer(1)).await.ok());
        }
        assert_eq!(held.len(), 3, "none of them has failed yet");
        assert!(!tried.wait(ADA, peer(1)).is_zero());
        held.into_iter().for_each(Attempt::succeeded);
        assert_eq!(tried.wait(ADA, peer(1)), Duration::ZERO, "and none has");
        for counter in tried.attempts.of_stranger(Network::of(peer(1)), ADA) {
            assert_eq!(tried.attempts.limiter.until_full(&counter), Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_site_has_no_limit_for_each_of_its_networks() {
        let tried = Tried::new(3);
        let of_site = |subnet: u16| IpAddr::from([0x2001, 0xdb8, 1, subnet, 0, 0, 0, 1]);
        let mut admitted = 0;
        for subnet in 0..1000 {
            admitted += u32::from(tried.attempts.begin(ADA, of_site(subnet)).await.is_ok());
        }
        assert_eq!(admitted, 24, "eight times what one network has");
        assert_eq!(tried.wait(ADA, "2001:db8:2::1".parse().unwrap()), Duration::ZERO);
    }

    #[tokio::test]
    async fn who_logged_in_long_ago_is_a_stranger_again() {
        let tried = Tried::new(3);
        tried.succeed(ADA, peer(1)).await;
        tried.pass(KNOWN_MAX);
        for last in [1, 100, 101, 102] {
            tried.fail(ADA, peer(last)).await;
        }
        assert_eq!(tried.wait(ADA, peer(1)), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn sign_ups_are_taken_one_by_one() {
        let tried = Tried::new(2);
        assert!(tried.attempts.take_sign_up(peer(1)).await.is_ok());
        assert!(tried.attempts.take_sign_up(peer(1)).await.is_ok());
        assert!(tried.attempts.take_sign_up(peer(1)).await.is_err());
        assert!(tried.attempts.take_sign_up(peer(2)).await.is_ok());
    }
}
