//! The hosts of a destination, in the order in which they are tried (RFC 5321 section 5.1).

use rand::seq::SliceRandom as _;

use super::RouteError;
use crate::dns::{Dns, Domain, Exchanger, Family};
use crate::limit::HOSTS_MAX;

/// Where a destination's mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// In the order in which they are tried; never empty.
    pub hosts: Vec<Domain>,
    /// Whether DNSSEC proves that these are the hosts (RFC 7672 section 2.2: without it there is no DANE).
    pub is_secure: bool,
}

/// Asks for the destination's mail exchangers.
///
/// # Errors
/// When it takes no mail, is not there, or the DNS does not say now.
pub async fn hosts(dns: &dyn Dns, domain: &Domain) -> Result<Hosts, RouteError> {
    let answer = dns.exchangers(domain).await?;
    if answer.records.is_empty() {
        return match answer.exists {
            // A server may say NXDOMAIN to MX and have an address all the same only against RFC 8020.
            false => Err(RouteError::NoSuchDomain(domain.clone())),
            true => implicit(dns, domain, answer.is_secure).await,
        };
    }
    let hosts = ordered(answer.records, &mut rand::rng());
    match hosts.is_empty() {
        // RFC 7505 section 3: a null MX stands alone; beside others it is none.
        true => Err(RouteError::NullMx(domain.clone())),
        false => Ok(Hosts { hosts, is_secure: answer.is_secure }),
    }
}

/// A domain without MX is its own host, if it has an address.
async fn implicit(dns: &dyn Dns, domain: &Domain, is_secure: bool) -> Result<Hosts, RouteError> {
    let (v4, v6) = futures::join!(dns.addresses(domain, Family::V4), dns.addresses(domain, Family::V6));
    // One family that answers is enough; that there is none must be said by both.
    match (v4, v6) {
        (Ok(answer), _) | (_, Ok(answer)) if !answer.records.is_empty() => {
            Ok(Hosts { hosts: vec![domain.clone()], is_secure })
        }
        (Ok(_), Ok(v6)) if !v6.records.is_empty() => Ok(Hosts { hosts: vec![domain.clone()], is_secure }),
        (Ok(_), Ok(_)) => Err(RouteError::NoHost(domain.clone())),
        (Err(error), _) | (_, Err(error)) => Err(error.into()),
    }
}

/// By preference; those of one preference in an order of chance.
fn ordered(mut exchangers: Vec<Exchanger>, chance: &mut impl rand::Rng) -> Vec<Domain> {
    exchangers.shuffle(chance);
    exchangers.sort_by_key(|exchanger| exchanger.preference);
    let mut hosts = Vec::<Domain>::new();
    for host in exchangers.into_iter().filter_map(|exchanger| exchanger.host) {
        if !hosts.contains(&host) && hosts.len() < HOSTS_MAX {
            hosts.push(host);
        }
    }
    hosts
}
