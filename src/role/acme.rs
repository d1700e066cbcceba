//! `[acme]`: certificates of a public authority.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use postrider_frontend::acme::AcmeSettings;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

/// With whom the cluster's public certificates are ordered. Which ones, `ctl acme want` says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcmeConfig {
    /// URL of the authority's directory.
    #[serde(default = "lets_encrypt")]
    pub(crate) directory: String,
    /// Where the authority reaches the operator: `mailto:` URLs.
    #[serde(default)]
    pub(crate) contacts: Vec<String>,
    /// Whether the operator agrees to the authority's terms: nothing is ordered otherwise.
    #[serde(default)]
    pub(crate) terms_agreed: bool,
    /// Where proofs by HTTP are answered in plain: port 80, as the authority sees it. Everything else is sent to HTTPS.
    pub(crate) http_listen: Option<SocketAddr>,
    /// Certificates (PEM) that the directory's own is verified by, beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

fn lets_encrypt() -> String {
    "https://acme-v02.api.letsencrypt.org/directory".to_owned()
}

impl AcmeConfig {
    /// What is ordered with. `region`: where this frontend stands.
    pub(crate) fn settings(&self, region: &str) -> anyhow::Result<AcmeSettings> {
        ensure!(self.terms_agreed, "acme.terms_agreed: read the authority's terms, and say true");
        ensure!(self.directory.starts_with("https://"), "acme.directory: an https URL is wanted");
        let mailto = self.contacts.iter().all(|contact| contact.starts_with("mailto:"));
        ensure!(mailto, "acme.contacts: mailto: URLs are wanted");
        let roots = match &self.ca_file {
            Some(path) => {
                let roots = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                let roots = roots.with_context(|| format!("acme.ca_file: read {}", path.display()))?;
                ensure!(!roots.is_empty(), "acme.ca_file: {} holds no certificate", path.display());
                roots
            }
            None => Vec::new(),
        };
        Ok(AcmeSettings {
            directory: self.directory.clone(),
            contacts: self.contacts.clone(),
            roots,
            region: region.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<AcmeSettings, String> {
        let config: AcmeConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.settings("seoul").map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_is_wrong_names_its_key() {
        let good = settings("terms_agreed = true\ncontacts = [\"mailto:ops@example.org\"]").unwrap();
        assert!(good.directory.starts_with("https://acme-v02."));
        for (text, key) in [
            ("", "terms_agreed"),
            ("terms_agreed = true\ndirectory = \"http://x.example\"", "acme.directory"),
            ("terms_agreed = true\ncontacts = [\"ops@example.org\"]", "acme.contacts"),
            ("terms_agreed = true\nca_file = \"/nowhere.pem\"", "acme.ca_file"),
            ("directori = \"x\"", "directori"),
        ] {
            assert!(settings(text).unwrap_err().contains(key), "{text}");
        }
    }
}
