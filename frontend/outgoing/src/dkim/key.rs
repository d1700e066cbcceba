//! Key pairs of domains, and how they are published.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use rsa::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _};
use rsa::rand_core::{TryCryptoRng, TryRng};
use thiserror::Error;

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 section 4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// RFC 8301 section 3.2: at least 1,024, and 2,048 should be signed with; longer keys do not fit into a TXT record of one string.
const RSA_BITS: usize = 2048;

/// The system's random numbers, as the crate that makes keys wants them.
struct SystemRng(SystemRandom);

/// The system has no random numbers.
#[derive(Debug, Error)]
#[error("the system has no random numbers")]
struct NoEntropy;

impl TryRng for SystemRng {
    type Error = NoEntropy;

    fn try_next_u32(&mut self) -> Result<u32, NoEntropy> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, NoEntropy> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), NoEntropy> {
        self.0.fill(bytes).map_err(|_| NoEntropy)
    }
}

impl TryCryptoRng for SystemRng {}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RFC 8463. Short, quick, and not known by every verifier.
    Ed25519,
    /// RSA of 2048 bits with SHA-256 (RFC 6376 section 3.3): known by all.
    RsaSha256,
}

impl Algorithm {
    /// The tag `a` of a signature.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519-sha256",
            Self::RsaSha256 => "rsa-sha256",
        }
    }
}

/// Why a key is none.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum KeyError {
    /// The bytes are no private key of the algorithm.
    #[error("the private key cannot be read: {0}")]
    Private(String),
    /// The bytes are no public key of the algorithm.
    #[error("the public key cannot be read")]
    Public,
    /// It cannot be made.
    #[error("a key cannot be made: {0}")]
    Generate(String),
    /// It does not sign.
    #[error("the key does not sign")]
    Sign,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A key pair that signs.
pub struct DkimKey {
    pair: Pair,
    pkcs8: Vec<u8>,
}

impl DkimKey {
    /// A new one. RSA takes up to a second of processor time: not for a thread that others wait for.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let pkcs8 = match algorithm {
            Algorithm::Ed25519 => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|error| KeyError::Generate(error.to_string()))?
                .as_ref()
                .to_vec(),
            Algorithm::RsaSha256 => rsa::PrivateKey::new(&mut SystemRng(SystemRandom::new()), RSA_BITS)
                .map_err(|error| KeyError::Generate(error.to_string()))?
                .to_pkcs8_der()
                .map_err(|error| KeyError::Generate(error.to_string()))?
                .as_bytes()
                .to_vec(),
        };
        Self::of_pkcs8(algorithm, pkcs8)
    }

    /// From a private key in PKCS#8 DER.
    ///
    /// # Errors
    /// When it is none of the algorithm.
    pub fn of_pkcs8(algorithm: Algorithm, pkcs8: Vec<u8>) -> Result<Self, KeyError> {
        let rejected = |error: ring::error::KeyRejected| KeyError::Private(error.to_string());
        let pair = match algorithm {
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(rejected)?),
            Algorithm::RsaSha256 => Pair::Rsa(Box::new(RsaKeyPair::from_pkcs8(&pkcs8).map_err(rejected)?)),
        };
        Ok(Self { pair, pkcs8 })
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::Ed25519,
            Pair::Rsa(_) => Algorithm::RsaSha256,
        }
    }

    /// The private key in PKCS#8 DER, to be sealed.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key as a SubjectPublicKeyInfo in DER.
    ///
    /// # Errors
    /// Never for a key that signs; what reads it again says so.
    pub fn public_key(&self) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok([&ED25519_SPKI[..], pair.public_key().as_ref()].concat()),
            Pair::Rsa(_) => {
                let private = rsa::PrivateKey::from_pkcs8_der(&self.pkcs8);
                let private = private.map_err(|error| KeyError::Private(error.to_string()))?;
                let public = private.to_public_key().to_public_key_der().map_err(|_| KeyError::Public)?;
                Ok(public.as_bytes().to_vec())
            }
        }
    }

    pub(super) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.pair {
            // RFC 8463 section 3: what is signed is the hash.
            Pair::Ed25519(pair) => {
                let hash = ring::digest::digest(&ring::digest::SHA256, data);
                Ok(pair.sign(hash.as_ref()).as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut signature).map_err(|_| KeyError::Sign)?;
                Ok(signature)
            }
        }
    }
}

/// The value of the TXT record at `selector._domainkey.domain` that publishes a key (RFC 6376 section 3.6.1, RFC 8463 section 4).
///
/// # Errors
/// When `public_key` is no SubjectPublicKeyInfo of the algorithm.
pub fn txt_value(algorithm: Algorithm, public_key: &[u8]) -> Result<String, KeyError> {
    let (kind, bytes) = match algorithm {
        Algorithm::Ed25519 => {
            let key = public_key.strip_prefix(&ED25519_SPKI).filter(|key| key.len() == 32);
            ("ed25519", key.ok_or(KeyError::Public)?)
        }
        Algorithm::RsaSha256 => ("rsa", public_key),
    };
    Ok(format!("v=DKIM1; k={kind}; p={}", STANDARD.encode(bytes)))
}
