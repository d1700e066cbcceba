//! Residency zones, and the one place that forms object keys.

use std::fmt;
use std::str::FromStr;

use postrider_api::id::BlobHash;

use crate::BlobError;

/// Longest zone name, bytes: one DNS label (RFC 1035 section 2.3.4).
const ZONE_BYTES_MAX: usize = 63;

/// Name of a residency zone: 1 to 63 of `a-z`, `0-9` and `-`. A blob never leaves its zone, and sameness is never looked
/// for across zones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(String);

impl Zone {
    /// Checks the name.
    pub fn new(name: impl Into<String>) -> Result<Self, BlobError> {
        let name = name.into();
        let fits = (1..=ZONE_BYTES_MAX).contains(&name.len());
        let plain = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits && plain {
            Ok(Self(name))
        } else {
            Err(BlobError::Invalid { what: "a zone's name is 1 to 63 of a-z, 0-9 and '-'" })
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `<zone>/<first hash byte in hex>/<hash in hex>`: the middle part spreads a zone over 256 directories or prefixes.
    /// Keys of one zone sort as their hashes do.
    pub fn key(&self, hash: &BlobHash) -> String {
        let hex = hash.to_string();
        format!("{}/{}/{hex}", self.0, &hex[..2])
    }

    /// The hash of one of this zone's keys; `None` for any other key.
    pub fn hash_of_key(&self, key: &str) -> Option<BlobHash> {
        let rest = key.strip_prefix(self.as_str())?.strip_prefix('/')?;
        let (fan, hex) = rest.split_once('/')?;
        let mut hash = [0; 32];
        hex::decode_to_slice(hex, &mut hash).ok()?; // not hex: no key of ours, as documented
        let hash = BlobHash(hash);
        // Upper case decodes too, but is another key.
        (self.key(&hash) == key && hex.starts_with(fan)).then_some(hash)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Zone {
    type Err = BlobError;

    fn from_str(name: &str) -> Result<Self, BlobError> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_names_that_would_change_the_key() {
        for name in ["", "EU", "e/u", "..", "a.b", "é", &"a".repeat(64)] {
            assert!(Zone::new(name).is_err(), "{name:?}");
        }
        assert!(Zone::new("a".repeat(63)).is_ok());
    }

    #[test]
    fn another_zones_key_is_not_ours() {
        let (eu, eu2) = (Zone::new("eu").unwrap(), Zone::new("eu-2").unwrap());
        let hash = BlobHash::of(b"x");
        assert_eq!(eu.hash_of_key(&eu2.key(&hash)), None);
        assert_eq!(eu.hash_of_key(&eu.key(&hash).to_uppercase()), None);
        assert_eq!(eu.hash_of_key(&format!("eu/zz/{hash}")), None);
    }

    proptest! {
        #[test]
        fn keys_come_back_and_sort_as_hashes(a: [u8; 32], b: [u8; 32]) {
            let zone = Zone::new("eu").unwrap();
            let (a, b) = (BlobHash(a), BlobHash(b));
            prop_assert_eq!(zone.hash_of_key(&zone.key(&a)), Some(a));
            prop_assert_eq!(zone.key(&a).cmp(&zone.key(&b)), a.cmp(&b));
        }

        #[test]
        fn no_key_panics(key in ".{0,100}") {
            if let Some(hash) = Zone::new("eu").unwrap().hash_of_key(&key) {
                prop_assert_eq!(Zone::new("eu").unwrap().key(&hash), key);
            }
        }
    }
}
