//! A domain that mail is accepted for, and the zone where the mailboxes of all its addresses are.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DomainRecord, Refusal};

use crate::domain::is_canonical;
use crate::key::{Key, name_hash};
use crate::placement::{done, set, zones};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::AddDomain) -> Result<Made, Stop> {
    let domain = &command.domain;
    if !is_canonical(domain) {
        return Err(malformed("domain: lower-case A-labels are wanted"));
    }
    zones::check(turn.rows, "zone", &command.zone)?;
    let key = Key::Domain(name_hash(domain));
    let was = row::get::<DomainRecord>(turn.rows, key)?;
    if let Some(was) = was.as_ref().filter(|was| was.zone != command.zone) {
        // The ids of its users name the zone, and the zone's directory has its addresses; a removed domain may have users still.
        return Err(refuse(Refusal::Conflict, format!("zone: {domain} is in zone {:?}, and stays there", was.zone)));
    }
    // One that was removed comes back as it was.
    let was = was.unwrap_or_default();
    set(turn, key, &DomainRecord { domain: domain.clone(), zone: command.zone.clone(), removed: false, ..was })?;
    Ok(done())
}
