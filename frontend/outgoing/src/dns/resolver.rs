//! A resolver on the network: the system's, or one that is named.
//!
//! Answers are remembered for as long as they live, bounded by [`DNS_ANSWERS_MAX`] and [`DNS_AGE_MAX`].

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Semantic, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use thiserror::Error;

use super::{Answer, Dns, DnsError, Domain, Exchanger, Family, Tlsa};
use crate::limit::{DNS_AGE_MAX, DNS_ANSWERS_MAX};

/// One question to one server.
const QUESTION: Duration = Duration::from_secs(5);
/// How often a question is asked again that was not answered.
const QUESTIONS_AGAIN: usize = 2;
/// Characters of a TXT record that are kept.
const TXT_BYTES_MAX: usize = 8192;

/// Who is asked.
#[derive(Debug, Clone, Default)]
pub struct ResolverSettings {
    /// The server; `None`: those that the system names.
    pub server: Option<SocketAddr>,
    /// What DNSSEC proves.
    pub dnssec: Dnssec,
}

/// Whether signatures of DNSSEC are checked: without it there is no DANE.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Dnssec {
    /// Nothing is proven.
    Off,
    /// Checked here, from the root's keys down.
    #[default]
    Root,
    /// Checked here, from the keys in this file down (lines of DNSKEY records).
    File(PathBuf),
}

/// Why there is no resolver.
#[derive(Debug, Error)]
pub enum ResolverError {
    /// The system names no server.
    #[error("the system's resolver cannot be read: {0}")]
    System(NetError),
    /// The trust anchors are none.
    #[error("trust anchors cannot be read from {path}: {why}")]
    Anchors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It cannot be made.
    #[error("the resolver cannot be made: {0}")]
    Build(NetError),
}

/// A resolver on the network.
pub struct Resolver {
    resolver: TokioResolver,
    validates: bool,
}

impl Resolver {
    /// As the settings say; nothing is asked yet.
    ///
    /// # Errors
    /// When the system names no server, or a file of trust anchors cannot be read.
    pub fn new(settings: &ResolverSettings) -> Result<Self, ResolverError> {
        let mut builder = match settings.server {
            Some(server) => named(server),
            None => TokioResolver::builder_tokio().map_err(ResolverError::System)?,
        };
        let options = builder.options_mut();
        set(options);
        options.validate = settings.dnssec != Dnssec::Off;
        if let Dnssec::File(path) = &settings.dnssec {
            let anchors = TrustAnchors::from_file(path)
                .map_err(|error| ResolverError::Anchors { path: path.clone(), why: error.to_string() })?;
            if anchors.is_empty() {
                return Err(ResolverError::Anchors { path: path.clone(), why: "there is no key in it".to_owned() });
            }
            builder = builder.with_trust_anchor(Arc::new(anchors));
        }
        let resolver = builder.build().map_err(ResolverError::Build)?;
        Ok(Self { resolver, validates: settings.dnssec != Dnssec::Off })
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        // Absolute: no search list of the system is tried.
        let absolute = Name::from_ascii(format!("{name}.")).map_err(|error| failed(name, error))?;
        match self.resolver.lookup(absolute, kind).await {
            Ok(lookup) => self.read(name, kind, &lookup, read),
            Err(error) => none(name, error),
        }
    }

