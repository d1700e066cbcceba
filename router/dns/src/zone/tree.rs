//! What there is at each name of a zone.

use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::rr::rdata::SRV;
use hickory_proto::rr::{LowerName, Name, RData, RecordType};

use super::build::{self, NEAREST_TTL_S, NEGATIVE_TTL_S, ZoneError};
use crate::choice::Choice;
use crate::region::{Region, RegionSet};

/// Records of one type at one name.
#[derive(Debug, Clone, PartialEq)]
pub struct RrSet {
    /// Their type.
    pub rtype: RecordType,
    /// How long they may be kept, in seconds.
    pub ttl: u32,
    /// At least one.
    pub data: Vec<RData>,
}

/// What is stored of a set: the records, or the rule that makes them for whoever asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Set {
    /// The same for all.
    Fixed(RrSet),
    /// A or AAAA of the nearest region that has any.
    Nearest(RecordType),
    /// The mail hosts of all regions, the nearest first.
    Mx,
    /// The regions for our own programs, the nearest first.
    Programs {
        /// The port of their interface.
        port: u16,
    },
}

impl Set {
    pub(crate) fn rtype(&self) -> RecordType {
        match self {
            Set::Fixed(set) => set.rtype,
            Set::Nearest(rtype) => *rtype,
            Set::Mx => RecordType::MX,
            Set::Programs { .. } => RecordType::SRV,
        }
    }
}

/// One name. Without a set it is there for the names below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    sets: Vec<Set>,
}

impl Node {
    /// Adds a set; records of a type that is there come beside the others.
    pub(crate) fn put(&mut self, set: Set) {
        let there = self.sets.iter_mut().find(|there| there.rtype() == set.rtype());
        match (there, set) {
            (Some(Set::Fixed(there)), Set::Fixed(set)) => {
                for data in set.data {
                    if !there.data.contains(&data) {
                        there.data.push(data);
                    }
                }
            }
            (Some(there), set) => *there = set,
            (None, set) => self.sets.push(set),
        }
    }

    /// Adds an operator's set in place of ours, but for TXT.
    pub(crate) fn put_own(&mut self, set: RrSet) {
        let is_spf = |data: &RData| matches!(data, RData::TXT(txt) if txt.txt_data.concat().starts_with(b"v=spf1"));
        if set.rtype != RecordType::TXT {
            self.sets.retain(|there| there.rtype() != set.rtype);
        } else if set.data.iter().any(is_spf) {
            for there in &mut self.sets {
                if let Set::Fixed(there) = there {
                    there.data.retain(|data| !is_spf(data));
                }
            }
        }
        self.put(Set::Fixed(set));
    }

    pub(crate) fn has(&self, rtype: RecordType) -> bool {
        self.sets.iter().any(|set| set.rtype() == rtype)
    }

    pub(crate) fn types(&self) -> impl Iterator<Item = RecordType> {
        self.sets.iter().map(Set::rtype)
    }

    pub(crate) fn set(&self, rtype: RecordType) -> Option<&Set> {
        self.sets.iter().find(|set| set.rtype() == rtype)
    }

    pub(crate) fn sets(&self) -> &[Set] {
        &self.sets
    }
}

/// What answers need of a region.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    mail: Name,
    four: Vec<RData>,
    six: Vec<RData>,
}

impl Host {
    pub(crate) fn new(region: &Region) -> Result<Self, ZoneError> {
        let of = |v4: bool| {
            region
                .addresses
                .iter()
                .filter(|address: &&IpAddr| address.is_ipv4() == v4)
                .map(|a| RData::from(*a))
                .collect()
        };
        Ok(Self { mail: build::name("mail_host", &region.mail_host)?, four: of(true), six: of(false) })
    }

    fn addresses(&self, rtype: RecordType) -> &[RData] {
        if rtype == RecordType::A { &self.four } else { &self.six }
    }
}

