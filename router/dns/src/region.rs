//! The regions that answers may name.

use std::net::IpAddr;

/// As many regions as one set of them can hold.
pub const REGIONS_MAX: usize = 64;

/// A set of regions, by their place in the list that the process was configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RegionSet(u64);

impl RegionSet {
    /// No region.
    pub const NONE: RegionSet = RegionSet(0);

    /// The first `count` regions.
    pub fn first(count: usize) -> Self {
        if count >= REGIONS_MAX { Self(u64::MAX) } else { Self((1 << count) - 1) }
    }

    /// From the bits of [`RegionSet::bits`].
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit for each region.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Adds a region. A place beyond [`REGIONS_MAX`] is none.
    pub fn insert(&mut self, region: usize) {
        if region < REGIONS_MAX {
            self.0 |= 1 << region;
        }
    }

    /// Takes a region out.
    pub fn remove(&mut self, region: usize) {
        if region < REGIONS_MAX {
            self.0 &= !(1 << region);
        }
    }

    /// Whether it is among them.
    pub fn contains(self, region: usize) -> bool {
        region < REGIONS_MAX && self.0 & (1 << region) != 0
    }

    /// Those that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Their places, in the configured order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..REGIONS_MAX).filter(move |region| self.contains(*region))
    }
}

impl FromIterator<usize> for RegionSet {
    fn from_iter<I: IntoIterator<Item = usize>>(regions: I) -> Self {
        let mut set = Self::NONE;
        regions.into_iter().for_each(|region| set.insert(region));
        set
    }
}

/// What a region shows to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its name in the shard map.
    pub name: String,
    /// Where its frontends listen, as clients reach them.
    pub addresses: Vec<IpAddr>,
    /// The name that its frontends say of themselves over SMTP, which MX records point to.
    pub mail_host: String,
    /// The name of its name server.
    pub ns_host: String,
    /// Where its name server listens, as the world reaches it.
    pub ns_addresses: Vec<IpAddr>,
    /// From where it sends mail, where that is not `addresses`.
    pub outgoing: Vec<IpAddr>,
    /// The certificates that `mail_host` shows on port 25.
    pub tlsa: Vec<Tlsa>,
}

/// The record of a certificate (RFC 6698).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsa {
    /// 3: this very certificate or key; 2: an authority's.
    pub usage: u8,
    /// 1: its public key; 0: the whole certificate.
    pub selector: u8,
    /// 1: by SHA-256; 0: as it is; 2: by SHA-512.
    pub matching: u8,
    /// The digest.
    pub data: Vec<u8>,
}

impl Tlsa {
    /// `3 1 1`, the form that RFC 7672 section 3.1.3 recommends for mail: the SHA-256 of the DER SubjectPublicKeyInfo.
    pub fn dane_ee(public_key_info: &[u8]) -> Self {
        use sha2::Digest as _;
        Self { usage: 3, selector: 1, matching: 1, data: sha2::Sha256::digest(public_key_info).to_vec() }
    }

    /// The same of the first certificate in a PEM file.
    ///
    /// # Errors
    /// When there is none.
    pub fn of_certificate(pem: &[u8]) -> Result<Self, CertificateError> {
        use rustls_pki_types::pem::PemObject as _;
        use x509_parser::prelude::FromDer as _;
        let certificate = rustls_pki_types::CertificateDer::from_pem_slice(pem)
            .map_err(|error| CertificateError(error.to_string()))?;
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&certificate)
            .map_err(|error| CertificateError(error.to_string()))?;
        Ok(Self::dane_ee(certificate.public_key().raw))
    }
}

/// A certificate that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate in PEM: {0}")]
pub struct CertificateError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_what_was_put_in() {
        let mut set: RegionSet = [0, 5, 63, 64].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 5, 63], "64 is beyond the last");
        set.remove(5);
        assert_eq!(set.and(RegionSet::first(1)), RegionSet::first(1));
        assert_eq!(RegionSet::first(64).iter().count(), 64);
        assert!(RegionSet::first(0).is_empty());
    }
}
