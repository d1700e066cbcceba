//! Who the client is where a proxy stands before a listener: the PROXY protocol, version 2
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>).
//!
//! Invariant: a header is read only from networks that the operator named, and there it has to be: neither can anybody else choose
//! his address, nor does a proxy's own address stand for its clients because a header was forgotten.
//! Deliberately absent: version 1, whose end has to be searched for in what strangers write.

pub mod header;

mod linger;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::network::Networks;
use crate::proxy::header::{Header, HeaderError};

pub(crate) use crate::proxy::linger::linger;

/// How long a proxy may take to send its header. The specification asks for at least three seconds, so that one lost packet is sent
/// again in time.
pub const HEADER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Connections that wait for their header at once.
pub const HEADERS_WAITING_MAX: usize = 1024;

/// Proxies that begin each connection with a header. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Proxies {
    networks: Arc<Networks>,
    waiting: Arc<Semaphore>,
    wait_max: Duration,
}

/// A connection that waits for its header; over when it is dropped.
pub(crate) struct Waiting {
    proxies: Proxies,
    _place: OwnedSemaphorePermit,
}

impl Proxies {
    /// In the operator's networks.
    pub(crate) fn new(networks: Networks) -> Self {
        let waiting = Arc::new(Semaphore::new(HEADERS_WAITING_MAX));
        Self { networks: Arc::new(networks), waiting, wait_max: HEADER_WAIT_MAX }
    }

    /// Whether a connection of `peer` begins with a header.
    pub(crate) fn include(&self, peer: IpAddr) -> bool {
        self.networks.contain(peer)
    }

    /// A place to wait for a header in; `None` when too many wait.
    pub(crate) fn wait(&self) -> Option<Waiting> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().ok()?;
        Some(Waiting { proxies: self.clone(), _place: place })
    }
}

impl Waiting {
    /// Reads the header that a connection of `peer` begins with; the client's address. It is the proxy's own where it speaks for
    /// itself (a health check).
    ///
    /// # Errors
    /// When there is none, or one that is wrong: nothing else may be read then.
    pub(crate) async fn client<S: AsyncRead + Unpin>(
        self,
        stream: &mut S,
        peer: IpAddr,
    ) -> Result<IpAddr, HeaderError> {
        let read = tokio::time::timeout(self.proxies.wait_max, header::read(stream)).await;
        let client = match read.unwrap_or(Err(HeaderError::Late)) {
            Ok(Header::Client(address)) => address.ip().to_canonical(),
            Ok(Header::Itself) => peer,
            Err(error) => {
                metrics::counter!("postrider_proxy_headers_refused_total").increment(1);
                tracing::warn!(%peer, %error, "a proxy's connection was refused");
                return Err(error);
            }
        };
        Ok(client)
    }
}
