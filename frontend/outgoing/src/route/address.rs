//! Which addresses mail may be taken to.
//!
//! Invariant: the address that is looked at is the address that is connected to; a name is never resolved twice in between. Whoever
//! names a private address as its mail exchanger reaches nothing of ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the operator allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Also loopback, private and other networks that are not of the Internet: for tests, demos and smart hosts inside.
    pub allow_private: bool,
}

impl AddressPolicy {
    /// Why nothing goes to this address; `None` when it may.
    pub fn refusal(self, address: IpAddr) -> Option<&'static str> {
        if self.allow_private { None } else { not_public(address) }
    }
}

/// What an address is that is not of the public Internet (the special-purpose registries of RFC 6890).
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => not_public_v4(v4),
        IpAddr::V6(v6) => not_public_v6(v6),
    }
}

/// Networks of IPv4: first address, bits, what it is.
const V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "this network (RFC 791)"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "private (RFC 1918)"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "shared by a carrier (RFC 6598)"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "loopback (RFC 1122)"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "link-local (RFC 3927)"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "private (RFC 1918)"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "of protocols (RFC 6890)"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "of old 6to4 relays (RFC 7526)"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "private (RFC 1918)"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "for benchmarks (RFC 2544)"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "for documentation (RFC 5737)"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "multicast (RFC 5771)"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "reserved (RFC 1112)"),
];

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |network: Ipv4Addr, bits: u32| (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0;
    V4.iter().find(|(network, bits, _)| within(*network, *bits)).map(|(_, _, what)| *what)
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    // IPv4 in other clothes is judged as IPv4: mapped (RFC 4291), translated (RFC 6052), 6to4 (RFC 3056).
    let carried = match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    if let Some(v4) = carried {
        return not_public_v4(v4);
    }
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback (RFC 4291)"),
        [0, 0, 0, 0, 0, 0, ..] => Some("unspecified, or IPv4-compatible (RFC 4291)"),
        [0x64, 0xff9b, 1, ..] => Some("translated within a network (RFC 8215)"),
        [0x100, 0, 0, 0 | 1, ..] => Some("discarded (RFC 6666)"),
        [0x2001, 0xdb8, ..] => Some("for documentation (RFC 3849)"),
        [0x3fff, second, ..] if second < 0x1000 => Some("for documentation (RFC 9637)"),
        [0x2001, second, ..] if second < 0x200 => Some("of protocols (RFC 2928)"),
        [0x5f00, ..] => Some("of segment routing (RFC 9602)"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("unique local (RFC 4193)"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local (RFC 4291)"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("site-local (RFC 3879)"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast (RFC 4291)"),
        // Only 2000::/3 is handed out.
        [first, ..] if first & 0xe000 != 0x2000 => Some("not global unicast (RFC 4291)"),
        _ => None,
    }
}
