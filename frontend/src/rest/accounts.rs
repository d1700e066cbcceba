//! `/v1/accounts` and `/v1/sessions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::login::{Client, SESSION_MAX};
use crate::account::signup::SignUp;
use crate::account::{AccountError, Accounts, SignUpPolicy};
use crate::rest::administrator::Administrator;
use crate::rest::credentials;
use crate::rest::extract::{JsonBody, Peer, UserAgent};
use crate::rest::intent::{Intents, Repeat, address_scope};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::{AccountProblems, OwnerProblems, WriteProblems};
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;
use crate::rest::view::Id;

/// Who may make accounts.
pub(crate) struct SignUpGate {
    policy: SignUpPolicy,
    administrator: Administrator,
}

/// In what capacity somebody makes an account.
enum Admission {
    Administrator,
    Anybody,
}

impl SignUpGate {
    /// The administrator opens what is closed.
    pub(crate) fn new(policy: SignUpPolicy, administrator: Administrator) -> Self {
        Self { policy, administrator }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<Admission, Problem> {
        match &self.policy {
            _ if self.administrator.asks(headers) => Ok(Admission::Administrator),
            SignUpPolicy::Open => Ok(Admission::Anybody),
            SignUpPolicy::Closed => Err(Problem::new(Kind::SignUpClosed)),
        }
    }
}

/// A new account.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"address": "ada@postrider.example", "password": "correct horse battery", "name": "Ada"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAccount {
    /// In one of the cluster's domains; the case of letters does not matter.
    #[schema(example = "ada@postrider.example")]
    address: String,
    /// At least 8 characters, at most 256 bytes.
    password: String,
    /// What others see beside the address.
    #[serde(default)]
    name: String,
}

/// The account that was made.
#[derive(Serialize, ToSchema)]
pub(crate) struct Account {
    /// The account.
    user_id: Id,
    /// In canonical form.
    address: String,
    /// Where the mailbox is at home.
    region: String,
}

/// Sign up.
#[utoipa::path(
    post, path = "/v1/accounts", tag = "accounts", request_body = NewAccount,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "The account exists", body = Account), AccountProblems),
    security((), ("token" = [])),
)]
pub(crate) async fn sign_up(
    State(accounts): State<Arc<Accounts>>,
    State(gate): State<Arc<SignUpGate>>,
    State(intents): State<Intents>,
    peer: Peer,
    headers: HeaderMap,
    repeat: Repeat,
    JsonBody(body): JsonBody<NewAccount>,
) -> Result<(StatusCode, Json<Account>), Problem> {
    let counted = match gate.admit(&headers)? {
        Admission::Administrator => None,
        Admission::Anybody => Some(peer.0),
    };
    let intent = intents.of(address_scope(&body.address), &repeat, &body)?;
    let sign_up = SignUp { address: body.address, password: body.password, name: body.name };
    // A client who goes away in the middle leaves no half of an account behind.
    let making = tokio::spawn(async move {
        match counted {
            Some(peer) => accounts.sign_up(sign_up, &intent, Some(peer)).await,
            None => accounts.sign_up_by_administrator(sign_up, &intent).await,
        }
    });
    let made = making.await.map_err(|_| Problem::internal("signing up ended early"))?.map_err(problem)?;
    let account = Account { user_id: made.user.into(), address: made.address, region: made.region };
    Ok((StatusCode::CREATED, Json(account)))
}

/// Who logs in.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"address": "ada@postrider.example", "password": "correct horse battery"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// The account's address.
    #[schema(example = "ada@postrider.example")]
    address: String,
    /// Its password.
    password: String,
    /// What an account with a second factor wants beside it: six digits of an authenticator, or a recovery code. Spaces and hyphens do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "123456")]
    code: Option<String>,
    /// Put the token into a cookie instead of the answer: for pages of this origin, whose scripts then never see it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    cookie: bool,
}

/// An open session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    /// For `Authorization: Bearer`; empty where it is in the cookie.
    token: String,
    /// When the session ends by itself.
    expires_at: Time,
    /// The account.
    user_id: Id,
}

/// Whoever logs in, as far as the request says it.
pub(crate) struct Asking {
    client: Client,
    is_own_page: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Peer(peer) = Peer::from_request_parts(parts, state).await?;
        let Ok(UserAgent(user_agent)) = UserAgent::from_request_parts(parts, state).await;
        Ok(Self { client: Client { peer, user_agent }, is_own_page: credentials::is_own_page(parts) })
    }
}

