//! A region, new or with other properties.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, Region};

use crate::key::{Key, name_hash};
use crate::placement::{check_host_port, check_name, done, set, update_region, zones};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RegisterRegion) -> Result<Made, Stop> {
    let region = command.region.as_ref().ok_or_else(|| malformed("region: is missing"))?;
    check_name("region.name", &region.name)?;
    check_name("region.zone", &region.zone)?;
    check_host_port("region.store_address", &region.store_address)?;
    update_region::check_api_url("region.api_url", &region.api_url)?;
    let key = Key::Region(name_hash(&region.name));
    let was = row::get::<Region>(turn.rows, key)?;
    if let Some(was) = was.as_ref().filter(|was| was.zone != region.zone) {
        // What is stored there is of its zone.
        let detail = format!("region.zone: region {:?} is in zone {:?}, and stays there", region.name, was.zone);
        return Err(refuse(Refusal::Conflict, detail));
    }
    zones::register(turn, &region.zone)?;
    let Region { api_url, weight, .. } = was.unwrap_or_default();
    let api_url = if region.api_url.is_empty() { api_url } else { region.api_url.clone() };
    set(turn, key, &Region { api_url, weight, ..region.clone() })?;
    Ok(done())
}
