//! Which hosts take a destination's mail, and how they are reached.

mod address;
mod connect;
mod hosts;

use std::str::FromStr;

use thiserror::Error;

use crate::dns::{DnsError, Domain, DomainError};
use crate::limit::SMTP_PORT;

pub use address::{AddressPolicy, not_public};
pub use connect::{ConnectError, Reached, connect};
pub use hosts::{Hosts, hosts};

/// A configured way to a destination, or to all: a smart host. Its name is not looked up for mail exchangers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// The host.
    pub host: Domain,
    /// Its port.
    pub port: u16,
}

/// Text that is no `host` or `host:port`.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RouteTextError {
    /// The host is none.
    #[error(transparent)]
    Host(#[from] DomainError),
    /// The port is none.
    #[error("{0:?} is no port")]
    Port(String),
}

impl FromStr for Route {
    type Err = RouteTextError;

    fn from_str(text: &str) -> Result<Self, RouteTextError> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or_else(|| RouteTextError::Port(text.to_owned()))?)
            }
            None => (text, SMTP_PORT),
        };
        Ok(Self { host: host.parse()?, port })
    }
}

/// Why there is no host to go to.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum RouteError {
    /// The destination says that it takes no mail (RFC 7505).
    #[error("{0} accepts no mail: it has a null MX")]
    NullMx(Domain),
    /// There is no such domain.
    #[error("there is no domain {0}")]
    NoSuchDomain(Domain),
    /// It exists, and nothing of it takes mail: no MX, no address.
    #[error("{0} has neither a mail exchanger nor an address")]
    NoHost(Domain),
    /// Nobody knows now.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

impl RouteError {
    /// The enhanced status (RFC 3463, RFC 7505 section 4).
    pub fn code(&self) -> &'static str {
        match self {
            Self::NullMx(_) => "5.1.10",
            Self::NoSuchDomain(_) => "5.1.2",
            Self::NoHost(_) => "5.4.4",
            Self::Dns(DnsError::Bogus(_)) => "4.7.5",
            Self::Dns(DnsError::Failed { .. }) => "4.4.3",
        }
    }

    /// Whether it will be the same tomorrow.
    pub fn is_permanent(&self) -> bool {
        self.code().starts_with('5')
    }
}

#[cfg(test)]
mod tests;
