//! A zone from its description.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use hickory_proto::rr::rdata::tlsa::{CertUsage, Matching, Selector};
use hickory_proto::rr::rdata::{CAA, MX, NS, SOA, SRV, TLSA};
use hickory_proto::rr::{LowerName, Name, RData, RecordType};

use super::domain::{Domain, MtaSts, mta_sts_id, mta_sts_policy};
use super::tree::{Host, Node, RrSet, Set, Zone};
use super::{own, txt};
use crate::region::{REGIONS_MAX, Region};

/// Of what follows the clients and the health of regions: a region that is gone is forgotten by resolvers as soon.
pub const NEAREST_TTL_S: u32 = 30;
/// Of what changes when an operator says so.
pub const TTL_S: u32 = 300;
/// Of what hardly ever changes: the zone's own SOA and NS.
pub const STABLE_TTL_S: u32 = 3600;
/// Of what is looked for once, and is another text the next time.
pub const CHALLENGE_TTL_S: u32 = 1;
/// How long it is kept that something is not there (RFC 2308 section 5).
pub const NEGATIVE_TTL_S: u32 = 60;

/// Names below the domain whose addresses are the nearest region's.
pub const NEAREST_NAMES: [&str; 6] = ["mail", "mx", "api", "mta-sts", "autoconfig", "autodiscover"];

/// Why there is no zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// Something that has to be a name is none.
    #[error("{field}: {value:?} is no host name")]
    NoName {
        /// Which field.
        field: &'static str,
        /// What was given.
        value: String,
    },
    /// No region that is configured may be named for the domain.
    #[error("regions: none of {regions:?} is configured")]
    NoRegion {
        /// Those that may be.
        regions: Vec<String>,
    },
    /// More regions than a set holds.
    #[error("{count} regions of at most {REGIONS_MAX}")]
    TooManyRegions {
        /// How many.
        count: usize,
    },
    /// The operator's own records cannot be served.
    #[error("own records: {detail}")]
    Own {
        /// What is wrong.
        detail: String,
    },
}

/// An absolute host name of lower-case A-labels.
pub(super) fn name(field: &'static str, value: &str) -> Result<Name, ZoneError> {
    let refused = || ZoneError::NoName { field, value: value.to_owned() };
    let mut name = Name::from_ascii(value).map_err(|_| refused())?.to_lowercase();
    name.set_fqdn(true);
    if name.is_root() { Err(refused()) } else { Ok(name) }
}

impl Zone {
    /// The zone of a domain.
    ///
    /// # Errors
    /// When a name is none, no region may be named, or the operator's own records cannot be served.
    pub fn build(domain: &Domain, regions: &[Region]) -> Result<Self, ZoneError> {
        if regions.len() > REGIONS_MAX {
            return Err(ZoneError::TooManyRegions { count: regions.len() });
        }
        let origin = name("domain", &domain.name)?;
        let allowed: Vec<(usize, &Region)> =
            regions.iter().enumerate().filter(|(_, region)| domain.regions.contains(&region.name)).collect();
        if allowed.is_empty() {
            return Err(ZoneError::NoRegion { regions: domain.regions.clone() });
        }
        let mut builder = Builder { origin: origin.clone(), names: HashMap::new() };
        builder.authority(domain, &allowed)?;
        builder.mail(domain, &allowed)?;
        builder.services(domain)?;
        builder.challenges(domain)?;
        // The name servers of every region answer for the zone; hosts that are named in it need their addresses here.
        for region in regions {
            builder.hosts_of(region)?;
        }
        builder.own(&domain.own)?;
        builder.empty_non_terminals();
        let hosts = regions.iter().map(Host::new).collect::<Result<Vec<_>, _>>()?;
        Ok(Zone::new(origin, builder.names, hosts, allowed.iter().map(|(at, _)| *at).collect()))
    }
}

struct Builder {
    origin: Name,
    names: HashMap<LowerName, Node>,
}

impl Builder {
    fn below(&self, relative: &str) -> Result<Name, ZoneError> {
        name("name", &format!("{relative}.{}", self.origin))
    }

    fn add(&mut self, owner: &Name, set: Set) {
        self.names.entry(LowerName::new(owner)).or_default().put(set);
    }

    fn fixed(&mut self, owner: &Name, rtype: RecordType, ttl: u32, data: Vec<RData>) {
        if !data.is_empty() {
            self.add(owner, Set::Fixed(RrSet { rtype, ttl, data }));
        }
    }

