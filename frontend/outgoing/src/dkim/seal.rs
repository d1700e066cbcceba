//! Private keys as they lie in placement, each sealed to its domain and selector.

use postrider_api::env::Entropy;
use thiserror::Error;

use super::key::{Algorithm, DkimKey, KeyError};
use crate::dns::Domain;
use crate::seal::{SealError, Sealer};

/// What the key is derived for, of the cluster's secret, that private keys are sealed under.
pub const KEYS_PURPOSE: &str = "postrider 2026 dkim";

/// Why a sealed key does not open.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Sealed {
    /// It is of a newer build, or was sealed under another secret, for another domain or selector, or is damaged.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It opens, and is no key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Seals and opens private keys.
#[derive(Clone)]
pub struct KeySealer(Sealer);

impl KeySealer {
    /// Under the secret of frontends and workers.
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Sealer::new("postrider 2026 dkim private keys", secret))
    }

    /// Seals a key to its domain and selector.
    pub fn seal(&self, domain: &Domain, selector: &str, key: &DkimKey, entropy: &dyn Entropy) -> Vec<u8> {
        self.0.seal(&name(domain, selector), key.pkcs8(), entropy)
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
        Ok(DkimKey::of_pkcs8(algorithm, self.0.open(&name(domain, selector), sealed)?)?)
    }
}

fn name(domain: &Domain, selector: &str) -> Vec<u8> {
    // Neither has a zero byte.
    [domain.as_str().as_bytes(), &[0], selector.as_bytes()].concat()
}
