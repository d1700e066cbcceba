//! A number of things, or bytes, that the clients share: so many of all together, and of each client network (P-13).
//!
//! Invariant: what is taken never exceeds the budget, nor the part of a network or of its site, and all of it comes back when its
//! holder is dropped.
//! Invariant: whatever one network takes and however long it keeps it, the rest of the budget is for others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::network::{Network, SITE_FACTOR};

/// What many share.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    per_network_max: usize,
    per_site_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    /// Of networks and of sites; what holds nothing has no row.
    each: HashMap<Network, usize>,
}

/// What stood in the way of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The budget of all.
    All,
    /// The part of this client's network, or of its site.
    Peer,
}

impl Budget {
    /// A budget of `max`, of which one network gets at most `per_network_max`, and an IPv6 site [`SITE_FACTOR`] times as much, but at
    /// most half of all unless a network may have more.
    pub fn new(max: usize, per_network_max: usize) -> Arc<Self> {
        let per_site_max = per_network_max.saturating_mul(SITE_FACTOR as usize).min(max / 2).max(per_network_max);
        Arc::new(Self { max, per_network_max, per_site_max, used: Mutex::default() })
    }

    /// A share of `peer` with nothing in it yet.
    pub fn share(self: &Arc<Self>, peer: IpAddr) -> Share {
        Share { budget: Arc::clone(self), network: Network::of(peer), amount: 0 }
    }

    /// A share of `peer` with one in it.
    ///
    /// # Errors
    /// What is full.
    pub fn one(self: &Arc<Self>, peer: IpAddr) -> Result<Share, Full> {
        let mut share = self.share(peer);
        share.grow(1).map(|()| share)
    }

    /// What is taken now.
    pub fn used(&self) -> usize {
        self.used.lock().all
    }

    fn check(&self, used: &Used, network: Network, more: usize) -> Result<(), Full> {
        let fits = |used: usize, max: usize| used.checked_add(more).is_some_and(|sum| sum <= max);
        let of = |network: &Network| used.each.get(network).copied().unwrap_or_default();
        let site_fits = network.site().is_none_or(|site| fits(of(&site), self.per_site_max));
        if !fits(of(&network), self.per_network_max) || !site_fits {
            return Err(Full::Peer);
        }
        if fits(used.all, self.max) { Ok(()) } else { Err(Full::All) }
    }

    fn take(&self, network: Network, more: usize) -> Result<(), Full> {
        let mut used = self.used.lock();
        self.check(&used, network, more)?;
        used.all += more;
        if more > 0 {
            for holder in [Some(network), network.site()].into_iter().flatten() {
                *used.each.entry(holder).or_default() += more;
            }
        }
        Ok(())
    }

    fn give_back(&self, network: Network, amount: usize) {
        let mut used = self.used.lock();
        used.all -= amount;
        for holder in [Some(network), network.site()].into_iter().flatten() {
            if let Some(of_holder) = used.each.get_mut(&holder) {
                *of_holder -= amount;
                if *of_holder == 0 {
                    used.each.remove(&holder);
                }
            }
        }
    }
}

/// One holder's part of a [`Budget`].
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    network: Network,
    amount: usize,
}

impl Share {
    /// What is held.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes `more`, or nothing.
    ///
    /// # Errors
    /// What is full.
    pub fn grow(&mut self, more: usize) -> Result<(), Full> {
        self.budget.take(self.network, more)?;
        self.amount += more;
        Ok(())
    }

    /// Whether `more` could be had now. Nothing is taken: a moment later it may be gone.
    ///
    /// # Errors
    /// What is full.
    pub fn check(&self, more: usize) -> Result<(), Full> {
        self.budget.check(&self.budget.used.lock(), self.network, more)
    }

    /// Gives back what is beyond `amount`.
    pub fn shrink(&mut self, amount: usize) {
        let kept = self.amount.min(amount);
        self.budget.give_back(self.network, self.amount - kept);
        self.amount = kept;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn never_over_and_all_comes_back() {
        let budget = Budget::new(100, 100);
        let mut first = budget.share(peer("192.0.2.1"));
        let mut second = budget.share(peer("192.0.2.2"));
        assert_eq!(first.grow(60), Ok(()));
        assert_eq!(second.check(41), Err(Full::All));
        assert_eq!(second.grow(41), Err(Full::All));
        assert_eq!(second.check(40), Ok(()));
        assert_eq!(budget.used(), 60, "a question takes nothing");
        assert_eq!(second.grow(40), Ok(()));
        assert_eq!(first.grow(1), Err(Full::All));
        assert_eq!(budget.used(), 100);
        second.shrink(10);
        assert_eq!((second.amount(), budget.used()), (10, 70));
        second.shrink(20);
        assert_eq!((second.amount(), budget.used()), (10, 70), "shrinking never takes");
        second.shrink(0);
        assert_eq!(first.grow(1), Ok(()));
        assert_eq!(second.grow(usize::MAX), Err(Full::Peer));
        drop(first);
        drop(second);
        assert_eq!(budget.used(), 0);
        assert!(budget.used.lock().each.is_empty());
    }

    #[test]
    fn one_network_leaves_the_rest_to_others() {
        let budget = Budget::new(1000, 125);
        let of = |text: &str| budget.share(peer(text));
        let mut shares: Vec<Share> = (0..15).map(|_| of("192.0.2.1")).collect();
        let taken = shares.iter_mut().filter_map(|share| share.grow(25).ok()).count();
        assert_eq!(taken, 5);
        // The same host as an IPv6 socket sees it, and the whole /64 of another.
        assert_eq!(of("::ffff:192.0.2.1").check(1), Err(Full::Peer));
        let mut v6 = of("2001:db8::1");
        assert_eq!(v6.grow(125), Ok(()));
        assert_eq!(of("2001:db8::2").check(1), Err(Full::Peer));
        assert_eq!(of("2001:db8:0:1::2").check(125), Ok(()));
        drop(shares);
        assert_eq!(of("192.0.2.1").check(125), Ok(()));
    }

    #[test]
    fn a_site_has_more_than_a_network_and_leaves_the_rest_to_others() {
        let budget = Budget::new(1000, 10);
        let of_site =
            |site: u16| (0..=u16::MAX).map(move |subnet| IpAddr::from([0x2001, 0xdb8, site, subnet, 0, 0, 0, 1]));
        let taken: Vec<Share> = of_site(1).filter_map(|peer| budget.one(peer).ok()).collect();
        assert_eq!(taken.len(), 80, "eight times what one network has");
        assert_eq!(budget.one(peer("2001:db8:1:2:3::4")).err(), Some(Full::Peer));
        assert!(budget.one(peer("2001:db8:2::1")).is_ok());
        drop(taken);
        assert!(budget.used.lock().each.is_empty());
        // A site never takes more than half, where a network may not either.
        let budget = Budget::new(100, 30);
        assert_eq!(of_site(1).filter_map(|peer| budget.one(peer).ok()).collect::<Vec<_>>().len(), 50);
    }
}
