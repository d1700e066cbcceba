//! What the world's DNS says: mail exchangers, addresses, TLSA and TXT records, with what DNSSEC proves of them.
//!
//! Invariant: "there is none" is an answer; a server that fails, is silent, or whose answer DNSSEC refutes is an error, and an error
//! is temporary. A bogus answer is never taken for "no such record" (RFC 7672 section 2.1.2, RFC 5321 section 5.1).

mod domain;
mod resolver;
#[cfg(test)]
pub(crate) mod said;

use std::net::IpAddr;

use async_trait::async_trait;
use thiserror::Error;

pub use domain::{Domain, DomainError};
pub use resolver::{Dnssec, Resolver, ResolverError, ResolverSettings};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// What there is; empty where there is no such record.
    pub records: Vec<T>,
    /// Whether DNSSEC proves it, also that there is none.
    pub is_secure: bool,
    /// Whether the name exists at all.
    pub exists: bool,
    /// Where aliases lead to (RFC 7672 section 2.2.2 looks at both ends).
    pub canonical: Option<Domain>,
}

impl<T> Answer<T> {
    /// Records of a name.
    pub fn of(records: Vec<T>, is_secure: bool) -> Self {
        Self { records, is_secure, exists: true, canonical: None }
    }

    /// No such record; `exists` says whether there is such a name.
    pub fn none(exists: bool, is_secure: bool) -> Self {
        Self { records: Vec::new(), is_secure, exists, canonical: None }
    }
}

/// A mail exchanger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchanger {
    /// The lower, the sooner.
    pub preference: u16,
    /// Its name; `None` for the root, which is how a null MX is written (RFC 7505).
    pub host: Option<Domain>,
}

/// A TLSA record (RFC 6698).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Certificate usage.
    pub usage: u8,
    /// What is compared: 0 the certificate, 1 its key.
    pub selector: u8,
    /// How: 0 exactly, 1 by SHA-256, 2 by SHA-512.
    pub matching: u8,
    /// With this.
    pub data: Vec<u8>,
}

/// Why there is no answer now.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum DnsError {
    /// DNSSEC refutes what came.
    #[error("the answer of the DNS for {0} is bogus: its signatures do not hold")]
    Bogus(String),
    /// The server failed or was silent.
    #[error("the DNS does not answer for {name}: {why}")]
    Failed {
        /// What was asked.
        name: String,
        /// What happened.
        why: String,
    },
}

/// Whoever answers. Production asks a resolver, tests say what they need.
#[async_trait]
pub trait Dns: Send + Sync + 'static {
    /// The mail exchangers of a domain.
    async fn exchangers(&self, domain: &Domain) -> Result<Answer<Exchanger>, DnsError>;

    /// The addresses of a host of one family.
    async fn addresses(&self, host: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError>;

    /// The TLSA records of a host's port.
    async fn tlsa(&self, host: &Domain, port: u16) -> Result<Answer<Tlsa>, DnsError>;

    /// The TXT records of a name, each with its pieces put together.
    async fn txt(&self, name: &str) -> Result<Answer<String>, DnsError>;
}

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}
