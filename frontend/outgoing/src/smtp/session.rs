//! A session with one host, from its greeting to where mail may be sent.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::connection::{Connection, Stream};
use super::extensions::Extensions;
use super::reply::Reply;
use super::{Step, Trouble};
use crate::limit::Timeouts;

/// How a session begins.
pub(crate) struct Opening<'a> {
    /// Our own name.
    pub(crate) helo: &'a str,
    /// How TLS is spoken; `None`: not at all.
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// Whether there is no session without TLS.
    pub(crate) tls_required: bool,
    /// How long each step may take.
    pub(crate) timeouts: &'a Timeouts,
    /// When the whole attempt is over.
    pub(crate) deadline: Instant,
}

/// Why there is no session.
#[derive(Debug, Error)]
pub(crate) enum OpenError {
    /// The peer does not want one.
    #[error("{1}")]
    Said(Step, Reply),
    /// The connection failed.
    #[error(transparent)]
    Trouble(#[from] Trouble),
    /// It was to be encrypted, and is not offered.
    #[error("TLS is required, and the peer does not offer it")]
    NoTls,
    /// The handshake failed, or the peer did not go along with STARTTLS.
    #[error("TLS does not work: {0}")]
    Tls(String),
}

/// A session in which mail may be sent.
pub(crate) struct Session {
    pub(super) connection: Connection,
    pub(super) extensions: Extensions,
    pub(super) timeouts: Timeouts,
    is_encrypted: bool,
    /// Transactions that were begun.
    pub(super) transactions: u32,
    /// A transaction was begun and not ended: RSET before the next.
    pub(super) is_dirty: bool,
}

impl Session {
    /// Greets, and encrypts.
    pub(crate) async fn open(stream: Box<dyn Stream>, opening: Opening<'_>) -> Result<Self, OpenError> {
        let Opening { helo, tls, tls_required, timeouts, deadline } = opening;
        let mut connection = Connection::new(stream, deadline);
        let greeting = connection.read(Step::Greeting, timeouts.greeting).await?;
        if !greeting.is_positive() {
            return Err(OpenError::Said(Step::Greeting, greeting));
        }
        let mut extensions = hello(&mut connection, helo, timeouts).await?;
        let mut is_encrypted = false;
        match tls {
            Some((config, name)) if extensions.starttls => {
                connection = starttls(connection, config, name, timeouts, deadline).await?;
                // RFC 3207 section 4.2: what was said before is forgotten.
                extensions = hello(&mut connection, helo, timeouts).await?;
                is_encrypted = true;
            }
            _ if tls_required => return Err(OpenError::NoTls),
            _ => {}
        }
        let timeouts = timeouts.clone();
        Ok(Self { connection, extensions, timeouts, is_encrypted, transactions: 0, is_dirty: false })
    }

    /// What the peer offers.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The peer was seen not to keep to what it offers: commands go one by one.
    pub(crate) fn without_pipelining(&mut self) {
        self.extensions.pipelining = false;
        self.extensions.chunking = false;
    }

    /// Whether what is said is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Transactions so far.
    pub(crate) fn transactions(&self) -> u32 {
        self.transactions
    }

    /// Another attempt uses it.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.connection.set_deadline(deadline);
    }

    /// Says goodbye; what comes of it is nothing to us.
    pub(crate) async fn quit(mut self) {
        let limit = self.timeouts.quit;
        self.connection.set_deadline(Instant::now() + limit);
        self.connection.ask(Step::Reset, "QUIT\r\n", limit).await.ok();
    }
}

/// EHLO, and HELO where that is not known (RFC 5321 section 3.2).
async fn hello(connection: &mut Connection, helo: &str, timeouts: &Timeouts) -> Result<Extensions, OpenError> {
    let reply = connection.ask(Step::Hello, &format!("EHLO {helo}\r\n"), timeouts.hello).await?;
    if reply.is_positive() {
        return Ok(Extensions::of(&reply));
    }
    if !reply.is_permanent() {
        return Err(OpenError::Said(Step::Hello, reply));
    }
    let reply = connection.ask(Step::Hello, &format!("HELO {helo}\r\n"), timeouts.hello).await?;
    match reply.is_positive() {
        true => Ok(Extensions::default()),
        false => Err(OpenError::Said(Step::Hello, reply)),
    }
}

async fn starttls(
    mut connection: Connection,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    timeouts: &Timeouts,
    deadline: Instant,
) -> Result<Connection, OpenError> {
    let tls = |error: Trouble| OpenError::Tls(error.to_string());
    let reply = connection.ask(Step::StartTls, "STARTTLS\r\n", timeouts.hello).await.map_err(tls)?;
    if !reply.is_positive() {
        return Err(OpenError::Tls(reply.to_string()));
    }
    let stream = connection.into_stream(Step::StartTls).map_err(tls)?;
    let until = deadline.min(Instant::now() + timeouts.hello);
    let handshake = TlsConnector::from(config).connect(name, stream);
    match timeout_at(until, handshake).await {
        Ok(Ok(stream)) => Ok(Connection::new(Box::new(stream), deadline)),
        Ok(Err(error)) => Err(OpenError::Tls(error.to_string())),
        Err(_) => Err(OpenError::Tls("the handshake is not over in time".to_owned())),
    }
}
