//! The client's network as a resolver tells it (RFC 7871).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An option of a question. It is echoed byte by byte but for the scope: resolvers drop an answer whose family, prefix or
/// address differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    family: u16,
    source: u8,
    /// As many bytes as `source` bits need.
    address: [u8; 16],
}

/// An option that is malformed: FORMERR (RFC 7871 section 7.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

const IPV4: u16 = 1;
const IPV6: u16 = 2;

impl Subnet {
    pub(crate) fn parse(data: &[u8]) -> Result<Self, Malformed> {
        let [family_high, family_low, source, scope, address @ ..] = data else { return Err(Malformed) };
        let family = u16::from_be_bytes([*family_high, *family_low]);
        let bits_max = match family {
            // "I tell nothing", as some programs write it.
            0 => 0,
            IPV4 => 32,
            IPV6 => 128,
            _ => return Err(Malformed),
        };
        // RFC 7871 section 6: the scope of a question is 0, the address is as short as its prefix allows, and zero behind it.
        if *source > bits_max || *scope != 0 || address.len() != usize::from(source.div_ceil(8)) {
            return Err(Malformed);
        }
        if !source.is_multiple_of(8) && address.last().is_some_and(|last| last & (0xff >> (source % 8)) != 0) {
            return Err(Malformed);
        }
        let mut whole = [0; 16];
        whole[..address.len()].copy_from_slice(address);
        Ok(Self { family, source: *source, address: whole })
    }

    /// The network and its length; `None`: the client wants to be unknown, and the resolver's address is all that may be used
    /// (section 7.1.2).
    pub(crate) fn network(&self) -> Option<(IpAddr, u8)> {
        if self.source == 0 {
            return None;
        }
        let address = match self.family {
            IPV4 => {
                let [a, b, c, d, ..] = self.address;
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            _ => IpAddr::V6(Ipv6Addr::from(self.address)),
        };
        Some((address, self.source))
    }

    /// The option of the answer.
    pub(crate) fn answered(&self, scope: u8) -> Vec<u8> {
        // Section 7.2.1: an answer to who wants to be unknown is for all.
        let scope = if self.source == 0 { 0 } else { scope };
        let mut data = self.family.to_be_bytes().to_vec();
        data.extend([self.source, scope]);
        data.extend_from_slice(&self.address[..usize::from(self.source.div_ceil(8))]);
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_told_is_echoed() {
        let asked = [0, 1, 21, 0, 203, 0, 112];
        let subnet = Subnet::parse(&asked).unwrap();
        assert_eq!(subnet.network(), Some(("203.0.112.0".parse().unwrap(), 21)));
        assert_eq!(subnet.answered(24), [0, 1, 21, 24, 203, 0, 112]);
        let six = Subnet::parse(&[0, 2, 48, 0, 0x20, 1, 0xd, 0xb8, 0, 1]).unwrap();
        assert_eq!(six.network(), Some(("2001:db8:1::".parse().unwrap(), 48)));
        for nothing in [[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0]] {
            let subnet = Subnet::parse(&nothing).unwrap();
            assert_eq!((subnet.network(), subnet.answered(24)), (None, nothing.to_vec()));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            &[][..],
            &[0, 1, 24],
            &[0, 1, 24, 0, 1, 2],       // too short
            &[0, 1, 24, 0, 1, 2, 3, 4], // too long
            &[0, 1, 24, 24, 1, 2, 3],   // a scope in a question
            &[0, 1, 33, 0, 1, 2, 3, 4, 0],
            &[0, 1, 21, 0, 203, 0, 113], // a bit behind the prefix
            &[0, 3, 8, 0, 1],            // no such family
            &[0, 0, 8, 0, 1],
        ] {
            assert_eq!(Subnet::parse(bad), Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_echoed_exactly(data in proptest::collection::vec(any::<u8>(), 0..24), scope: u8) {
            if let Ok(subnet) = Subnet::parse(&data) {
                let mut expected = data.clone();
                expected[3] = if data[2] == 0 { 0 } else { scope };
                prop_assert_eq!(subnet.answered(scope), expected);
            }
        }
    }
}
