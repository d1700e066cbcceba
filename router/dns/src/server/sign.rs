//! Signatures, made when they are asked for (RFC 4034, 4035; P-256, RFC 6605).
//!
//! One key signs everything of all zones. Signatures are kept by the bytes that they are over, and their times are rounded to a
//! day, so a busy set is signed once a day; zones do not turn their day at once.

use std::fmt;
use std::sync::Arc;

use hickory_proto::dnssec::crypto::EcdsaSigningKey;
use hickory_proto::dnssec::rdata::sig::SigInput;
use hickory_proto::dnssec::rdata::{DNSKEY, DNSSECRData, DS, RRSIG};
use hickory_proto::dnssec::{Algorithm, DigestType, DnsSecError, PublicKey as _, SigningKey as _, TBS};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, SerialNumber};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::zone::build::STABLE_TTL_S;
use crate::zone::file;
use crate::zone::tree::RrSet;

/// Signatures are renewed after this long.
pub const RENEWED_AFTER_S: u32 = 24 * 3600;
/// They are good for this long: resolvers that cannot reach us go on with what they have.
pub const VALID_S: u32 = 14 * 24 * 3600;
/// And from so long before they were made, for clocks that are behind.
pub const BACKDATED_S: u32 = 3 * 3600;
/// Signatures that are kept, some 150 bytes each.
const KEPT_MAX: u64 = 65_536;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No PEM with a PKCS#8 private key.
    #[error("no PKCS#8 private key in PEM: {detail}")]
    NoKey {
        /// What is wrong.
        detail: String,
    },
    /// A key of another kind.
    #[error("not a P-256 key: {0}")]
    NotP256(DnsSecError),
}

/// One key.
struct Key {
    key: EcdsaSigningKey,
    dnskey: DNSKEY,
    tag: u16,
}

/// Signs.
pub struct Signer {
    keys: Vec<Key>,
    made: moka::sync::Cache<[u8; 32], Arc<[u8]>>,
}

impl Signer {
    /// With keys in PEM (PKCS#8, P-256). The first signs; all are published and sign the keys, so that a key can be brought in
    /// before it is used and taken away after.
    ///
    /// # Errors
    /// When one is no such key.
    pub fn new<'a>(pems: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyError> {
        let keys = pems.into_iter().map(Key::from_pem).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(KeyError::NoKey { detail: "there is none".into() });
        }
        Ok(Self { keys, made: moka::sync::Cache::new(KEPT_MAX) })
    }

    /// A new key, in DER (PKCS#8).
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        let key = EcdsaSigningKey::generate_pkcs8(Algorithm::ECDSAP256SHA256).map_err(KeyError::NotP256)?;
        Ok(key.secret_pkcs8_der().to_vec())
    }

    /// The records that the parent zone needs, as lines of a zone file.
    pub fn delegation(&self, domain: &str) -> Vec<String> {
        let Ok(mut origin) = Name::from_ascii(domain) else { return Vec::new() };
        origin.set_fqdn(true);
        let digest = |key: &Key| {
            let public = key.dnskey.public_key();
            DS::from_key(public, &origin, DigestType::SHA256).ok()
        };
        self.keys.iter().filter_map(digest).map(|ds| format!("{origin} {STABLE_TTL_S} IN DS {ds}")).collect()
    }

    /// The keys as an anchor of trust, as lines of a zone file.
    pub fn anchors(&self, domain: &str) -> Vec<String> {
        let lines = self.dnskeys().data.into_iter();
        lines
            .map(|data| {
                let RData::DNSSEC(DNSSECRData::DNSKEY(key)) = &data else { return file::written(&data) };
                use base64::Engine as _;
                let public = base64::engine::general_purpose::STANDARD.encode(key.public_key().public_bytes());
                format!("{}. {STABLE_TTL_S} IN DNSKEY {} 3 13 {public}", domain.trim_end_matches('.'), key.flags())
            })
            .collect()
    }

    /// The zone's DNSKEY set.
    pub(crate) fn dnskeys(&self) -> RrSet {
        let data = self.keys.iter().map(|key| RData::DNSSEC(DNSSECRData::DNSKEY(key.dnskey.clone()))).collect();
        RrSet { rtype: RecordType::DNSKEY, ttl: STABLE_TTL_S, data }
    }

    /// Signatures over the records of one set, which all have one owner, type and TTL.
    pub(crate) fn sign(&self, origin: &Name, records: &[Record], now_s: u32) -> Vec<Record> {
        let Some(first) = records.first() else { return Vec::new() };
        // Only the keys themselves are signed by all.
        let signing = if first.record_type() == RecordType::DNSKEY { self.keys.len() } else { 1 };
        let mut made = Vec::with_capacity(signing);
        for key in &self.keys[..signing] {
            match self.signature(key, origin, first, records, now_s) {
                Ok(signature) => made.push(signature),
                // Nothing that is served is too long to be signed; a resolver that validates refuses what is not.
                Err(error) => tracing::error!(name = %first.name, %error, "a set could not be signed"),
            }
        }
        made
    }

    fn signature(
        &self,
        key: &Key,
        origin: &Name,
        first: &Record,
        records: &[Record],
        now_s: u32,
    ) -> Result<Record, DnsSecError> {
        let start = day_start(origin, now_s);
        let input = SigInput {
            type_covered: first.record_type(),
            algorithm: Algorithm::ECDSAP256SHA256,
            num_labels: first.name.num_labels(),
            original_ttl: first.ttl,
            sig_expiration: SerialNumber::new(start.wrapping_add(VALID_S)),
            sig_inception: SerialNumber::new(start.wrapping_sub(BACKDATED_S)),
            key_tag: key.tag,
            signer_name: origin.clone(),
        };
        let signed = TBS::from_input(&first.name, DNSClass::IN, &input, records.iter())?;
        let digest = *blake3::hash(signed.as_ref()).as_bytes();
        let signature = match self.made.get(&digest) {
            Some(signature) => signature,
            None => {
                let signature: Arc<[u8]> = key.key.sign(&signed)?.into();
                metrics::counter!("postrider_dns_signatures_total").increment(1);
                self.made.insert(digest, signature.clone());
                signature
            }
        };
        let data = RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, signature.to_vec())));
        Ok(Record::from_rdata(first.name.clone(), first.ttl, data))
    }
}

