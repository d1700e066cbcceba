//! To whom no account of a domain sends any more, asked of the directory: by whoever takes a message for the outside, and once more by whoever
//! sends it.

use std::time::Duration;

use postrider_api::address::slot_of;
use postrider_api::pb::{self, answer, query};
use postrider_router::{ReadMode, RouteError};

use crate::cluster::Cluster;

/// Those of `addresses` that accounts of `domain`, in A-labels, do not send to. None of a domain that is not ours.
///
/// # Errors
/// When the directory does not say.
pub(crate) async fn for_domain(
    cluster: &dyn Cluster,
    domain: &str,
    addresses: Vec<String>,
    limit: Duration,
) -> Result<Vec<pb::SuppressionRecord>, RouteError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let Some(zone) = cluster.zone_of_domain(domain, limit).await? else { return Ok(Vec::new()) };
    let shard = cluster.directory_shard(zone, slot_of(domain)).ok_or(RouteError::UnknownShard)?;
    let ask = query::Query::CheckDomainSuppressed(pb::CheckDomainSuppressed { domain: domain.to_owned(), addresses });
    match cluster.query(shard, None, ask, ReadMode::Consistent, 0, limit).await?.answer.answer {
        Some(answer::Answer::Suppressions(found)) => Ok(found.suppressions),
        _ => Err(RouteError::Malformed { detail: "the directory answered another question".to_owned() }),
    }
}

/// Which of these is an address.
pub(crate) fn of<'s>(suppressed: &'s [pb::SuppressionRecord], address: &str) -> Option<&'s pb::SuppressionRecord> {
    suppressed.iter().find(|known| known.address.to_lowercase() == address.to_lowercase())
}

/// Why it is not sent to, for people.
pub(crate) fn sentence(domain: &str, record: &pb::SuppressionRecord) -> String {
    match record.detail.is_empty() {
        true => format!("{} is suppressed for all accounts of {domain}", record.address),
        false => format!("{} is suppressed for all accounts of {domain} ({})", record.address, record.detail),
    }
}
