//! Where a destination's mail goes now, and how strictly.

use std::sync::Arc;

use super::{Fate, Transport};
use crate::dane::{self, Dane};
use crate::dns::{DnsError, Domain};
use crate::mta_sts::{Mode, Policy};
use crate::route::{self, Route, RouteError};
use crate::tls::Security;

/// A host to try.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) name: Domain,
    pub(super) port: u16,
}

/// The hosts of a destination, with what is asked of them.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) hosts: Vec<Target>,
    /// DNSSEC proves that they are the destination's.
    is_secure: bool,
    /// A policy of the destination's that is enforced.
    policy: Option<Arc<Policy>>,
    /// An operator named the host.
    is_configured: bool,
}

impl Transport {
    /// Asks the DNS and the destination's policy.
    pub(super) async fn way(&self, destination: &Domain, route: Option<&Route>) -> Result<Way, Fate> {
        if let Some(route) = route {
            let hosts = vec![Target { name: route.host.clone(), port: route.port }];
            return Ok(Way { hosts, is_secure: false, policy: None, is_configured: true });
        }
        let (found, policy) = futures::join!(route::hosts(&*self.dns, destination), self.policies.of(destination));
        let found = found.map_err(|error| no_way(&error))?;
        let mut names = found.hosts;
        let enforced = policy.filter(|policy| {
            // What is only tested is counted and never stands in the way (RFC 8461 section 5).
            if policy.mode == Mode::Testing && !names.iter().all(|name| policy.allows(name)) {
                metrics::counter!("postrider_outgoing_mta_sts_total", "result" => "testing_mismatch").increment(1);
            }
            policy.mode == Mode::Enforce
        });
        if let Some(policy) = &enforced {
            names.retain(|name| policy.allows(name));
            if names.is_empty() {
                let reply = format!("the MTA-STS policy of {destination} allows none of its mail exchangers");
                return Err(Fate::deferred("4.7.5", reply));
            }
        }
        let port = self.settings.port;
        let hosts = names.into_iter().map(|name| Target { name, port }).collect();
        Ok(Way { hosts, is_secure: found.is_secure, policy: enforced, is_configured: false })
    }

    /// How a host of the way is spoken to.
    pub(super) async fn security(&self, way: &Way, host: &Target, require_tls: bool) -> Result<Security, DnsError> {
        let by_name = way.policy.is_some() || require_tls;
        let dane = match way.is_secure {
            true => dane::records(&*self.dns, &host.name, host.port).await?,
            false => Dane::Absent,
        };
        // RFC 8461 section 2: DANE that is there is not overridden by MTA-STS.
        Ok(match dane {
            Dane::Records(records) => Security::Dane(records),
            Dane::Unusable | Dane::Absent if by_name => Security::Pkix,
            Dane::Unusable => Security::Encrypted,
            Dane::Absent => Security::Opportunistic,
        })
    }
}

impl Way {
    /// Whether somebody who is to be trusted said that the host is the destination's (RFC 8689 section 4.2.1).
    pub(super) fn is_vouched_for(&self) -> bool {
        self.is_secure || self.policy.is_some() || self.is_configured
    }
}

fn no_way(error: &RouteError) -> Fate {
    match error.is_permanent() {
        true => Fate::failed(error.code(), error.to_string()),
        false => Fate::deferred(error.code(), error.to_string()),
    }
}
