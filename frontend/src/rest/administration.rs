//! `/v1/admin`: what the administrator of domains sees and changes of what their accounts send.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRef, FromRequestParts, State};
use http::StatusCode;
use http::request::Parts;
use postrider_api::address::{Address, RemoteAddress, canonical_domain};
use postrider_api::id::{ShardId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::account::Accounts;
use crate::account::feedback::FeedbackCursor;
use crate::rest::accounts::problem;
use crate::rest::administrator::Administrator;
use crate::rest::extract::{JsonBody, Params, PathId, PathIds};
use crate::rest::feedback::{
    Behind, Feedback, NewSuppression, SuppressionPage, check_detail, rows, shown, suppression_page,
};
use crate::rest::openapi::AdministrationProblems;
use crate::rest::problem::{Kind, Problem};

/// The request shows the administrator's token.
pub(crate) struct ByAdministrator;

impl<S> FromRequestParts<S> for ByAdministrator
where
    Administrator: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Administrator::from_ref(state).asks(&parts.headers) {
            true => Ok(Self),
            false => Err(Problem::new(Kind::Unauthenticated).detail("this is for who holds the administrator's token")),
        }
    }
}

/// `?domain=&limit=&cursor=`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfDomain {
    /// Whose accounts.
    domain: String,
    /// Lines of a page: 1 to 200, 50 unless given. A page may have fewer, and others follow.
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Something that came back of an account's mail.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountFeedback {
    /// Whose mail it was.
    #[schema(example = "ada@postrider.example")]
    account: String,
    /// What came back.
    #[serde(flatten)]
    feedback: Feedback,
}

/// What came back of a domain's mail.
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainFeedbackPage {
    /// By account, the newest of each first.
    feedback: Vec<AccountFeedback>,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// List what came back of the mail of a domain's accounts.
#[utoipa::path(
    get, path = "/v1/admin/feedback", operation_id = "list_domain_feedback", tag = "administration", params(OfDomain),
    responses((status = 200, description = "Bounces and complaints", body = DomainFeedbackPage), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn feedback(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    Params(of): Params<OfDomain>,
) -> Result<Json<DomainFeedbackPage>, Problem> {
    let limit = rows(of.limit)?;
    let domain = domain(&of.domain)?;
    let from = of.cursor.as_deref().map(|text| opened(text).ok_or_else(|| Problem::new(Kind::InvalidCursor)));
    let found = accounts.feedback_of_domain(&domain, from.transpose()?, limit as usize).await;
    let (lines, next) = found.map_err(problem)?;
    let mut feedback = Vec::with_capacity(lines.len());
    for line in lines {
        if let Some(of_account) = line.feedback.map(shown).transpose()?.flatten() {
            feedback.push(AccountFeedback { account: line.sender, feedback: of_account });
        }
    }
    Ok(Json(DomainFeedbackPage { feedback, next_cursor: next.as_ref().map(sealed) }))
}

/// An administrator may see every page, so a cursor says nothing that it has to keep.
fn sealed(cursor: &FeedbackCursor) -> String {
    match cursor.after {
        None => cursor.shard.0.to_string(),
        Some((user, sequence)) => format!("{}-{}-{sequence}", cursor.shard.0, hex::encode(user.0)),
    }
}

fn opened(text: &str) -> Option<FeedbackCursor> {
    let mut parts = text.split('-');
    let shard = ShardId(parts.next()?.parse().ok()?);
    let after = match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => None,
        (Some(user), Some(sequence), None) => {
            let user = hex::decode(user).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())?;
            Some((UserId(user), sequence.parse().ok()?))
        }
        _ => return None,
    };
    Some(FeedbackCursor { shard, after })
}

fn account(text: &str) -> Result<Address, Problem> {
    Address::parse(text).map_err(|_| Problem::new(Kind::NotFound))
}

