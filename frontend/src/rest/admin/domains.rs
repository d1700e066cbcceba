//! The domains that mail is accepted for, and what the world sees of each.

use axum::Json;
use postrider_api::address::canonical_domain;
use postrider_api::pb;
use serde::Serialize;
use utoipa::ToSchema;

use crate::operating::CheckedName;
use crate::rest::admin::operator::Operator;
use crate::rest::extract::PathId;
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;

/// A key that mail of a domain is signed with.
#[derive(Serialize, ToSchema)]
pub(crate) struct DkimKeyView {
    selector: String,
    created_at: Time,
    /// Nothing is signed with it since then; null: it is in use.
    retired_at: Option<Time>,
}

/// A domain.
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainView {
    #[schema(example = "postrider.example")]
    domain: String,
    /// Where its mailboxes are.
    zone: String,
    /// What new accounts are held to; empty: to none.
    policy: String,
    dkim_keys: Vec<DkimKeyView>,
}

/// The domains.
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainViews {
    domains: Vec<DomainView>,
}

/// List the domains that mail is accepted for.
#[utoipa::path(
    get, path = "/v1/admin/domains", operation_id = "list_domains", tag = "administration",
    responses((status = 200, description = "The domains", body = DomainViews), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(operator: Operator) -> Json<DomainViews> {
    let key = |key: &pb::DkimKey| DkimKeyView {
        selector: key.selector.clone(),
        created_at: Time(key.created_ms),
        retired_at: (key.retired_ms != 0).then_some(Time(key.retired_ms)),
    };
    let domain = |domain: &pb::Domain| DomainView {
        domain: domain.name.clone(),
        zone: domain.zone.clone(),
        policy: domain.policy.clone(),
        dkim_keys: domain.dkim_keys.iter().map(key).collect(),
    };
    Json(DomainViews { domains: operator.map().domains.iter().map(domain).collect() })
}

/// One name and type.
#[derive(Serialize, ToSchema)]
pub(crate) struct CheckedView {
    #[schema(example = "postrider.example.")]
    name: String,
    #[serde(rename = "type")]
    #[schema(example = "MX")]
    rtype: String,
    #[schema(example = "ok", pattern = "^(ok|missing|differs)$")]
    state: &'static str,
    expected: Vec<String>,
    seen: Vec<String>,
}

impl From<CheckedName> for CheckedView {
    fn from(checked: CheckedName) -> Self {
        let CheckedName { name, rtype, state, expected, seen } = checked;
        Self { name, rtype, state, expected, seen }
    }
}

/// What the world sees of a domain.
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainCheck {
    records: Vec<CheckedView>,
}

/// Compare what the DNS says of a domain with what it should say.
#[utoipa::path(
    get, path = "/v1/admin/domains/{domain}/dns", operation_id = "check_domain", tag = "administration",
    params(("domain" = String, Path, description = "The domain")),
    responses((status = 200, description = "Name by name", body = DomainCheck), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn check(operator: Operator, PathId(of): PathId<String>) -> Result<Json<DomainCheck>, Problem> {
    let domain = canonical_domain(&of).ok_or_else(|| Problem::new(Kind::NotFound))?;
    if !operator.map().domains.iter().any(|known| known.name == domain) {
        return Err(Problem::new(Kind::NotFound));
    }
    let checked = operator.settings.operating.check_domain(&domain).await;
    let checked = checked.map_err(|reason| Problem::new(Kind::Unavailable).detail(reason))?;
    Ok(Json(DomainCheck { records: checked.into_iter().map(CheckedView::from).collect() }))
}
