//! Values as they lie in a store that others may read and write: AES-256-GCM under a key of each value's own.
//!
//! A key that is derived for each name bounds what one key ever seals, so that nonces can be random, however many frontends there
//! are; the name is what is authenticated beside the content as well. Nothing that was sealed for another user, another message,
//! another aspect or by another format opens here.
//! What can be put back is an older value of the same name, and that is the same content: it never changes.

use std::sync::Arc;

use bytes::Bytes;
use postrider_api::env::{self, Entropy};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::cache::name::{FORMAT_VERSION, Key, Name};

/// Before the sealed bytes: version and nonce.
const HEAD_BYTES: usize = 1 + NONCE_LEN;

/// Seals and opens.
#[derive(Clone)]
pub(crate) struct Sealer {
    name_key: [u8; 32],
    value_key: [u8; 32],
    entropy: Arc<dyn Entropy>,
}

/// A value that was not sealed here under this name: damaged, put there by somebody else, or of another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Foreign;

impl Sealer {
    /// Under a key that is derived from the cluster's secret.
    pub(crate) fn new(key: &[u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self {
            name_key: blake3::derive_key("postrider 2026 cache names", key),
            value_key: blake3::derive_key("postrider 2026 cache values", key),
            entropy,
        }
    }

    /// Where a value lies.
    pub(crate) fn key(&self, name: &Name) -> Key {
        let hash = blake3::keyed_hash(&self.name_key, name.bytes());
        let [half, _] = hash.as_bytes().as_chunks::<16>().0 else { unreachable!("32 bytes are two halves") };
        Key(*half)
    }

    fn aead(&self, name: &Name) -> LessSafeKey {
        let key = blake3::keyed_hash(&self.value_key, name.bytes());
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_bytes()).expect("a hash has as many bytes as a key"))
    }

    /// Seals `content` to `name`.
    pub(crate) fn seal(&self, name: &Name, content: &[u8]) -> Bytes {
        let nonce: [u8; NONCE_LEN] = env::random(&*self.entropy);
        let mut sealed = Vec::with_capacity(HEAD_BYTES + content.len() + AES_256_GCM.tag_len());
        sealed.push(FORMAT_VERSION);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(content);
        let tag = self
            .aead(name)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(name.bytes()),
                &mut sealed[HEAD_BYTES..],
            )
            .expect("a value is far shorter than what the cipher takes");
        sealed.extend_from_slice(tag.as_ref());
        sealed.into()
    }

    /// Opens what was sealed to `name`.
    pub(crate) fn open(&self, name: &Name, sealed: Bytes) -> Result<Bytes, Foreign> {
        let (version, rest) = sealed.split_first().ok_or(Foreign)?;
        let (nonce, _) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Foreign)?;
        if *version != FORMAT_VERSION {
            return Err(Foreign);
        }
        let nonce = Nonce::assume_unique_for_key(*nonce);
        // Taken over where nobody else holds it, as what comes from Redis.
        let mut bytes = Vec::from(sealed);
        let opened = self.aead(name).open_in_place(nonce, Aad::from(name.bytes()), &mut bytes[HEAD_BYTES..]);
        let end = HEAD_BYTES + opened.map_err(|_| Foreign)?.len();
        Ok(Bytes::from(bytes).slice(HEAD_BYTES..end))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{BlobHash, EmailId, Slot, UserId, ZoneId};

    use super::*;
    use crate::cache::name::Aspect;

    fn sealer(key: u8) -> Sealer {
        Sealer::new(&[key; 32], SystemEntropy::shared())
    }

    fn user(n: u8) -> UserId {
        UserId::new(ZoneId(1), Slot(1), [n; 12])
    }

    #[test]
    fn only_what_was_sealed_to_the_same_name_opens() {
        let sealer = sealer(1);
        let name = Name::of_message(Aspect::View, user(1), EmailId([1; 16]));
        let sealed = sealer.seal(&name, b"content");
        assert_eq!(sealer.open(&name, sealed.clone()).unwrap(), "content");
        for other in [
            Name::of_message(Aspect::View, user(2), EmailId([1; 16])),
            Name::of_message(Aspect::View, user(1), EmailId([2; 16])),
            Name::of_message(Aspect::Stored, user(1), EmailId([1; 16])),
            Name::of_blob(user(1), &BlobHash([1; 32])),
        ] {
            assert_eq!(sealer.open(&other, sealed.clone()), Err(Foreign), "{other:?}");
        }
        assert_eq!(self::sealer(2).open(&name, sealed.clone()), Err(Foreign), "another cluster's");
        assert_ne!(sealer.seal(&name, b"content"), sealed, "no two look the same");
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let sealer = sealer(1);
        let name = Name::of_message(Aspect::View, user(1), EmailId([1; 16]));
        let sealed = sealer.seal(&name, b"content");
        assert!(!sealed.windows(7).any(|bytes| bytes == b"content"));
        for at in 0..sealed.len() {
            // The first byte is the version.
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            assert_eq!(sealer.open(&name, changed.into()), Err(Foreign), "byte {at}");
            assert_eq!(sealer.open(&name, sealed.slice(..at)), Err(Foreign), "cut at {at}");
        }
        let mut longer = sealed.to_vec();
        longer.push(0);
        assert_eq!(sealer.open(&name, longer.into()), Err(Foreign));
        assert_eq!(sealer.open(&name, sealer.seal(&name, b"")).unwrap(), "");
    }

    #[test]
    fn keys_tell_nothing_and_meet_nowhere() {
        let mut keys = HashSet::new();
        for sealer in [sealer(1), sealer(2)] {
            for user in [user(1), user(2)] {
                for aspect in [Aspect::View, Aspect::Stored] {
                    keys.insert(sealer.key(&Name::of_message(aspect, user, EmailId([1; 16]))).text());
                }
                keys.insert(sealer.key(&Name::of_blob(user, &BlobHash([1; 32]))).text());
                assert!(keys.iter().all(|key| !key.contains(&hex::encode([1; 6]))));
            }
        }
        assert_eq!(keys.len(), 2 * 2 * 3);
    }
}
