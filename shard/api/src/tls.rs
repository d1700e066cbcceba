//! What a process shows and trusts in mutual TLS, and how a connection between two of ours is set up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig};

use crate::identity::{IdentityError, NODE_TLS_NAME, Role, role_of};

/// How long a TCP and TLS handshake may take, on either side.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A ping goes out when a connection was silent for this long, so that a dead peer is noticed although TCP says nothing.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A ping that is unanswered for this long ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// HTTP/2 window of one call, bytes: a command of the largest size goes out without waiting for a window update.
pub const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// HTTP/2 window of one connection, bytes: 100 Mbit/s over 80 ms need 1 MiB; eight times that leaves room for bursts.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A file that could not be read.
#[derive(Debug, Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct TlsFileError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub source: std::io::Error,
}

/// What is in the files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It is no PEM.
    #[error("{0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// A certificate or a key is not fit for TLS.
    #[error("{0}")]
    Unfit(#[from] rustls::Error),
    /// A name by which nobody can be verified.
    #[error("{0}")]
    Name(#[from] rustls::pki_types::InvalidDnsNameError),
    /// The authority is not fit to verify anybody.
    #[error("the authority: {0}")]
    Authority(#[from] rustls::server::VerifierBuilderError),
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// What a listener chooses from, first what it takes if it can: AES with 128 bits, which every TLS 1.3 must have (RFC 8446, section 9.1). A
/// body is encrypted three times on its way, and 256 bits cost four more rounds for each block.
fn listener_provider() -> CryptoProvider {
    let mut provider = provider();
    provider.cipher_suites.sort_by_key(|offered| offered.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A certificate with its key and the authority that both sides trust, all in PEM.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The authority (or several).
    pub ca_pem: Vec<u8>,
    /// The process's certificate, with its chain if there is one.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

impl TlsIdentity {
    /// Reads three PEM files. What is in them is checked when the first connection is configured.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self, TlsFileError> {
        let read = |path: &Path| std::fs::read(path).map_err(|source| TlsFileError { path: path.to_owned(), source });
        Ok(Self { ca_pem: read(ca)?, cert_pem: read(cert)?, key_pem: read(key)? })
    }

    /// For the side that connects to a storage node.
    pub fn client(&self) -> ClientTlsConfig {
        self.client_of(NODE_TLS_NAME)
    }

    fn client_of(&self, name: &str) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .domain_name(name)
    }

    /// For a listener that speaks gRPC with processes of ours and with nobody else.
    pub fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert_pem, &self.key_pem))
            .client_ca_root(Certificate::from_pem(&self.ca_pem))
    }

    /// For a connection to a storage node that is not gRPC; the verified name is [`NODE_TLS_NAME`].
    ///
    /// # Errors
    /// When what is in the files cannot be used.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        Ok(config.with_client_auth_cert(self.chain()?, self.key()?)?)
    }

    /// For a storage node's listener, which speaks one of `protocols` (ALPN) on each connection. One without a certificate of our
    /// authority ends in the handshake.
    ///
    /// # Errors
    /// When what is in the files cannot be used.
    pub fn server_config(&self, protocols: &[&[u8]]) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(listener_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider.clone()).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain()?, self.key()?)?;
        // A client of rustls would rather have 256 bits.
        config.ignore_client_order = true;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// The role that the certificate names.
    ///
    /// # Errors
    /// When it cannot be read, or names none.
    pub fn role(&self) -> Result<Role, IdentityError> {
        let chain = self.chain().map_err(|_| IdentityError::Unreadable)?;
        role_of(chain.first().ok_or(IdentityError::NoCertificate)?)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            roots.add(certificate?)?;
        }
        Ok(roots)
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        Ok(CertificateDer::pem_slice_iter(&self.cert_pem).collect::<Result<_, _>>()?)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        Ok(PrivateKeyDer::from_pem_slice(&self.key_pem)?)
    }

    /// How to reach the storage node at `address` (host:port).
    ///
    /// # Errors
    /// When `address` is none, or the certificates cannot be used.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, tonic::transport::Error> {
        self.endpoint_of(address, NODE_TLS_NAME)
    }

    /// How to reach the process at `address` (host:port) whose certificate has `name`.
    ///
    /// # Errors
    /// When `address` is none, or the certificates cannot be used.
    pub fn endpoint_of(&self, address: &str, name: &str) -> Result<Endpoint, tonic::transport::Error> {
        Ok(Endpoint::from_shared(format!("https://{address}"))?
            .tls_config(self.client_of(name))?
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor anything derived from it.
        f.write_str("TlsIdentity")
    }
}
