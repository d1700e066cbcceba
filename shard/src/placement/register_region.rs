//! A region, new or with other properties.

use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::key::{Key, name_hash};
use crate::placement::{check_host_port, check_name, done, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RegisterRegion) -> Result<Made, Stop> {
    let region = command.region.as_ref().ok_or_else(|| malformed("region: is missing"))?;
    check_name("region.name", &region.name)?;
    check_name("region.zone", &region.zone)?;
    check_host_port("region.store_address", &region.store_address)?;
    set(turn, Key::Region(name_hash(&region.name)), region)?;
    Ok(done())
}
