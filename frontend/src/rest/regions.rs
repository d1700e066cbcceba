//! `/v1/regions` and `/v1/ping`: where else a client could go, and how far that is.
//!
//! Invariant: neither asks a shard. What is listed is the shard map's, as this frontend has it; whoever probes costs an answer without a body.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use http::{HeaderName, HeaderValue, StatusCode};
use postrider_api::limit::REGION_WEIGHT;
use postrider_api::pb;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::cluster::Cluster;
use crate::rest::extract::Params;
use crate::rest::openapi::{OperationProblems, QueryProblems};
use crate::rest::problem::{Kind, Problem};

/// A page of another origin may see what it came from and how long it took: nothing here is anybody's.
const ANY_ORIGIN: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// The regions of the cluster, as clients are told of them.
#[derive(Clone)]
pub(crate) struct Regions {
    cluster: Arc<dyn Cluster>,
    here: String,
}

impl Regions {
    /// Of a frontend in the region `here`.
    pub(crate) fn new(cluster: Arc<dyn Cluster>, here: String) -> Self {
        Self { cluster, here }
    }

    /// Where REST is in the other regions that clients are told of.
    pub(crate) fn elsewhere(&self) -> Vec<String> {
        let regions = listed(&self.cluster.map(), &self.here, None);
        regions.into_iter().filter(|region| !region.here).map(|region| region.url).collect()
    }
}

/// Which regions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RegionsQuery {
    /// Those that may serve addresses of this domain, in A-labels: those of its residency zone. Without it those of all zones.
    domain: Option<String>,
}

/// The regions that take clients.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RegionList {
    regions: Vec<Region>,
}

/// One region.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Region {
    /// Its name.
    name: String,
    /// Its residency zone: mail of one zone is served in that zone alone.
    zone: String,
    /// Where its REST is: an origin, without a path.
    url: String,
    /// Whether it is the one that answers.
    here: bool,
}

/// The regions that take clients, with their URLs. Which of them is near, `GET {url}/v1/ping` tells; whether one serves, too.
#[utoipa::path(
    get, path = "/v1/regions", tag = "regions", params(RegionsQuery),
    responses((status = 200, description = "The regions", body = RegionList), QueryProblems), security(()),
)]
pub(crate) async fn list(
    State(regions): State<Regions>,
    Params(query): Params<RegionsQuery>,
) -> Result<Response, Problem> {
    let map = regions.cluster.map();
    let zone = match &query.domain {
        None => None,
        Some(name) => {
            let domain = map.domains.iter().find(|domain| domain.name.eq_ignore_ascii_case(name));
            Some(
                domain
                    .ok_or_else(|| Problem::new(Kind::NotFound).detail("the domain is not served here"))?
                    .zone
                    .as_str(),
            )
        }
    };
    let regions = listed(&map, &regions.here, zone);
    Ok(([(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN)], Json(RegionList { regions })).into_response())
}

/// Nothing, as fast as can be: its time is the round trip.
#[utoipa::path(
    get, path = "/v1/ping", tag = "regions",
    responses((status = 204, description = "The frontend is there"), OperationProblems), security(()),
)]
pub(crate) async fn ping() -> Response {
    let fields = [(ACCESS_CONTROL_ALLOW_ORIGIN, ANY_ORIGIN), (TIMING_ALLOW_ORIGIN, ANY_ORIGIN)];
    (StatusCode::NO_CONTENT, fields).into_response()
}

/// The regions of a zone, or of all, that clients are told of; one that is drained takes no new ones.
fn listed(map: &pb::ShardMap, here: &str, zone: Option<&str>) -> Vec<Region> {
    let is_listed = |region: &&pb::Region| {
        zone.is_none_or(|zone| region.zone == zone)
            && !region.api_url.is_empty()
            && region.weight.unwrap_or(REGION_WEIGHT) > 0
    };
    let view = |region: &pb::Region| Region {
        name: region.name.clone(),
        zone: region.zone.clone(),
        url: region.api_url.clone(),
        here: region.name == here,
    };
    map.regions.iter().filter(is_listed).map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_drained_or_has_no_url_is_not_listed() {
        let region = |name: &str, zone: &str, url: &str, weight| pb::Region {
            name: name.into(),
            zone: zone.into(),
            api_url: url.into(),
            weight,
            ..pb::Region::default()
        };
        let map = pb::ShardMap {
            regions: vec![
                region("seoul", "world", "https://seoul.example", None),
                region("virginia", "world", "https://virginia.example", Some(50)),
                region("texas", "world", "https://texas.example", Some(0)),
                region("tokyo", "world", "", None),
                region("osaka", "other", "https://osaka.example", None),
            ],
            ..pb::ShardMap::default()
        };
        let names =
            |zone| -> Vec<String> { listed(&map, "seoul", zone).into_iter().map(|region| region.name).collect() };
        assert_eq!(names(Some("world")), ["seoul", "virginia"]);
        assert_eq!(names(None), ["seoul", "virginia", "osaka"]);
        assert!(listed(&map, "virginia", Some("world"))[1].here);
    }
}
