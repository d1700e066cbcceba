//! The memory that messages on their way in may take: of all connections together, and of those of one peer network (P-13).
//!
//! Invariant: what is reserved never exceeds the budget, nor a peer's part of it, and all of it comes back when its holder is
//! dropped.
//! Invariant: however many connections one network has and however slowly it sends, the rest of the budget is for others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::peers::network;

/// A number of bytes that many share.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    bytes_per_peer_max: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    all: usize,
    /// By peer network; one that holds nothing has no row.
    each: HashMap<IpAddr, usize>,
}

/// What stood in the way of more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The budget of all.
    All,
    /// The part of this peer network.
    Peer,
}

impl Budget {
    /// A budget of `bytes_max`, of which one peer network gets at most `bytes_per_peer_max`.
    pub fn new(bytes_max: usize, bytes_per_peer_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes_per_peer_max, used: Mutex::default() })
    }

    /// A share of `peer` with nothing in it yet.
    pub fn share(self: &Arc<Self>, peer: IpAddr) -> Share {
        Share { budget: Arc::clone(self), network: network(peer), bytes: 0 }
    }

    /// Bytes that are taken now.
    pub fn used(&self) -> usize {
        self.used.lock().all
    }

    /// What both would hold with `more`, if they may.
    fn sums(&self, used: &Used, network: &IpAddr, more: usize) -> Result<(usize, usize), Full> {
        let sum = |used: usize, max: usize| used.checked_add(more).filter(|sum| *sum <= max);
        let of_peer = used.each.get(network).copied().unwrap_or_default();
        let peer = sum(of_peer, self.bytes_per_peer_max).ok_or(Full::Peer)?;
        Ok((sum(used.all, self.bytes_max).ok_or(Full::All)?, peer))
    }

    fn take(&self, network: IpAddr, more: usize) -> Result<(), Full> {
        let mut used = self.used.lock();
        let (all, peer) = self.sums(&used, &network, more)?;
        used.all = all;
        if peer > 0 {
            used.each.insert(network, peer);
        }
        Ok(())
    }

    fn give_back(&self, network: &IpAddr, bytes: usize) {
        let mut used = self.used.lock();
        used.all -= bytes;
        if let Some(of_peer) = used.each.get_mut(network) {
            *of_peer -= bytes;
            if *of_peer == 0 {
                used.each.remove(network);
            }
        }
    }
}

/// One holder's part of a [`Budget`].
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    network: IpAddr,
    bytes: usize,
}

impl Share {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `more` bytes, or none.
    ///
    /// # Errors
    /// What is full.
    pub fn grow(&mut self, more: usize) -> Result<(), Full> {
        self.budget.take(self.network, more)?;
        self.bytes += more;
        Ok(())
    }

    /// Whether `more` bytes could be had now. Nothing is taken: a moment later they may be gone.
    ///
    /// # Errors
    /// What is full.
    pub fn check(&self, more: usize) -> Result<(), Full> {
        self.budget.sums(&self.budget.used.lock(), &self.network, more).map(|_| ())
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        let kept = self.bytes.min(bytes);
        self.budget.give_back(&self.network, self.bytes - kept);
        self.bytes = kept;
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
        assert_eq!((second.bytes(), budget.used()), (10, 70));
        second.shrink(20);
        assert_eq!((second.bytes(), budget.used()), (10, 70), "shrinking never takes");
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
}
