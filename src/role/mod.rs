//! The roles of the binary: each reads one TOML file, starts, serves until it is told to stop, and stops gracefully.
//!
//! Invariant: an unknown key is an error, and everything that can be wrong with a configuration is said before anything
//! listens.

mod acme;
mod backend;
pub(crate) mod cache;
pub(crate) mod counters;
pub(crate) mod dns;
pub(crate) mod frontend;
pub(crate) mod images;
pub(crate) mod node;
pub(crate) mod operators;
pub(crate) mod outgoing;
mod round_trips;
pub(crate) mod store;
pub(crate) mod worker;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::Args;
use postrider_api::tls::TlsIdentity;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Every role takes its settings from one file.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgument {
    /// TOML file with the role's settings.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Reads a role's settings.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("configuration {}", path.display()))
}

/// PEM files: what the process shows to other roles, and the authority that it trusts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFiles {
    /// The cluster's certificate authority.
    pub(crate) ca: PathBuf,
    /// This process's certificate; it names the role.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Has the certificate of a process follow its files until what is returned is dropped.
#[must_use]
pub(crate) fn keep_up(identity: &TlsIdentity) -> watch::Sender<()> {
    let (asking, asked) = watch::channel(());
    tokio::spawn(identity.certificates().clone().keep_up(asked));
    asking
}

impl TlsFiles {
    /// Reads them, and checks that they can be used.
    pub(crate) fn load(&self) -> anyhow::Result<TlsIdentity> {
        let identity = TlsIdentity::load(&self.ca, &self.cert, &self.key)?;
        identity.endpoint("localhost:1").with_context(|| format!("use the certificate {}", self.cert.display()))?;
        Ok(identity)
    }
}

/// How a process reaches the storage nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterConfig {
    /// gRPC addresses (host:port) of some storage nodes. The shard map tells the others.
    pub(crate) nodes: Vec<String>,
    /// This process's certificate.
    pub(crate) tls: TlsFiles,
}

/// The object store of one region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// The region it stands in.
    pub(crate) region: String,
    /// Its S3 endpoint, `http://host:port` or `https://host:port`.
    pub(crate) endpoint: String,
    /// Bucket for the blobs.
    pub(crate) bucket: String,
    /// S3 access key.
    pub(crate) access_key: String,
    /// File that holds its secret key.
    pub(crate) secret_key_file: PathBuf,
    /// Whether `http://` is allowed off the loopback, on a network that is protected otherwise.
    #[serde(default)]
    pub(crate) allow_plain: bool,
}

/// A secret from a file of its own, without the line end that editors put behind it.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read the secret in {}", path.display()))?;
    let text = text.trim_end().to_owned();
    ensure!(!text.is_empty(), "the secret in {} is empty", path.display());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_refused() {
        let text = "ca = \"a\"\ncert = \"b\"\nkey = \"c\"\nkeyy = \"d\"\n";
        let error = toml::from_str::<TlsFiles>(text).unwrap_err().to_string();
        assert!(error.contains("keyy"), "{error}");
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_secret(&path).is_err());
        std::fs::write(&path, "abc\n").unwrap();
        assert_eq!(read_secret(&path).unwrap(), "abc");
    }
}