/// List to whom an account does not send.
#[utoipa::path(
    get, path = "/v1/admin/accounts/{account}/suppressions", operation_id = "list_account_suppressions", tag = "administration",
    params(("account" = String, Path, description = "The account's address"), Behind),
    responses((status = 200, description = "Addresses that are not sent to", body = SuppressionPage), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn suppressions(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathId(of): PathId<String>,
    Params(behind): Params<Behind>,
) -> Result<Json<SuppressionPage>, Problem> {
    let (limit, after) = (rows(behind.limit)?, behind.after.unwrap_or_default());
    let page = accounts.suppressions_of(&account(&of)?, after, limit).await.map_err(problem)?;
    Ok(Json(suppression_page(page)))
}

/// Have an account send to an address no more.
#[utoipa::path(
    put, path = "/v1/admin/accounts/{account}/suppressions/{address}", operation_id = "suppress_for_account",
    tag = "administration", request_body = NewSuppression,
    params(("account" = String, Path, description = "The account's address"), ("address" = String, Path, description = "Who")),
    responses((status = 204, description = "It is not sent to"), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn suppress(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathIds(of, address): PathIds<String, String>,
    JsonBody(body): JsonBody<NewSuppression>,
) -> Result<StatusCode, Problem> {
    let address =
        RemoteAddress::parse(&address).map_err(|error| Problem::new(Kind::AddressInvalid).detail(error.to_string()))?;
    check_detail(&body)?;
    accounts.suppress(&account(&of)?, &address, body.detail).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let an account send to an address again.
#[utoipa::path(
    delete, path = "/v1/admin/accounts/{account}/suppressions/{address}", operation_id = "unsuppress_for_account",
    tag = "administration",
    params(("account" = String, Path, description = "The account's address"), ("address" = String, Path, description = "Who")),
    responses((status = 204, description = "It may be sent to"), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn unsuppress(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathIds(of, address): PathIds<String, String>,
) -> Result<StatusCode, Problem> {
    accounts.unsuppress(&account(&of)?, address).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// List to whom no account of a domain sends.
#[utoipa::path(
    get, path = "/v1/admin/domains/{domain}/suppressions", operation_id = "list_domain_suppressions", tag = "administration",
    params(("domain" = String, Path, description = "The domain"), Behind),
    responses((status = 200, description = "Addresses that are not sent to", body = SuppressionPage), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn domain_suppressions(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathId(of): PathId<String>,
    Params(behind): Params<Behind>,
) -> Result<Json<SuppressionPage>, Problem> {
    let (limit, after) = (rows(behind.limit)?, behind.after.unwrap_or_default());
    let page = accounts.suppressions_of_domain(&domain(&of)?, after, limit).await.map_err(problem)?;
    Ok(Json(suppression_page(page)))
}

/// Have no account of a domain send to an address any more.
#[utoipa::path(
    put, path = "/v1/admin/domains/{domain}/suppressions/{address}", operation_id = "suppress_for_domain",
    tag = "administration", request_body = NewSuppression,
    params(("domain" = String, Path, description = "The domain"), ("address" = String, Path, description = "Who")),
    responses((status = 204, description = "It is not sent to"), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn suppress_for_domain(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathIds(of, address): PathIds<String, String>,
    JsonBody(body): JsonBody<NewSuppression>,
) -> Result<StatusCode, Problem> {
    let address =
        RemoteAddress::parse(&address).map_err(|error| Problem::new(Kind::AddressInvalid).detail(error.to_string()))?;
    check_detail(&body)?;
    accounts.suppress_for_domain(&domain(&of)?, &address, body.detail).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Let the accounts of a domain send to an address again.
#[utoipa::path(
    delete, path = "/v1/admin/domains/{domain}/suppressions/{address}", operation_id = "unsuppress_for_domain",
    tag = "administration",
    params(("domain" = String, Path, description = "The domain"), ("address" = String, Path, description = "Who")),
    responses((status = 204, description = "It may be sent to"), AdministrationProblems),
    security(("token" = [])),
)]
pub(crate) async fn unsuppress_for_domain(
    _: ByAdministrator,
    State(accounts): State<Arc<Accounts>>,
    PathIds(of, address): PathIds<String, String>,
) -> Result<StatusCode, Problem> {
    accounts.unsuppress_for_domain(&domain(&of)?, address).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT)
}

fn domain(text: &str) -> Result<String, Problem> {
    canonical_domain(text).ok_or_else(|| Problem::new(Kind::DomainOutside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_is_one() {
        for after in [None, Some((UserId([7; 16]), 42))] {
            let cursor = FeedbackCursor { shard: ShardId(1003), after };
            assert_eq!(opened(&sealed(&cursor)), Some(cursor));
        }
        for text in ["", "x", "1003-", "1003-07", "1003-07-1", "1003-07070707070707070707070707070707-1-1", "-1"] {
            assert_eq!(opened(text), None, "{text:?}");
        }
    }
}
