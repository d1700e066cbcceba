//! TLS to a peer, as strict as the policy for it.

mod verifier;

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use self::verifier::{AnyCertificate, DaneCertificate};
use crate::dns::{Domain, Tlsa};

/// How a connection to a host is secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// TLS where it is offered and works, with whatever certificate: better than none (RFC 7435).
    Opportunistic,
    /// The same, but never in plain text: TLSA records say that there is TLS, and none of them can be used (RFC 7672 section 2.2).
    Encrypted,
    /// A certificate of the host's name under a known root (MTA-STS, REQUIRETLS).
    Pkix,
    /// As one of these TLSA records says (RFC 7672).
    Dane(Arc<[Tlsa]>),
}

impl Security {
    /// Whether nothing goes to the host in plain text.
    pub(crate) fn is_required(&self) -> bool {
        !matches!(self, Self::Opportunistic)
    }

    /// Whether the peer is who it says it is.
    pub(crate) fn is_authenticated(&self) -> bool {
        matches!(self, Self::Pkix | Self::Dane(_))
    }
}

/// Makes configurations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    opportunistic: Arc<ClientConfig>,
    pkix: Option<Arc<ClientConfig>>,
}

impl Tls {
    /// Under these roots; without any nobody is authenticated by name.
    pub(crate) fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(ring::default_provider());
        let opportunistic = configured(&provider, Arc::new(AnyCertificate::new(Arc::clone(&provider))));
        let pkix = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .inspect_err(|error| tracing::warn!(%error, "no root certificates: MTA-STS and REQUIRETLS will defer mail"))
            .ok()
            .map(|verifier| configured(&provider, verifier));
        Self { provider, opportunistic, pkix }
    }

    /// The system's roots, and those that are given.
    pub(crate) fn roots(more: &[CertificateDer<'static>]) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        for error in &system.errors {
            tracing::warn!(%error, "some of the system's root certificates cannot be read");
        }
        roots.add_parsable_certificates(system.certs);
        roots.add_parsable_certificates(more.iter().cloned());
        roots
    }

    /// The configuration for a connection; `None` where there are no roots to check by.
    pub(crate) fn config(&self, security: &Security) -> Option<Arc<ClientConfig>> {
        match security {
            Security::Opportunistic | Security::Encrypted => Some(Arc::clone(&self.opportunistic)),
            Security::Pkix => self.pkix.clone(),
            Security::Dane(records) => {
                let verifier = DaneCertificate::new(Arc::clone(records), Arc::clone(&self.provider));
                Some(configured(&self.provider, Arc::new(verifier)))
            }
        }
    }

    /// For HTTPS: a certificate of the host's name under a known root.
    pub(crate) fn https(&self) -> Option<Arc<ClientConfig>> {
        self.pkix.clone()
    }
}

fn configured(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("ring knows the versions that rustls does by default")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

/// What the handshake says whom it wants: the host, or the address where no certificate has such a name.
pub(crate) fn server_name(host: &Domain, peer: IpAddr) -> ServerName<'static> {
    ServerName::try_from(host.as_str().to_owned()).unwrap_or_else(|_| ServerName::from(peer))
}
