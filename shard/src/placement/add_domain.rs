//! A domain that mail is accepted for.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DomainRecord};

use crate::key::{Key, name_hash};
use crate::placement::{done, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

/// RFC 1035 section 2.3.4, without the dot at the end.
const DOMAIN_BYTES_MAX: usize = 253;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::AddDomain) -> Result<Made, Stop> {
    let domain = &command.domain;
    let is_canonical = domain
        .split('.')
        .all(|label| !label.is_empty() && label.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')));
    if domain.len() > DOMAIN_BYTES_MAX || !is_canonical {
        return Err(malformed("domain: lower-case A-labels are wanted"));
    }
    set(turn, Key::Domain(name_hash(domain)), &DomainRecord { domain: domain.clone() })?;
    Ok(done())
}
