//! Mail for a domain is taken no more. The accounts that have addresses in it stay as they are, and are reached again when the domain
//! is added again.

use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::key::{Key, name_hash};
use crate::placement::{done, remove};
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveDomain) -> Result<Made, Stop> {
    remove(turn, Key::Domain(name_hash(&command.domain)), &command.domain)?;
    Ok(done())
}
