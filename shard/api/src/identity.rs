//! Who calls: each process holds a certificate that names its role, and every gRPC method checks it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use thiserror::Error;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// What a process is for. Its certificate carries it as the URI `postrider://role/NAME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A storage node.
    Node,
    /// A frontend (and the worker in it).
    Frontend,
    /// A worker of its own.
    Worker,
    /// A name server.
    Dns,
    /// An operator.
    Ctl,
}

impl Role {
    /// Its name in certificates and messages.
    pub fn name(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Frontend => "frontend",
            Role::Worker => "worker",
            Role::Dns => "dns",
            Role::Ctl => "ctl",
        }
    }

    /// The URI of the certificate's subject alternative name.
    pub fn uri(self) -> String {
        format!("{URI_PREFIX}{}", self.name())
    }

    /// The role of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Role::Node, Role::Frontend, Role::Worker, Role::Dns, Role::Ctl].into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Characters of a certificate's name that are told.
const NAME_CHARS_MAX: usize = 64;
const URI_PREFIX: &str = "postrider://role/";
/// The DNS name in every storage node's certificate: clients reach nodes by changing addresses, and verify this name.
pub const NODE_TLS_NAME: &str = "node.postrider.internal";
/// The DNS name in every name server's certificate, by which those verify it who tell it of round trips.
pub const DNS_TLS_NAME: &str = "dns.postrider.internal";

/// Why a caller has no role.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum IdentityError {
    /// The connection came without a certificate.
    #[error("no client certificate")]
    NoCertificate,
    /// The certificate cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// The certificate names no role, an unknown one, or several.
    #[error("the client certificate names no single role")]
    NoRole,
}

/// The role in a certificate that the TLS layer has verified (DER).
///
/// # Errors
/// When it names none.
pub fn role_of(certificate: &[u8]) -> Result<Role, IdentityError> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| IdentityError::Unreadable)?;
    let mut found = None;
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
        for name in &names.general_names {
            let GeneralName::URI(uri) = name else { continue };
            let Some(name) = uri.strip_prefix(URI_PREFIX) else { continue };
            let role = Role::from_name(name).ok_or(IdentityError::NoRole)?;
            if found.replace(role).is_some() {
                return Err(IdentityError::NoRole);
            }
        }
    }
    found.ok_or(IdentityError::NoRole)
}

/// What a certificate says of its holder, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its common name.
    pub common_name: String,
    /// Its role; `None`: a host that clients from outside see.
    pub role: Option<Role>,
    /// Its DNS names.
    pub hosts: Vec<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// From when on it is good, seconds since the Unix epoch.
    pub begins_s: i64,
    /// When it expires, seconds since the Unix epoch.
    pub expires_s: i64,
}

impl Holder {
    /// Of a certificate (DER), verified or not.
    ///
    /// # Errors
    /// When it cannot be read, or names a role that there is not.
    pub fn of(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        let role = match role_of(der) {
            Ok(role) => Some(role),
            Err(IdentityError::NoRole) if !text_names(&certificate).any(|name| name.starts_with(URI_PREFIX)) => None,
            Err(error) => return Err(error),
        };
        let mut holder = Self {
            common_name: common_name(der),
            role,
            hosts: Vec::new(),
            addresses: Vec::new(),
            begins_s: certificate.validity().not_before.timestamp(),
            expires_s: certificate.validity().not_after.timestamp(),
        };
        for extension in certificate.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(host) => holder.hosts.push((*host).to_owned()),
                    GeneralName::IPAddress(bytes) => holder.addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        Ok(holder)
    }
}

/// The URIs of a certificate.
fn text_names<'c>(certificate: &'c X509Certificate<'_>) -> impl Iterator<Item = &'c str> {
    certificate
        .extensions()
        .iter()
        .flat_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => names.general_names.as_slice(),
            _ => &[],
        })
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The common name in a certificate (DER), without what could not be written on one line.
fn common_name(certificate: &[u8]) -> String {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return String::new() };
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.unwrap_or_default().chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect()
}

/// Who has made a connection: found out once, when its handshake is done, and put with every request that comes on it.
#[derive(Debug, Clone)]
pub struct Caller {
    role: Result<Role, IdentityError>,
    /// The common name in the certificate; empty where there is none.
    name: Arc<str>,
}

impl Caller {
    /// From the certificates that the TLS layer has verified, its own first (DER).
    pub fn of<C: AsRef<[u8]>>(certificates: Option<&[C]>) -> Self {
        let certificate = certificates.and_then(<[C]>::first).ok_or(IdentityError::NoCertificate);
        let name = certificate.map_or_else(|_| "".into(), |certificate| common_name(certificate.as_ref()).into());
        Self { role: certificate.and_then(|certificate| role_of(certificate.as_ref())), name }
    }

    /// Role and common name, as the audit log tells them.
    fn described(&self) -> String {
        let role = self.role.map_or("nobody", Role::name);
        if self.name.is_empty() { role.to_owned() } else { format!("{role} {}", self.name) }
    }

    /// Refuses whoever has none of the roles.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` without a role, `PERMISSION_DENIED` with another one.
    #[allow(clippy::result_large_err)] // tonic's own error type; every caller returns it as it is
    pub fn require(&self, allowed: &[Role]) -> Result<Role, tonic::Status> {
        let role = self.role.map_err(|error| tonic::Status::unauthenticated(error.to_string()))?;
        if allowed.contains(&role) {
            Ok(role)
        } else {
            Err(tonic::Status::permission_denied(format!("a {role} may not call this")))
        }
    }
}

/// Refuses whoever has none of the roles, by the [`Caller`] of the connection.
///
/// # Errors
/// `UNAUTHENTICATED` without a role, `PERMISSION_DENIED` with another one.
#[allow(clippy::result_large_err)] // tonic's own error type; every caller returns it as it is
pub fn require<T>(request: &tonic::Request<T>, allowed: &[Role]) -> Result<Role, tonic::Status> {
    match request.extensions().get::<Caller>() {
        Some(caller) => caller.require(allowed),
        None => Caller::of::<&[u8]>(None).require(allowed),
    }
}

/// Role and common name of the certificate that a request comes under.
pub fn certificate_of<T>(request: &tonic::Request<T>) -> String {
    request.extensions().get::<Caller>().map_or_else(|| "nobody".to_owned(), Caller::described)
}