impl Key {
    fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| KeyError::NoKey { detail: error.to_string() })?;
        let key = EcdsaSigningKey::from_pkcs8(&der, Algorithm::ECDSAP256SHA256).map_err(KeyError::NotP256)?;
        let public = key.to_public_key().map_err(KeyError::NotP256)?;
        // Zone key and entry point in one (flags 257): RFC 6781 section 3.1, a single-type signing scheme.
        let dnskey = DNSKEY::from_key(&public);
        let tag = dnskey.calculate_key_tag().map_err(|error| KeyError::NoKey { detail: error.to_string() })?;
        Ok(Self { key, dnskey, tag })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tags: Vec<u16> = self.keys.iter().map(|key| key.tag).collect();
        formatter.debug_struct("Signer").field("keys", &tags).finish_non_exhaustive()
    }
}

/// When a zone's day of signatures began. Each zone has an hour of its own for it.
fn day_start(origin: &Name, now_s: u32) -> u32 {
    let hash = blake3::hash(origin.to_ascii().as_bytes());
    let [a, b, c, d, ..] = *hash.as_bytes();
    let shift = u32::from_be_bytes([a, b, c, d]) % RENEWED_AFTER_S;
    now_s - now_s.wrapping_sub(shift) % RENEWED_AFTER_S
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    /// A new key in PEM.
    pub(crate) fn pem() -> String {
        let der = base64::engine::general_purpose::STANDARD.encode(Signer::generate().unwrap());
        format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn a_set_is_signed_once_a_day() {
        let pem = pem();
        let signer = Signer::new([pem.as_str()]).unwrap();
        let origin = Name::from_ascii("example.org.").unwrap();
        let record = Record::from_rdata(origin.clone(), 60, RData::from(std::net::IpAddr::from([192, 0, 2, 1])));
        let now = 1_800_000_000;
        let first = signer.sign(&origin, std::slice::from_ref(&record), now);
        assert_eq!(first.len(), 1);
        // ECDSA draws a number each time: an equal signature is the same one.
        assert_eq!(first, signer.sign(&origin, std::slice::from_ref(&record), now));
        let start = day_start(&origin, now);
        let later = signer.sign(&origin, &[record], start + RENEWED_AFTER_S);
        assert_ne!(first, later);
    }

    #[test]
    fn keys_of_another_kind_are_refused() {
        assert!(matches!(Signer::new([]), Err(KeyError::NoKey { .. })));
        assert!(matches!(Signer::new(["nothing"]), Err(KeyError::NoKey { .. })));
        assert!(matches!(
            Signer::new(["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]),
            Err(KeyError::NotP256(_))
        ));
    }

    proptest! {
        #[test]
        fn signatures_are_good_now_and_for_long_enough(now in 1_700_000_000u32..2_000_000_000, label in "[a-z]{1,8}") {
            let start = day_start(&Name::from_ascii(format!("{label}.example.")).unwrap(), now);
            prop_assert!(start <= now && now - start < RENEWED_AFTER_S);
            prop_assert!(start + VALID_S - now > 12 * 24 * 3600);
        }
    }
}
