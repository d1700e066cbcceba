//! What the demo's processes share and nobody else may know: made once, kept in files that only the owner reads.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use postrider_api::env::{Entropy, random};
use rcgen::KeyPair;

use crate::files;

/// Paths of the secrets, and those that the demo itself needs.
pub(crate) struct Secrets {
    /// For the operator's part of REST.
    pub(crate) admin_token: String,
    pub(crate) admin_token_file: PathBuf,
    /// Authenticates list cursors; the same at every frontend.
    pub(crate) cursor_secret_file: PathBuf,
    /// The object stores' access key.
    pub(crate) store_access_key: String,
    pub(crate) store_secret_key_file: PathBuf,
    /// Signs the zones; the same at every name server.
    pub(crate) dnssec_key_file: PathBuf,
    /// For DNS cookies; the same at every name server.
    pub(crate) dns_cookie_secret_file: PathBuf,
}

impl Secrets {
    /// Those kept in `dir`, made now if there are none.
    pub(crate) fn open(dir: &Path, entropy: &dyn Entropy) -> anyhow::Result<Self> {
        files::make_directory(dir)?;
        let hexadecimal = |file: &str| -> anyhow::Result<(String, PathBuf)> {
            let path = dir.join(file);
            let text = files::keep_secret(&path, || Ok(hex::encode(random::<32>(entropy))))?;
            Ok((text, path))
        };
        let (admin_token, admin_token_file) = hexadecimal("admin-token")?;
        let (_, cursor_secret_file) = hexadecimal("cursor-secret")?;
        let (_, store_secret_key_file) = hexadecimal("store-secret-key")?;
        let (_, dns_cookie_secret_file) = hexadecimal("dns-cookie-secret")?;
        let dnssec_key_file = dir.join("dnssec.key");
        // rcgen's default is P-256, which is what signs here.
        files::keep_secret(&dnssec_key_file, || {
            Ok(KeyPair::generate().context("make the key of the zones")?.serialize_pem())
        })?;
        Ok(Self {
            admin_token,
            admin_token_file,
            cursor_secret_file,
            store_access_key: "postrider-demo".into(),
            store_secret_key_file,
            dnssec_key_file,
            dns_cookie_secret_file,
        })
    }
}

/// A password for a sample account: letters and digits that are not mistaken for each other, 75 bits.
pub(crate) fn password(entropy: &dyn Entropy) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letters: Vec<u8> = random::<15>(entropy).iter().map(|byte| LETTERS[usize::from(byte % 32)]).collect();
    letters.chunks(5).map(String::from_utf8_lossy).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;

    use super::*;

    #[test]
    fn secrets_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::open(dir.path(), &SystemEntropy).unwrap();
        let second = Secrets::open(dir.path(), &SystemEntropy).unwrap();
        assert_eq!(first.admin_token, second.admin_token);
        assert_eq!(first.admin_token.len(), 64);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Secrets::open(other.path(), &SystemEntropy).unwrap().admin_token, first.admin_token);
    }

    #[test]
    fn passwords_look_right() {
        let password = password(&SystemEntropy);
        assert_eq!(password.len(), 17);
        assert_eq!(password.matches('-').count(), 2);
    }
}
