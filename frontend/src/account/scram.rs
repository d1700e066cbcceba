//! What SCRAM-SHA-256 keeps of a password and proves with it (RFC 5802 section 3, RFC 7677). Who has the keys of a shard's row can
//! neither tell the password from them nor log in with them.

use std::num::NonZeroU32;

use bytes::Bytes;
use postrider_api::limit::SCRAM_ITERATIONS_MIN;
use postrider_api::pb;
use ring::{digest, hmac, pbkdf2};

/// What new keys are derived with. Of 130 random bits nobody finds the password by trying, however few iterations there are.
pub const ITERATIONS: NonZeroU32 = NonZeroU32::new(SCRAM_ITERATIONS_MIN).expect("it is not zero");
/// A key, a signature or a proof, bytes.
pub const KEY_BYTES: usize = 32;

/// `StoredKey` and `ServerKey` of one password.
#[derive(Clone)]
pub(super) struct Keys {
    pub(super) stored: [u8; KEY_BYTES],
    pub(super) server: [u8; KEY_BYTES],
}

impl Keys {
    /// Derives them: this is what costs time.
    pub(super) fn of(password: &[u8], salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password, &mut salted);
        Self { stored: sha256(&sign(&salted, b"Client Key")), server: sign(&salted, b"Server Key") }
    }

    /// As a command carries them.
    pub(super) fn to_pb(&self, salt: &[u8], iterations: NonZeroU32) -> pb::ScramKeys {
        pb::ScramKeys {
            salt: Bytes::copy_from_slice(salt),
            iterations: iterations.get(),
            stored_key: Bytes::copy_from_slice(&self.stored),
            server_key: Bytes::copy_from_slice(&self.server),
        }
    }

    /// `None` for a row that holds no keys: it opens for nobody.
    pub(super) fn of_pb(keys: &pb::ScramKeys) -> Option<Self> {
        Some(Self {
            stored: keys.stored_key.as_ref().try_into().ok()?,
            server: keys.server_key.as_ref().try_into().ok()?,
        })
    }

    /// Whether these are the keys of the same password, in a time that does not tell.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        blake3::Hash::from(self.stored) == blake3::Hash::from(other.stored)
    }

    /// Whether a client that sent `proof` for what was said has the password.
    pub(super) fn is_proven(&self, said: &[u8], proof: &[u8; KEY_BYTES]) -> bool {
        let mut client_key = sign(&self.stored, said);
        client_key.iter_mut().zip(proof).for_each(|(byte, proof)| *byte ^= proof);
        blake3::Hash::from(sha256(&client_key)) == blake3::Hash::from(self.stored)
    }

    /// What shows the client that the server has the keys.
    pub(super) fn signature(&self, said: &[u8]) -> [u8; KEY_BYTES] {
        sign(&self.server, said)
    }
}

fn sign(key: &[u8], text: &[u8]) -> [u8; KEY_BYTES] {
    fixed(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref())
}

fn sha256(bytes: &[u8]) -> [u8; KEY_BYTES] {
    fixed(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn fixed(bytes: &[u8]) -> [u8; KEY_BYTES] {
    bytes.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// RFC 7677 section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = Keys::of(b"pencil", &salt, ITERATIONS);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let said =
            format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}");
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let mut proof: [u8; KEY_BYTES] = proof.try_into().unwrap();
        assert!(keys.is_proven(said.as_bytes(), &proof));
        assert_eq!(STANDARD.encode(keys.signature(said.as_bytes())), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(!keys.is_proven(format!("{said}x").as_bytes(), &proof));
        proof[0] ^= 1;
        assert!(!keys.is_proven(said.as_bytes(), &proof));
        assert!(!keys.is_same(&Keys::of(b"Pencil", &salt, ITERATIONS)));
        let row = keys.to_pb(&salt, ITERATIONS);
        assert!(keys.is_same(&Keys::of_pb(&row).unwrap()));
    }
}
