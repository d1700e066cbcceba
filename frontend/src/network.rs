//! What counts as one client: an IPv4 address, or an IPv6 network.
//!
//! Invariant: every limit that is for each client counts by [`Network::of`], and by [`Network::site`] as well: one subscriber has
//! 2^64 addresses of IPv6 and, where it wants them, 65,536 networks of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// What is one link of a subscriber (RFC 4291 section 2.5.1): nobody gets less than this.
const LINK_BITS: u8 = 64;
/// The most that one site gets (RFC 6177 section 2).
const SITE_BITS: u8 = 48;
/// A site of IPv6 has so many times what one of its networks has: behind it stands one subscriber, or 256 of an operator that
/// gives out /56.
pub const SITE_FACTOR: u32 = 8;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    /// In canonical form, with nothing behind the prefix.
    address: IpAddr,
    bits: u8,
}

/// Text that is no network.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{text:?} is no network: {reason}")]
pub struct NetworkError {
    text: String,
    reason: &'static str,
}

impl Network {
    /// What counts as one client: an IPv4 address, or an IPv6 /64. IPv4 in IPv6 clothes is IPv4.
    pub fn of(peer: IpAddr) -> Self {
        match peer.to_canonical() {
            v4 @ IpAddr::V4(_) => Self { address: v4, bits: 32 },
            IpAddr::V6(v6) => Self { address: IpAddr::V6(first(v6, LINK_BITS)), bits: LINK_BITS },
        }
    }

    /// The site around an IPv6 network, a /48; `None` for IPv4, where an address is all that anybody gets.
    pub fn site(self) -> Option<Self> {
        match self.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(v6) => Some(Self { address: IpAddr::V6(first(v6, SITE_BITS)), bits: SITE_BITS }),
        }
    }

    /// Whether the address is one of it.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(peer)) => first_v4(peer, self.bits) == network,
            (IpAddr::V6(network), IpAddr::V6(peer)) => first(peer, self.bits) == network,
            _ => false,
        }
    }

    /// The same for the same network only; to be hashed.
    pub fn octets(&self) -> [u8; 17] {
        let mut octets = [0; 17];
        let address = match self.address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        octets[..16].copy_from_slice(&address.octets());
        octets[16] = self.bits;
        octets
    }
}

fn first(address: Ipv6Addr, bits: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

fn first_v4(address: Ipv4Addr, bits: u8) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `192.0.2.0/24`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = |reason| NetworkError { text: text.to_owned(), reason };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| wrong("an IP address is wanted, and behind a slash its bits"))?;
        if address != address.to_canonical() {
            return Err(wrong("write an IPv4 network as IPv4"));
        }
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => bits_max,
            Some(bits) => {
                let bits: u8 = bits.parse().map_err(|_| wrong("behind the slash stands the number of its bits"))?;
                if bits > bits_max {
                    return Err(wrong("it has more bits than an address"));
                }
                bits
            }
        };
        let begins = match address {
            IpAddr::V4(v4) => IpAddr::V4(first_v4(v4, bits)),
            IpAddr::V6(v6) => IpAddr::V6(first(v6, bits)),
        };
        if begins != address {
            return Err(wrong("the address has bits set behind the network's"));
        }
        Ok(Self { address, bits })
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Networks that an operator names, say those of his proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether the address is in one of them.
    pub fn contain(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(peer))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn one_subscriber_is_one() {
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("2001:db8:1:2::1").site(), of("2001:db8:1:ffff::1").site());
        assert_ne!(of("2001:db8:1:2::1").site(), of("2001:db8:2:2::1").site());
        assert_eq!(of("::ffff:192.0.2.7"), of("192.0.2.7"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
        assert_eq!(of("::ffff:192.0.2.7").site(), None);
        // A network and the site that begins with it are two.
        assert_ne!(of("2001:db8:1::1").octets(), of("2001:db8:1::1").site().unwrap().octets());
    }

    #[test]
    fn what_is_written_is_what_is_meant() {
        let parsed = |text: &str| text.parse::<Network>();
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
        ] {
            let network = parsed(text).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside} in {text}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside} not in {text}");
            assert_eq!(parsed(&network.to_string()), Ok(network));
        }
        for text in
            ["", "10.0.0.0/33", "10.0.0.1/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "::ffff:10.0.0.0/104", "a/8"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
