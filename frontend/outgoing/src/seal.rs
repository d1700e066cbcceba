//! Secrets as they lie in placement: AES-256-GCM under a key that is derived from the secret of frontends and workers.
//!
//! Each secret's name has a key of its own, so that nonces can be random; the name is authenticated beside the content, so that no
//! secret can be put in another's place.

use postrider_api::env::{Entropy, random};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use thiserror::Error;

/// The form of what is sealed.
const FORMAT_VERSION: u8 = 1;
/// Before the sealed bytes: version and nonce.
const HEAD_BYTES: usize = 1 + NONCE_LEN;

/// Why something sealed does not open.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// It is of a newer build.
    #[error("the key is sealed in form {0}, which this build does not know")]
    Newer(u8),
    /// It was sealed under another secret or for another name, or is damaged.
    #[error("the key does not open: it was sealed under another secret or name, or is damaged")]
    Foreign,
}

/// Seals and opens secrets of one kind.
#[derive(Clone)]
pub struct Sealer([u8; 32]);

impl Sealer {
    /// Of the kind that `context` names, under the secret of frontends and workers.
    pub fn new(context: &str, secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(context, secret))
    }

    fn aead(&self, name: &[u8]) -> LessSafeKey {
        let key = blake3::keyed_hash(&self.0, name);
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("a hash has as many bytes as a key"))
    }

    /// Seals `content` to its name.
    pub fn seal(&self, name: &[u8], content: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = random(entropy);
        let mut sealed = vec![FORMAT_VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(content);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .aead(name)
            .seal_in_place_separate_tag(nonce, Aad::from(name), &mut sealed[HEAD_BYTES..])
            .expect("a key is far shorter than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what was sealed to this name.
    ///
    /// # Errors
    /// When it was not.
    pub fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Foreign)?;
        if *version != FORMAT_VERSION {
            return Err(SealError::Newer(*version));
        }
        let (nonce, content) = rest.split_first_chunk::<NONCE_LEN>().ok_or(SealError::Foreign)?;
        let mut content = content.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened =
            self.aead(name).open_in_place(nonce, Aad::from(name), &mut content).map_err(|_| SealError::Foreign)?;
        let length = opened.len();
        content.truncate(length);
        Ok(content)
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    #[test]
    fn it_opens_under_its_own_name_kind_and_secret_only() {
        let sealer = Sealer::new("test one", &[7; 32]);
        let sealed = sealer.seal(b"name", b"secret", &SystemEntropy);
        assert_eq!(sealer.open(b"name", &sealed).unwrap(), b"secret");
        assert_eq!(sealer.open(b"other", &sealed), Err(SealError::Foreign));
        assert_eq!(Sealer::new("test two", &[7; 32]).open(b"name", &sealed), Err(SealError::Foreign));
        assert_eq!(Sealer::new("test one", &[8; 32]).open(b"name", &sealed), Err(SealError::Foreign));
        let mut newer = sealed.clone();
        newer[0] = 2;
        assert_eq!(sealer.open(b"name", &newer), Err(SealError::Newer(2)));
        for cut in 0..sealed.len() {
            assert_eq!(sealer.open(b"name", &sealed[..cut]), Err(SealError::Foreign));
        }
    }
}
