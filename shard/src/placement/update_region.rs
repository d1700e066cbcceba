//! What clients are told of a region: where it is, and how much of what is near to it shall come there.

use postrider_api::limit::REGION_WEIGHT_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Region};

use crate::key::{Key, name_hash};
use crate::placement::{HOST_PORT_BYTES_MAX, done, region, set};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UpdateRegion) -> Result<Made, Stop> {
    let was = region(turn.rows, "region", &command.region)?;
    if let Some(url) = &command.api_url {
        check_api_url("api_url", url)?;
    }
    if command.weight.is_some_and(|weight| weight > REGION_WEIGHT_MAX) {
        return Err(malformed(format!("weight: at most {REGION_WEIGHT_MAX}")));
    }
    let api_url = command.api_url.clone().unwrap_or_else(|| was.api_url.clone());
    let weight = command.weight.or(was.weight);
    set(turn, Key::Region(name_hash(&command.region)), &Region { api_url, weight, ..was })?;
    Ok(done())
}

/// An origin, as RFC 6454 section 6.2 writes it: a path would be doubled by whoever appends his own. Empty: there is none.
pub(super) fn check_api_url(field: &str, url: &str) -> Result<(), Stop> {
    if url.is_empty() {
        return Ok(());
    }
    let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let is_plain = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte));
    if authority.is_empty() || authority.len() > HOST_PORT_BYTES_MAX || !is_plain {
        return Err(malformed(format!("{field}: https://HOST or https://HOST:PORT is wanted, without a path")));
    }
    Ok(())
}