/// What a zone has at a name.
#[derive(Debug, PartialEq)]
pub(crate) enum Found<'zone> {
    /// The name is there, by itself or by a wildcard.
    Node(&'zone Node),
    /// The name lies in or below a zone that was given away here.
    Delegation(Name, &'zone Node),
    /// There is no such name.
    Nothing,
}

/// A zone.
#[derive(Debug)]
pub struct Zone {
    origin: Name,
    names: HashMap<LowerName, Node>,
    hosts: Vec<Host>,
    regions: RegionSet,
    has_wildcards: bool,
    has_delegations: bool,
}

impl Zone {
    pub(crate) fn new(origin: Name, names: HashMap<LowerName, Node>, hosts: Vec<Host>, regions: RegionSet) -> Self {
        let apex = LowerName::new(&origin);
        let has_wildcards = names.keys().any(|name| name.is_wildcard());
        let has_delegations = names.iter().any(|(name, node)| *name != apex && node.has(RecordType::NS));
        Self { origin, names, hosts, regions, has_wildcards, has_delegations }
    }

    /// The domain.
    pub fn origin(&self) -> &Name {
        &self.origin
    }

    /// The regions that may be named.
    pub fn regions(&self) -> RegionSet {
        self.regions
    }

    /// The SOA record, with the TTL that it has where something is not there (RFC 2308 section 3).
    pub(crate) fn soa(&self) -> Option<RrSet> {
        let Some(Set::Fixed(soa)) = self.names.get(&LowerName::new(&self.origin))?.set(RecordType::SOA) else {
            return None;
        };
        Some(RrSet { ttl: soa.ttl.min(NEGATIVE_TTL_S), ..soa.clone() })
    }

    /// All names, for printing.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&LowerName, &Node)> {
        self.names.iter()
    }

    /// What is stored at a name, also below a cut.
    pub(crate) fn node(&self, name: &LowerName) -> Option<&Node> {
        self.names.get(name)
    }

    /// What is at a name of this zone.
    pub(crate) fn find(&self, name: &LowerName) -> Found<'_> {
        if self.has_delegations
            && let Some((cut, node)) = self.delegation(name)
        {
            return Found::Delegation(cut, node);
        }
        if let Some(node) = self.names.get(name) {
            return Found::Node(node);
        }
        if self.has_wildcards {
            // RFC 4592 section 3.3.1: the closest name above that is there, and only its wildcard.
            let mut above = name.base_name();
            while !above.is_root() {
                if self.names.contains_key(&above) {
                    let wildcard = Name::from(&above).prepend_label("*").ok();
                    let node = wildcard.and_then(|wildcard| self.names.get(&LowerName::new(&wildcard)));
                    return node.map_or(Found::Nothing, Found::Node);
                }
                above = above.base_name();
            }
        }
        Found::Nothing
    }

    /// The cut nearest to the apex at or above a name.
    fn delegation(&self, name: &LowerName) -> Option<(Name, &Node)> {
        let apex = LowerName::new(&self.origin);
        let mut found = None;
        let mut at = name.clone();
        while at != apex && apex.zone_of(&at) {
            if let Some(node) = self.names.get(&at)
                && node.has(RecordType::NS)
            {
                found = Some((Name::from(&at), node));
            }
            at = at.base_name();
        }
        found
    }

    /// A set as it is for whoever has this choice of regions; `None`: it is empty for it.
    pub(crate) fn records(&self, set: &Set, choice: &Choice) -> Option<RrSet> {
        let nearest = |data: Vec<RData>, rtype| (!data.is_empty()).then_some(RrSet { rtype, ttl: NEAREST_TTL_S, data });
        let hosts = || choice.order.iter().filter_map(|region| self.hosts.get(*region));
        match set {
            Set::Fixed(set) => Some(set.clone()),
            Set::Nearest(rtype) => {
                let addresses = hosts().map(|host| host.addresses(*rtype)).find(|addresses| !addresses.is_empty());
                nearest(addresses.unwrap_or(&[]).to_vec(), *rtype)
            }
            Set::Mx => nearest(build::mx(hosts().map(|host| host.mail.clone())), RecordType::MX),
            Set::Programs { port } => {
                let records = hosts().zip(0..).map(|(host, at)| RData::SRV(SRV::new(at, 1, *port, host.mail.clone())));
                nearest(records.collect(), RecordType::SRV)
            }
        }
    }

    /// Whether who asks matters.
    pub(crate) fn is_tailored(set: &Set) -> bool {
        !matches!(set, Set::Fixed(_))
    }
}