    fn text(&mut self, relative: &str, text: &str) -> Result<(), ZoneError> {
        let owner = self.below(relative)?;
        self.fixed(&owner, RecordType::TXT, TTL_S, vec![txt::record(text)]);
        Ok(())
    }

    fn addresses(&mut self, owner: &Name, addresses: &[IpAddr], ttl: u32) {
        let of = |v4: bool| addresses.iter().filter(move |address| address.is_ipv4() == v4).map(|a| RData::from(*a));
        let (four, six) = (of(true).collect(), of(false).collect());
        self.fixed(owner, RecordType::A, ttl, four);
        self.fixed(owner, RecordType::AAAA, ttl, six);
    }

    /// SOA and NS.
    fn authority(&mut self, domain: &Domain, allowed: &[(usize, &Region)]) -> Result<(), ZoneError> {
        let origin = self.origin.clone();
        let servers =
            allowed.iter().map(|(_, region)| name("ns_host", &region.ns_host)).collect::<Result<Vec<_>, _>>()?;
        let soa = SOA::new(
            servers[0].clone(),
            self.below("hostmaster")?,
            domain.serial,
            // Nobody transfers the zone; these are what RIPE-203 recommends.
            86_400,
            7200,
            3_600_000,
            NEGATIVE_TTL_S,
        );
        self.fixed(&origin, RecordType::SOA, STABLE_TTL_S, vec![RData::SOA(soa)]);
        let servers = servers.into_iter().map(|server| RData::NS(NS(server))).collect();
        self.fixed(&origin, RecordType::NS, STABLE_TTL_S, servers);
        Ok(())
    }

    /// Who takes and sends the domain's mail, and how that is proved.
    fn mail(&mut self, domain: &Domain, allowed: &[(usize, &Region)]) -> Result<(), ZoneError> {
        let origin = self.origin.clone();
        let policy = &domain.policy;
        let regions: Vec<&Region> = allowed.iter().map(|(_, region)| *region).collect();
        self.add(&origin, Set::Mx);
        self.fixed(&origin, RecordType::TXT, TTL_S, vec![txt::record(&txt::spf(policy, &regions))]);
        for key in &domain.dkim {
            self.text(&format!("{}._domainkey", key.selector), &txt::dkim(key))?;
        }
        let mut report_to = policy.report_to.clone();
        if report_to.is_empty() {
            // RFC 5321 section 4.5.1: the one mailbox that every domain has.
            report_to.push(format!("mailto:postmaster@{}", domain.name.trim_end_matches('.')));
        }
        self.text("_dmarc", &txt::dmarc(policy, &report_to))?;
        self.text("_smtp._tls", &txt::tls_reports(&report_to))?;
        if policy.mta_sts != MtaSts::None
            && let Some(file) = mta_sts_policy(policy.mta_sts, regions.iter().map(|region| region.mail_host.as_str()))
        {
            self.text("_mta-sts", &txt::mta_sts(&mta_sts_id(&file)))?;
        }
        let issuers = policy.caa.iter().map(|issuer| issue(issuer)).collect::<Result<Vec<_>, _>>()?;
        self.fixed(&origin, RecordType::CAA, TTL_S, issuers);
        Ok(())
    }

    /// How programs find their servers.
    fn services(&mut self, domain: &Domain) -> Result<(), ZoneError> {
        let policy = &domain.policy;
        for relative in NEAREST_NAMES {
            let owner = self.below(relative)?;
            self.add(&owner, Set::Nearest(RecordType::A));
            self.add(&owner, Set::Nearest(RecordType::AAAA));
        }
        let mail = self.below("mail")?;
        for (service, port) in [
            ("_submissions._tcp", policy.submissions_port),
            ("_submission._tcp", policy.submission_port),
            ("_imaps._tcp", policy.imaps_port),
            // RFC 6186 section 3.4: what is not offered is said.
            ("_imap._tcp", 0),
            ("_pop3s._tcp", 0),
            ("_pop3._tcp", 0),
            ("_jmap._tcp", policy.jmap_port),
            // Where Outlook looks last: the frontends answer it like `autodiscover`'s own host.
            ("_autodiscover._tcp", policy.api_port),
        ] {
            let owner = self.below(service)?;
            let record = match port {
                0 => SRV::new(0, 0, 0, Name::root()),
                port => SRV::new(0, 1, port, mail.clone()),
            };
            self.fixed(&owner, RecordType::SRV, TTL_S, vec![RData::SRV(record)]);
        }
        // Our own programs choose among all regions, and so can go on while one is gone.
        let owner = self.below("_postrider._tcp")?;
        self.add(&owner, Set::Programs { port: policy.api_port });
        Ok(())
    }