/// Log in. An account with a second factor answers 401 `second_factor_required` to the right password without a `code`, and 403
/// `wrong_code` to one that is wrong or was used.
#[utoipa::path(
    post, path = "/v1/sessions", tag = "accounts", request_body = Credentials,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 200, description = "The session is open", body = Session), AccountProblems),
    security(()),
)]
pub(crate) async fn log_in(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    asking: Asking,
    repeat: Repeat,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<(HeaderMap, Json<Session>), Problem> {
    if body.cookie && !asking.is_own_page {
        return Err(Problem::new(Kind::CrossSite));
    }
    let intent = intents.of(address_scope(&body.address), &repeat, &body)?;
    let opened = accounts.log_in(&body.address, body.password, body.code.as_deref(), &intent, &asking.client).await;
    let session = opened.map_err(problem)?;
    mailboxes.prove(&session.token.hash());
    let mut fields = HeaderMap::new();
    let token = match body.cookie {
        true => {
            fields.insert(SET_COOKIE, credentials::opened(&session.token, SESSION_MAX));
            String::new()
        }
        false => session.token.text(),
    };
    let session = Session { token, expires_at: Time(session.expires_at_ms), user_id: session.user.into() };
    Ok((fields, Json(session)))
}

/// Log out. It needs no Idempotency-Key: a session that is over is over.
#[utoipa::path(
    delete, path = "/v1/sessions/current", tag = "accounts",
    responses((status = 204, description = "The session is over"), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn log_out(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<(StatusCode, HeaderMap), Problem> {
    let ended = accounts.log_out(caller.shard, caller.proof.clone()).await;
    mailboxes.told(&caller, ended)?;
    Ok((StatusCode::NO_CONTENT, without_cookie(&headers)))
}

/// Takes the cookie away whose session is over.
fn without_cookie(asked: &HeaderMap) -> HeaderMap {
    let field = credentials::is_shown(asked).then(|| (SET_COOKIE, credentials::ended()));
    field.into_iter().collect()
}

/// Whose account it is: its password.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"password": "correct horse battery"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct Farewell {
    /// The account's password.
    password: String,
}

/// Delete the account. Its sessions end, mail to its address is turned away, and what it has is removed within minutes; nothing
/// undoes it. Nobody gets the address for 30 days. A repeated request that finds the session gone (401) was carried out.
#[utoipa::path(
    delete, path = "/v1/accounts/current", tag = "accounts", request_body = Farewell,
    responses((status = 204, description = "The account is gone"), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn delete(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Farewell>,
) -> Result<(StatusCode, HeaderMap), Problem> {
    let owner = caller.owner();
    // A client who goes away in the middle leaves no open address behind.
    let deleting = tokio::spawn(async move { accounts.delete(&owner, body.password).await });
    let deleted = deleting.await.map_err(|_| Problem::internal("deleting an account ended early"))?;
    mailboxes.told(&caller, deleted)?;
    Ok((StatusCode::NO_CONTENT, without_cookie(&headers)))
}

pub(crate) fn problem(error: AccountError) -> Problem {
    let kind = match error {
        AccountError::Route(error) => return error.into(),
        AccountError::TooManyAttempts(refused) => return Problem::limited(Kind::TooManyAttempts, &refused),
        AccountError::Unexpected { .. } => {
            tracing::error!(%error, "an account request failed");
            return Problem::new(Kind::Internal);
        }
        AccountError::Name => return Problem::field("name", error.to_string()),
        AccountError::WrongCredentials => return Problem::new(Kind::WrongCredentials),
        AccountError::Address(_) => Kind::AddressInvalid,
        AccountError::DomainOutside { .. } => Kind::DomainOutside,
        AccountError::AddressTaken => Kind::AddressTaken,
        AccountError::Password(_) => Kind::PasswordRule,
        AccountError::Suspended => return Problem::new(Kind::AccountSuspended),
        AccountError::WrongPassword => return Problem::new(Kind::WrongPassword),
        AccountError::SecondFactorWanted => return Problem::new(Kind::SecondFactorRequired),
        AccountError::WrongCode => return Problem::new(Kind::WrongCode),
        AccountError::SecondFactorThere => return Problem::new(Kind::SecondFactorExists),
        AccountError::PasswordChanged => Kind::PasswordChanged,
        AccountError::NoSession
        | AccountError::NoAppPassword
        | AccountError::NoAccount
        | AccountError::NoSecondFactor => {
            return Problem::new(Kind::NotFound);
        }
        AccountError::AppPasswordsTooMany => Kind::AppPasswordsTooMany,
        AccountError::SuppressionsTooMany => Kind::SuppressionsTooMany,
        AccountError::Busy(_) => Kind::Busy,
        AccountError::KeyMismatch => Kind::KeyMismatch,
        AccountError::KeySpent => Kind::KeySpent,
        AccountError::NoShard => Kind::Unavailable,
    };
    Problem::new(kind).detail(error.to_string())
}
