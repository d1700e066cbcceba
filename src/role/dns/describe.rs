//! The domains and regions as the name server describes them: what the shard map says, with what the configuration adds.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use postrider_api::limit::REGION_WEIGHT;
use postrider_api::pb::{self, CertificateProof};
use postrider_dns::region::{REGIONS_MAX, Region, Tlsa};
use postrider_dns::zone::domain::{DkimKey, Domain, Policy};
use postrider_dns::zone::tree::Zone;

use super::config::{DnsRoleConfig, RegionConfig};

/// What the configuration says, with the files that it names.
pub(crate) struct Described {
    pub(crate) regions: Vec<Region>,
    policy: Policy,
    /// By domain: what it says of itself, and the operator's own records.
    domains: BTreeMap<String, (Policy, String)>,
}

impl Described {
    /// Reads and checks.
    ///
    /// # Errors
    /// When a file cannot be read, or a domain that the configuration names could not be served.
    pub(crate) fn load(config: &DnsRoleConfig) -> anyhow::Result<Self> {
        ensure!(!config.regions.is_empty(), "regions: at least one is needed");
        ensure!(config.regions.len() <= REGIONS_MAX, "regions: {} of at most {REGIONS_MAX}", config.regions.len());
        let regions = config.regions.iter().map(region).collect::<anyhow::Result<Vec<_>>>()?;
        let policy = config.policy.over(Policy::default());
        let mut domains = BTreeMap::new();
        for (name, of_domain) in &config.domains {
            let own = match &of_domain.own_records_file {
                Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?,
                None => String::new(),
            };
            domains.insert(name.clone(), (of_domain.policy.over(policy.clone()), own));
        }
        let described = Self { regions, policy, domains };
        // Said before anything listens, whatever zone a domain is in.
        let all: Vec<String> = described.regions.iter().map(|region| region.name.clone()).collect();
        let names = described.domains.keys().map(String::as_str).chain(["check.invalid"]);
        for name in names {
            let domain = described.domain(&pb::Domain { name: name.into(), ..pb::Domain::default() }, all.clone(), 1);
            Zone::build(&domain, &described.regions).with_context(|| format!("domains.{name:?}"))?;
        }
        Ok(described)
    }

    /// The domains of a shard map.
    pub(crate) fn domains(&self, map: &pb::ShardMap) -> Vec<Domain> {
        let regions_of = |zone: &str| -> Vec<String> {
            map.regions.iter().filter(|region| region.zone == zone).map(|region| region.name.clone()).collect()
        };
        // RFC 1982 arithmetic goes on behind the last number.
        let serial = map.version as u32;
        let challenges = challenges(map);
        let of = |domain: &pb::Domain| {
            let below = |host: &str| {
                host.strip_suffix(domain.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            let challenges = challenges.iter().filter(|(host, _)| below(host)).cloned().collect();
            Domain { challenges, ..self.domain(domain, regions_of(&domain.zone), serial) }
        };
        map.domains.iter().map(of).collect()
    }

    /// The regions, with what the public certificates of their mail hosts say in TLSA, from the moment that they are issued: senders are
    /// shown them later.
    pub(crate) fn regions(&self, map: &pb::ShardMap) -> Vec<Region> {
        let issued = map.public_certificates.iter().filter(|certificate| !certificate.chain.is_empty());
        let issued: Vec<_> = issued.collect();
        let mut regions = self.regions.clone();
        for region in &mut regions {
            let is_covered = |certificate: &pb::PublicCertificate| {
                certificate.names.iter().any(|name| match name.strip_prefix("*.") {
                    Some(above) => region.mail_host.split_once('.').is_some_and(|(_, rest)| rest == above),
                    None => *name == region.mail_host,
                })
            };
            for certificate in issued.iter().filter(|certificate| is_covered(certificate)) {
                match Tlsa::of_certificate(&certificate.chain) {
                    Ok(tlsa) if !region.tlsa.contains(&tlsa) => region.tlsa.push(tlsa),
                    Ok(_) => {}
                    Err(error) => tracing::error!(certificate = certificate.name, %error, "TLSA says nothing of it"),
                }
            }
        }
        regions
    }

    /// The weights of the configured regions; one that the map does not have gets its fair share.
    pub(crate) fn weights(&self, map: &pb::ShardMap) -> Vec<u32> {
        let of = |name: &str| map.regions.iter().find(|region| region.name == name).and_then(|region| region.weight);
        self.regions.iter().map(|region| of(&region.name).unwrap_or(REGION_WEIGHT)).collect()
    }

    fn domain(&self, domain: &pb::Domain, regions: Vec<String>, serial: u32) -> Domain {
        let (policy, own) = match self.domains.get(&domain.name) {
            Some((policy, own)) => (policy.clone(), own.clone()),
            None => (self.policy.clone(), String::new()),
        };
        // Retired keys as well: mail that they signed is on its way.
        let dkim = domain.dkim_keys.iter().filter_map(DkimKey::of).collect();
        Domain { name: domain.name.clone(), serial, regions, dkim, policy, challenges: Vec::new(), own }
    }
}

/// What authorities look for by DNS: the host, and the text.
fn challenges(map: &pb::ShardMap) -> Vec<(String, String)> {
    let by_dns = map.public_certificates.iter().filter(|certificate| certificate.proof() == CertificateProof::Dns);
    let challenges = by_dns.flat_map(|certificate| &certificate.challenges);
    challenges.map(|challenge| (challenge.host.clone(), challenge.answer.clone())).collect()
}

fn region(config: &RegionConfig) -> anyhow::Result<Region> {
    let tlsa = config.certificate_files.iter().map(|path| {
        let pem = std::fs::read(path).with_context(|| format!("read the certificate {}", path.display()))?;
        Tlsa::of_certificate(&pem).with_context(|| format!("certificate {}", path.display()))
    });
    let tlsa = tlsa.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!config.addresses.is_empty(), "regions.{}: addresses: at least one is needed", config.name);
    Ok(Region {
        name: config.name.clone(),
        addresses: config.addresses.clone(),
        mail_host: config.mail_host.clone(),
        ns_host: config.ns_host.clone(),
        ns_addresses: config.ns_addresses.clone(),
        outgoing: config.outgoing.clone(),
        tlsa,
    })
}
