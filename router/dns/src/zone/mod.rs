//! The zones that are served: everything a mail domain needs, made from plain descriptions.
//!
//! [`domain`] describes a domain; [`build`] makes its records, with the operator's own ([`own`]) beside them; [`tree`] finds
//! what there is at a name; [`mod@file`] prints a zone for those who keep their DNS elsewhere.
//!
//! Invariant: a zone is immutable. What changes (who is nearest, what is signed) is decided for each answer.

pub mod build;
pub mod domain;
pub mod file;
mod own;
pub mod tree;
mod txt;

use hickory_proto::rr::{LowerName, Name};
use std::collections::HashMap;
use std::sync::Arc;

use self::build::ZoneError;
use self::domain::Domain;
use self::tree::Zone;
use crate::region::Region;

/// All zones that are served.
#[derive(Debug, Default)]
pub struct Zones {
    by_origin: HashMap<LowerName, Arc<Zone>>,
}

impl Zones {
    /// The zones of these domains. Those that cannot be made are told, and the others are served.
    pub fn build(domains: &[Domain], regions: &[Region]) -> (Self, Vec<(String, ZoneError)>) {
        let mut zones = Self::default();
        let mut refused = Vec::new();
        for domain in domains {
            match Zone::build(domain, regions) {
                Ok(zone) => {
                    zones.by_origin.insert(LowerName::new(zone.origin()), Arc::new(zone));
                }
                Err(error) => refused.push((domain.name.clone(), error)),
            }
        }
        (zones, refused)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_origin.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_origin.is_empty()
    }

    /// The zone that a name is in.
    pub fn find(&self, name: &LowerName) -> Option<&Arc<Zone>> {
        let mut name = name.clone();
        loop {
            if let Some(zone) = self.by_origin.get(&name) {
                return Some(zone);
            }
            if name.is_root() {
                return None;
            }
            name = name.base_name();
        }
    }

    /// The zone around the one that begins at a name: DS records are its parent's (RFC 4035 section 3.1.4.1).
    pub fn find_above(&self, origin: &Name) -> Option<&Arc<Zone>> {
        if origin.is_root() { None } else { self.find(&LowerName::new(&origin.base_name())) }
    }
}