    fn read<T>(
        &self,
        name: &str,
        kind: RecordType,
        lookup: &Lookup,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Answer<T>, DnsError> {
        // Aliases on the way count: the chain is as strong as its weakest link.
        let answers = || lookup.answers().iter().filter(|record| record.record_type() != RecordType::RRSIG);
        let proof = answers().map(|record| record.proof).min().unwrap_or(Proof::Indeterminate);
        // An indeterminate answer of a resolver that validates is one whose signatures could not be had.
        if self.validates && matches!(proof, Proof::Bogus | Proof::Indeterminate) {
            return Err(DnsError::Bogus(name.to_owned()));
        }
        let wanted: Vec<_> = answers().filter(|record| record.record_type() == kind).collect();
        let canonical = wanted.first().and_then(|record| host(&record.name)).filter(|owner| owner.as_str() != name);
        let records: Vec<T> = wanted.iter().filter_map(|record| read(&record.data)).collect();
        // RFC 5321 section 5.1: records that cannot be used are not the same as none.
        if records.is_empty() && !wanted.is_empty() {
            return Err(failed(name, format!("none of its {kind} records can be used")));
        }
        Ok(Answer { records, is_secure: self.validates && proof.is_secure(), exists: true, canonical })
    }
}

fn named(server: SocketAddr) -> ResolverBuilder<TokioRuntimeProvider> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, connections);
    let config = ResolverConfig::from_name_servers(vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn set(options: &mut ResolverOpts) {
    options.timeout = QUESTION;
    options.attempts = QUESTIONS_AGAIN;
    options.cache_size = DNS_ANSWERS_MAX;
    options.positive_max_ttl = Some(DNS_AGE_MAX);
    options.negative_max_ttl = Some(DNS_AGE_MAX);
    options.use_hosts_file = ResolveHosts::Never;
    options.edns0 = true;
    // A record that does not fit into a datagram, or a server that answers in streams only.
    options.try_tcp_on_error = true;
}

fn failed(name: &str, why: impl ToString) -> DnsError {
    DnsError::Failed { name: name.to_owned(), why: why.to_string() }
}

/// What is no record: there is none, or nobody knows.
fn none<T>(name: &str, error: NetError) -> Result<Answer<T>, DnsError> {
    match error {
        NetError::Dns(Semantic::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NoError => Ok(Answer::none(true, false)),
            ResponseCode::NXDomain => Ok(Answer::none(false, false)),
            code => Err(failed(name, format!("it answers {code}"))),
        },
        NetError::Dns(Semantic::Nsec { proof, response, .. }) => match proof {
            Proof::Secure | Proof::Insecure => {
                Ok(Answer::none(response.response_code != ResponseCode::NXDomain, proof.is_secure()))
            }
            Proof::Bogus | Proof::Indeterminate => Err(DnsError::Bogus(name.to_owned())),
        },
        NetError::Dns(Semantic::DnssecBogus) => Err(DnsError::Bogus(name.to_owned())),
        other => Err(failed(name, other)),
    }
}

fn host(name: &Name) -> Option<Domain> {
    name.to_ascii().parse().ok()
}

#[async_trait]
impl Dns for Resolver {
    async fn exchangers(&self, domain: &Domain) -> Result<Answer<Exchanger>, DnsError> {
        self.ask(domain.as_str(), RecordType::MX, |data| match data {
            RData::MX(mx) if mx.exchange.is_root() => Some(Exchanger { preference: mx.preference, host: None }),
            // A name that is no host's cannot be connected to, and is no reason to leave the others.
            RData::MX(mx) => host(&mx.exchange).map(|host| Exchanger { preference: mx.preference, host: Some(host) }),
            _ => None,
        })
        .await
    }

    async fn addresses(&self, host: &Domain, family: Family) -> Result<Answer<IpAddr>, DnsError> {
        let kind = match family {
            Family::V4 => RecordType::A,
            Family::V6 => RecordType::AAAA,
        };
        self.ask(host.as_str(), kind, |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .await
    }

    async fn tlsa(&self, host: &Domain, port: u16) -> Result<Answer<Tlsa>, DnsError> {
        self.ask(&format!("_{port}._tcp.{host}"), RecordType::TLSA, |data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        })
        .await
    }

    async fn txt(&self, name: &str) -> Result<Answer<String>, DnsError> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => {
                let bytes = txt.txt_data.concat();
                Some(String::from_utf8_lossy(&bytes[..bytes.len().min(TXT_BYTES_MAX)]).into_owned())
            }
            _ => None,
        })
        .await
    }
}
