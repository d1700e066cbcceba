//! One connection to a web server, for one request.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::dns::{Dns, Domain};
use crate::limit::{WEB_HEAD_BYTES_MAX, WEB_HEAD_FIELDS_MAX};
use crate::route::{self, AddressPolicy, ConnectError};

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The host was not reached, or may not be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Its certificate is not of its name, or it speaks no TLS.
    #[error("TLS with its host does not work: {0}")]
    Tls(std::io::Error),
    /// It speaks no HTTP.
    #[error("its host speaks no HTTP: {0}")]
    Http(#[from] hyper::Error),
}

/// A connection; over when it is dropped.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
        self.sender.send_request(request).await
    }
}

/// Connects to an address of `host` that the policy allows; with `tls` by HTTPS.
pub(crate) async fn open(
    dns: &dyn Dns,
    tls: Option<Arc<ClientConfig>>,
    (host, port): (&Domain, u16),
    addresses: AddressPolicy,
    patience: Duration,
) -> Result<Connection, OpenError> {
    let stream = route::connect(dns, host, port, addresses, &[], patience).await?.stream;
    match tls {
        Some(config) => {
            let name = ServerName::try_from(host.as_str().to_owned())
                .map_err(|error| OpenError::Tls(std::io::Error::other(error)))?;
            begin(TlsConnector::from(config).connect(name, stream).await.map_err(OpenError::Tls)?).await
        }
        None => begin(stream).await,
    }
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Connection, OpenError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(WEB_HEAD_BYTES_MAX).max_headers(WEB_HEAD_FIELDS_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a web server broke");
        }
    });
    Ok(Connection { sender, driver })
}
