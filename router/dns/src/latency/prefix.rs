//! Networks by prefix, at the lengths that the table keeps.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The lengths that are kept of IPv4, coarse to fine. RFC 7871 section 11.1: nothing finer than /24.
pub const LEVELS_V4: [u8; 5] = [8, 12, 16, 20, 24];
/// The same of IPv6: what registries give out, down to a site's /48.
pub const LEVELS_V6: [u8; 5] = [16, 24, 32, 40, 48];

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    is_v6: bool,
    length: u8,
    /// The address, its first bit highest; zero behind the prefix.
    bits: u128,
}

impl Prefix {
    /// The network of `length` bits around an address. An IPv4 address in IPv6's clothing counts as IPv4; a length beyond the
    /// address's is the address.
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let length = if address.is_ipv6() { length.saturating_sub(96) } else { length };
                Self { is_v6: false, length: length.min(32), bits: u128::from(v4.to_bits()) << 96 }.masked()
            }
            IpAddr::V6(v6) => Self { is_v6: true, length: length.min(128), bits: v6.to_bits() }.masked(),
        }
    }

    /// The network that one address stands for: a /24 or a /48.
    pub fn of_client(address: IpAddr) -> Self {
        let whole = Self::new(address, 128);
        whole.truncated(whole.finest())
    }

    /// Significant bits.
    pub fn length(self) -> u8 {
        self.length
    }

    /// The network's first address.
    pub fn address(self) -> IpAddr {
        if self.is_v6 {
            IpAddr::V6(Ipv6Addr::from_bits(self.bits))
        } else {
            // The upper 32 bits are the address.
            IpAddr::V4(Ipv4Addr::from_bits((self.bits >> 96) as u32))
        }
    }

    /// The network of at most `length` bits around this one.
    pub fn truncated(self, length: u8) -> Self {
        Self { length: self.length.min(length), ..self }.masked()
    }

    /// The lengths that are kept of its family, coarse to fine.
    pub fn levels(self) -> &'static [u8; 5] {
        if self.is_v6 { &LEVELS_V6 } else { &LEVELS_V4 }
    }

    /// The finest length that is kept of its family.
    pub fn finest(self) -> u8 {
        self.levels()[4]
    }

    fn masked(self) -> Self {
        let mask = if self.length == 0 { 0 } else { u128::MAX << (128 - u32::from(self.length)) };
        Self { bits: self.bits & mask, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_cut_at_their_length() {
        let address: IpAddr = "203.0.113.77".parse().unwrap();
        assert_eq!(Prefix::of_client(address), Prefix::new("203.0.113.0".parse().unwrap(), 24));
        assert_eq!(Prefix::new(address, 24).truncated(8).address(), "203.0.0.0".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::new(address, 0).address(), "0.0.0.0".parse::<IpAddr>().unwrap());
        let six: IpAddr = "2001:db8:1:2::3".parse().unwrap();
        assert_eq!(Prefix::of_client(six).address(), "2001:db8:1::".parse::<IpAddr>().unwrap());
        assert_eq!(Prefix::of_client("::ffff:203.0.113.9".parse().unwrap()), Prefix::of_client(address));
        assert_ne!(Prefix::new("::".parse().unwrap(), 8), Prefix::new("0.0.0.0".parse().unwrap(), 8));
    }
}
