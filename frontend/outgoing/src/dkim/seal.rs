//! Private keys as they lie in placement: AES-256-GCM under a key that is derived from the secret of frontends and workers.
//!
//! Each domain's selector has a key of its own, so that nonces can be random; both are authenticated beside the content, so that no
//! key can be put in another's place.

use postrider_api::env::{Entropy, random};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

use super::key::{Algorithm, DkimKey, KeyError};
use crate::dns::Domain;

/// The form of what is sealed.
const FORMAT_VERSION: u8 = 1;
/// Before the sealed bytes: version and nonce.
const HEAD_BYTES: usize = 1 + NONCE_LEN;

/// What the key is derived for, of the cluster's secret, that private keys are sealed under.
pub const KEYS_PURPOSE: &str = "postrider 2026 dkim";

/// Why a sealed key does not open.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// It is of a newer build.
    #[error("the key is sealed in form {0}, which this build does not know")]
    Newer(u8),
    /// It was sealed under another secret, for another domain or selector, or is damaged.
    #[error("the key does not open: it was sealed under another secret or name, or is damaged")]
    Foreign,
    /// It opens, and is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Seals and opens private keys.
#[derive(Clone)]
pub struct KeySealer([u8; 32]);

impl KeySealer {
    /// Under the secret of frontends and workers.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key("postrider 2026 dkim private keys", secret))
    }

    fn aead(&self, domain: &Domain, selector: &str) -> (LessSafeKey, Vec<u8>) {
        // Neither has a zero byte.
        let name = [domain.as_str().as_bytes(), &[0], selector.as_bytes()].concat();
        let key = blake3::keyed_hash(&self.0, &name);
        let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("a hash has as many bytes as a key");
        (LessSafeKey::new(key), name)
    }

    /// Seals a key to its domain and selector.
    pub fn seal(&self, domain: &Domain, selector: &str, key: &DkimKey, entropy: &dyn Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random(entropy);
        let mut sealed = vec![FORMAT_VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(key.pkcs8());
        let (aead, name) = self.aead(domain, selector);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = aead
            .seal_in_place_separate_tag(nonce, Aad::from(&name), &mut sealed[HEAD_BYTES..])
            .expect("a key is far shorter than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed to this domain and selector.
    ///
    /// # Errors
    /// When it was not.
    pub fn open(
        &self,
        domain: &Domain,
        selector: &str,
        algorithm: Algorithm,
        sealed: &[u8],
    ) -> Result<DkimKey, Sealed> {
        let (version, rest) = sealed.split_first().ok_or(Sealed::Foreign)?;
        if *version != FORMAT_VERSION {
            return Err(Sealed::Newer(*version));
        }
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Sealed::Foreign)?;
        let (aead, name) = self.aead(domain, selector);
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = aead.open_in_place(nonce, Aad::from(&name), &mut content).map_err(|_| Sealed::Foreign)?;
        let length = opened.len();
        content.truncate(length);
        Ok(DkimKey::of_pkcs8(algorithm, content)?)
    }
}
