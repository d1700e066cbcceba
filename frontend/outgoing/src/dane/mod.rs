//! DANE: what a host's TLSA records say of its certificate (RFC 6698, RFC 7672).

use std::sync::Arc;

use ring::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::dns::{Dns, DnsError, Domain, Family, Tlsa};
use crate::limit::TLSA_MAX;

/// Usage 2: the record names an anchor of the chain.
pub const DANE_TA: u8 = 2;
/// Usage 3: the record names the host's own certificate or key.
pub const DANE_EE: u8 = 3;

/// What DANE asks for of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// Nothing: no proven TLSA records.
    Absent,
    /// TLS, with any certificate: there are records, and none that can be used (RFC 7672 section 2.2).
    Unusable,
    /// TLS with a certificate that one of these names.
    Records(Arc<[Tlsa]>),
}

/// Asks for the TLSA records of a host whose name is itself proven.
///
/// # Errors
/// When the DNS does not say: nothing goes to the host then, for whoever can suppress an answer must not win by it (RFC 7672 section 2.1.2).
pub async fn records(dns: &dyn Dns, host: &Domain, port: u16) -> Result<Dane, DnsError> {
    // Where the host's addresses are not proven its TLSA records are not either, and its server may choke on the question
    // (RFC 7672 section 2.2.2).
    let (v4, v6) = futures::join!(dns.addresses(host, Family::V4), dns.addresses(host, Family::V6));
    let is_proven = match (v4, v6) {
        (Ok(v4), Ok(v6)) if v4.records.is_empty() => v6.is_secure,
        (Ok(v4), _) => v4.is_secure,
        (Err(_), Ok(v6)) => v6.is_secure,
        (Err(error), Err(_)) => return Err(error),
    };
    if !is_proven {
        return Ok(Dane::Absent);
    }
    let answer = dns.tlsa(host, port).await?;
    if !answer.is_secure || answer.records.is_empty() {
        return Ok(Dane::Absent);
    }
    let usable: Vec<Tlsa> = answer.records.into_iter().filter(is_usable).take(TLSA_MAX).collect();
    Ok(if usable.is_empty() { Dane::Unusable } else { Dane::Records(usable.into()) })
}

/// RFC 7672 section 3.1.3: usages 0 and 1 are not for SMTP.
fn is_usable(record: &Tlsa) -> bool {
    let length = match record.matching {
        0 => !record.data.is_empty(),
        1 => record.data.len() == digest::SHA256_OUTPUT_LEN,
        2 => record.data.len() == digest::SHA512_OUTPUT_LEN,
        _ => false,
    };
    length && matches!(record.usage, DANE_TA | DANE_EE) && matches!(record.selector, 0 | 1)
}

/// Whether a record names this certificate.
pub(crate) fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let selected = match record.selector {
        0 => &certificate[..],
        1 => match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => parsed.tbs_certificate.subject_pki.raw,
            Err(_) => return false,
        },
        _ => return false,
    };
    match record.matching {
        0 => selected == record.data,
        1 => digest::digest(&digest::SHA256, selected).as_ref() == record.data,
        2 => digest::digest(&digest::SHA512, selected).as_ref() == record.data,
        _ => false,
    }
}

/// The certificate that stands in a record as a whole.
pub(crate) fn whole_certificate(record: &Tlsa) -> Option<CertificateDer<'static>> {
    (record.selector == 0 && record.matching == 0).then(|| CertificateDer::from(record.data.clone()))
}
