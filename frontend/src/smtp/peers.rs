//! How many connections each client address has.
//!
//! Invariant: never more than the limits; a place comes back when its [`Place`] is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::reply::Reply;

/// Connections that are open.
pub(super) struct Peers {
    all_max: usize,
    each_max: usize,
    open: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    each: HashMap<IpAddr, usize>,
}

/// One connection's place.
pub(super) struct Place {
    peers: Arc<Peers>,
    peer: IpAddr,
}

impl Peers {
    pub(super) fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        Arc::new(Self { all_max, each_max, open: Mutex::default() })
    }

    /// A place for one more connection of `peer`.
    ///
    /// # Errors
    /// The reply to a client that gets none.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Place, Reply> {
        let peer = network(peer);
        let mut open = self.open.lock();
        if open.all >= self.all_max {
            return Err(Reply::ConnectionsTooMany);
        }
        if open.each.get(&peer).is_some_and(|count| *count >= self.each_max) {
            return Err(Reply::ConnectionsTooManyFromPeer);
        }
        open.all += 1;
        *open.each.entry(peer).or_default() += 1;
        Ok(Place { peers: Arc::clone(self), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock();
        open.all -= 1;
        if let Some(count) = open.each.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                open.each.remove(&self.peer);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 /64, of which anybody has 2^64 addresses.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        let peers = Peers::new(3, 2);
        let [a, b]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let first = peers.enter(a).unwrap();
        let _second = peers.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert_eq!(peers.enter(a).err(), Some(Reply::ConnectionsTooManyFromPeer));
        let _third = peers.enter(b).unwrap();
        assert_eq!(peers.enter(b).err(), Some(Reply::ConnectionsTooMany));
        drop(first);
        assert!(peers.enter(a).is_ok());
        assert_eq!(peers.open.lock().each.len(), 2);
    }

    #[test]
    fn ipv6_counts_by_network() {
        let peers = Peers::new(10, 1);
        let _first = peers.enter("2001:db8::1".parse().unwrap()).unwrap();
        assert!(peers.enter("2001:db8::2".parse().unwrap()).is_err());
        assert!(peers.enter("2001:db8:0:1::2".parse().unwrap()).is_ok());
    }
}
