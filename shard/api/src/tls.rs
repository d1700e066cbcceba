//! What a process shows and trusts in mutual TLS, and how a connection between two of ours is set up.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use futures::{Stream, StreamExt as _};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ClientConfig, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint};

use crate::certificates::{CertificateError, Certificates};
use crate::identity::{IdentityError, NODE_TLS_NAME, Role, role_of};

/// How HTTP/2 is called in a handshake (RFC 9113 section 3.2).
pub const HTTP2: &[u8] = b"h2";

/// How long a TCP and TLS handshake may take, on either side.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A ping goes out when a connection was silent for this long, so that a dead peer is noticed although TCP says nothing.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A ping that is unanswered for this long ends the connection.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// After a connection that could not be accepted: there may be no descriptors left, and it would be tried again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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

/// Files that give no identity.
#[derive(Debug, Error)]
pub enum IdentityFileError {
    /// The authority.
    #[error(transparent)]
    Authority(#[from] TlsFileError),
    /// The certificate, or its key.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// What is in the files cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It is no PEM.
    #[error("{0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// An address that is none.
    #[error("{address:?} is no address: {detail}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong.
        detail: String,
    },
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

/// A certificate with its key, and the authority that both sides trust. What is shown follows the files, from the next connection on; the
/// authority stays as it was at the start.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The authority (or several), in PEM.
    pub ca_pem: Vec<u8>,
    shown: Arc<Certificates>,
}

impl TlsIdentity {
    /// Reads three PEM files. Whether the authority can be used is checked when the first connection is configured.
    ///
    /// # Errors
    /// When one cannot be read, or the certificate and its key do not belong together.
    pub fn load(ca: &Path, cert: &Path, key: &Path) -> Result<Self, IdentityFileError> {
        let ca_pem = std::fs::read(ca).map_err(|source| TlsFileError { path: ca.to_owned(), source })?;
        Ok(Self { ca_pem, shown: Certificates::load(cert, key)? })
    }

    /// Of three texts in PEM, which never change.
    ///
    /// # Errors
    /// When the certificate and its key do not belong together.
    pub fn of_pem(ca_pem: Vec<u8>, cert_pem: Vec<u8>, key_pem: Vec<u8>) -> Result<Self, CertificateError> {
        Ok(Self { ca_pem, shown: Certificates::of_pem(cert_pem, key_pem)? })
    }

    /// The certificate that it shows, to be kept up ([`Certificates::keep_up`]).
    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.shown
    }

    /// The same certificate, for connections with those of another authority.
    pub fn with_authority(&self, ca_pem: Vec<u8>) -> Self {
        Self { ca_pem, shown: Arc::clone(&self.shown) }
    }

    /// For a connection to a storage node that is not gRPC; the verified name is [`NODE_TLS_NAME`].
    ///
    /// # Errors
    /// When what is in the files cannot be used.
    pub fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        Ok(config.with_client_cert_resolver(Arc::clone(&self.shown) as _))
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
            .with_cert_resolver(Arc::clone(&self.shown) as _);
        // A client of rustls would rather have 256 bits.
        config.ignore_client_order = true;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(config)
    }

    /// The role that the certificate names.
    ///
    /// # Errors
    /// When it names none.
    pub fn role(&self) -> Result<Role, IdentityError> {
        role_of(self.shown.shown().end_entity_cert().map_err(|_| IdentityError::NoCertificate)?)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            roots.add(certificate?)?;
        }
        Ok(roots)
    }

    /// How to reach the storage node at `address` (host:port).
    ///
    /// # Errors
    /// When `address` is none, or the certificates cannot be used.
    pub fn endpoint(&self, address: &str) -> Result<Dial, TlsError> {
        self.endpoint_of(address, NODE_TLS_NAME)
    }

    /// How to reach the process at `address` (host:port) whose certificate has `name`.
    ///
    /// # Errors
    /// When `address` is none, or the certificates cannot be used.
    pub fn endpoint_of(&self, address: &str, name: &'static str) -> Result<Dial, TlsError> {
        let mut config = self.client_config()?;
        config.alpn_protocols = vec![HTTP2.to_vec()];
        // TLS is the connector's, which shows what the files hold at each new connection; to tonic it is a plain one.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| TlsError::Address { address: address.to_owned(), detail: format!("{error:?}") })?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Dial { endpoint, address: address.into(), connector, name: ServerName::try_from(name)? })
    }
}

/// A process of ours that gRPC can be spoken with.
#[derive(Clone)]
pub struct Dial {
    endpoint: Endpoint,
    address: Arc<str>,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dial {
    /// Every call ends after so long.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.endpoint = self.endpoint.timeout(limit);
        self
    }

    /// A channel that connects when it is first used, and again whenever its connection has gone.
    pub fn connect_lazy(&self) -> Channel {
        let (address, connector, name) = (Arc::clone(&self.address), self.connector.clone(), self.name.clone());
        self.endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (address, connector, name) = (Arc::clone(&address), connector.clone(), name.clone());
            async move {
                let stream = TcpStream::connect(&*address).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
            }
        }))
    }
}

/// Connections to a listener of ours, each once its handshake is done. So many handshakes at once as `at_once`; one that fails is its
/// client's trouble, and is passed over.
pub fn accept(
    listener: TcpListener,
    config: ServerConfig,
    at_once: usize,
) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let accepted = futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    let shaken = accepted.map(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // An answer takes 40 ms otherwise.
            stream.set_nodelay(true)?;
            tokio::time::timeout(CONNECT_TIMEOUT, acceptor.accept(stream)).await?
        }
    });
    shaken.buffer_unordered(at_once.max(1)).filter(|stream| {
        if let Err(error) = stream {
            tracing::debug!(%error, "a handshake has failed");
        }
        std::future::ready(stream.is_ok())
    })
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the key nor anything derived from it.
        f.write_str("TlsIdentity")
    }
}