    /// What an authority looks for. A host and the wildcard below it have their texts at one name.
    fn challenges(&mut self, domain: &Domain) -> Result<(), ZoneError> {
        let mut texts: BTreeMap<&str, Vec<RData>> = BTreeMap::new();
        for (host, text) in &domain.challenges {
            texts.entry(host).or_default().push(txt::record(text));
        }
        for (host, data) in texts {
            let owner = name("challenges", &format!("_acme-challenge.{host}"))?;
            if self.origin.zone_of(&owner) {
                self.fixed(&owner, RecordType::TXT, CHALLENGE_TTL_S, data);
            }
        }
        Ok(())
    }

    /// The addresses and certificates of a region's hosts that are named in this zone.
    fn hosts_of(&mut self, region: &Region) -> Result<(), ZoneError> {
        let mail = name("mail_host", &region.mail_host)?;
        if self.origin.zone_of(&mail) {
            self.addresses(&mail, &region.addresses, TTL_S);
            // The host sends mail under this name, too (RFC 7208 section 2.3).
            self.fixed(&mail, RecordType::TXT, TTL_S, vec![txt::record("v=spf1 a -all")]);
            let tlsa = region.tlsa.iter().map(|tlsa| {
                RData::TLSA(TLSA::new(
                    CertUsage::from(tlsa.usage),
                    Selector::from(tlsa.selector),
                    Matching::from(tlsa.matching),
                    tlsa.data.clone(),
                ))
            });
            let tlsa = tlsa.collect();
            let owner = name("mail_host", &format!("_25._tcp.{mail}"))?;
            self.fixed(&owner, RecordType::TLSA, TTL_S, tlsa);
        }
        let server = name("ns_host", &region.ns_host)?;
        if self.origin.zone_of(&server) {
            self.addresses(&server, &region.ns_addresses, STABLE_TTL_S);
        }
        Ok(())
    }

    /// The operator's own. A set of a type that is there replaces ours; TXT records stand beside them, but for a second SPF
    /// record, which would spoil both (RFC 7208 section 4.5).
    fn own(&mut self, text: &str) -> Result<(), ZoneError> {
        let sets = own::parse(text, &self.origin)?;
        for set in &sets {
            let node = self.names.entry(set.name.clone()).or_default();
            node.put_own(RrSet { rtype: set.rtype, ttl: set.ttl, data: set.data.clone() });
        }
        for set in &sets {
            let node = &self.names[&set.name];
            if node.has(RecordType::CNAME) && node.types().count() > 1 {
                // RFC 1034 section 3.6.2.
                return Err(ZoneError::Own { detail: format!("{} CNAME: there are other records at it", set.name) });
            }
        }
        Ok(())
    }

    /// Names that have nothing but names below them exist (RFC 8020).
    fn empty_non_terminals(&mut self) {
        let names: Vec<LowerName> = self.names.keys().cloned().collect();
        let origin = LowerName::new(&self.origin);
        for name in names {
            let mut above = name.base_name();
            while origin.zone_of(&above) && above != origin {
                let next = above.base_name();
                self.names.entry(above).or_default();
                above = next;
            }
        }
    }
}

/// An authority that may issue certificates (RFC 8659 section 4.2), with its parameters as it documents them.
fn issue(issuer: &str) -> Result<RData, ZoneError> {
    if issuer.is_empty() || !issuer.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(ZoneError::NoName { field: "caa", value: issuer.to_owned() });
    }
    let mut record = CAA::new_issue(false, None, Vec::new());
    record.value = issuer.as_bytes().to_vec();
    Ok(RData::CAA(record))
}

/// The records of MX in an order of hosts.
pub(super) fn mx(hosts: impl Iterator<Item = Name>) -> Vec<RData> {
    // In tens, so that whoever copies them by hand has room between.
    hosts.zip((10..).step_by(10)).map(|(host, preference)| RData::MX(MX::new(preference, host))).collect()
}
