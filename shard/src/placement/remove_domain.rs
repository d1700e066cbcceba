//! Mail for a domain is taken no more. The accounts that have addresses in it stay as they are, and are reached again when the domain
//! is added again. Its row stays as well, since they are in its zone: another zone would not know them, and give their addresses to
//! others.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, DomainRecord};

use crate::key::{Key, name_hash};
use crate::placement::{changed, done};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveDomain) -> Result<Made, Stop> {
    let key = Key::Domain(name_hash(&command.domain));
    if let Some(record) = row::get::<DomainRecord>(turn.rows, key)?.filter(|record| !record.removed) {
        row::put(turn.rows, key, &DomainRecord { removed: true, ..record });
        changed(turn, key, &command.domain);
    }
    Ok(done())
}
