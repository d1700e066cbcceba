//! `/v1/second-factor`: what an account's owner shows beside the password when logging in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Accounts;
use crate::rest::extract::JsonBody;
use crate::rest::intent::{Intents, Repeat};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::OwnerProblems;
use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// How it stands with the account's second factor.
#[derive(Serialize, ToSchema)]
pub(crate) struct SecondFactor {
    /// Whether log-ins want a code.
    enabled: bool,
    /// Since when; null: they do not.
    enabled_at: Option<Time>,
    /// Recovery codes that were not used.
    recovery_codes_left: usize,
}

/// Whose account it is: its password.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"password": "correct horse battery"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnPassword {
    /// The account's password.
    password: String,
}

/// A secret for an authenticator. It counts once a code of it was shown.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewSecondFactor {
    /// To be typed: RFC 4648 section 6, SHA-1, six digits, 30 seconds. It is shown here and never again.
    #[schema(example = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")]
    secret: String,
    /// The same for a QR code.
    #[schema(
        example = "otpauth://totp/Postrider:ada@postrider.example?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Postrider"
    )]
    uri: String,
}

/// A code of the authenticator.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"code": "123456"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstCode {
    /// Six digits.
    code: String,
}

/// The password and what is shown beside it.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"password": "correct horse battery", "code": "123456"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordAndCode {
    /// The account's password.
    password: String,
    /// A code of the authenticator, or a recovery code. Not needed for what was begun and not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

/// Recovery codes: each opens one session instead of a code of the authenticator.
#[derive(Serialize, ToSchema)]
pub(crate) struct RecoveryCodes {
    /// They are shown here and never again.
    #[schema(example = json!(["ABCD-EFGH-IJKL-MNOP"]))]
    recovery_codes: Vec<String>,
}

/// Whether log-ins want a code beside the password.
#[utoipa::path(
    get, path = "/v1/second-factor", operation_id = "read_second_factor", tag = "accounts",
    responses((status = 200, description = "How it stands", body = SecondFactor), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn read(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
) -> Result<Json<SecondFactor>, Problem> {
    let standing = mailboxes.told(&caller, accounts.second_factor(&caller.owner()).await)?;
    Ok(Json(SecondFactor {
        enabled: standing.confirmed_ms.is_some(),
        enabled_at: standing.confirmed_ms.map(Time),
        recovery_codes_left: standing.recovery_codes,
    }))
}

/// Make a secret for an authenticator. Log-ins want no code until one was shown to `POST /v1/second-factor/confirm`.
#[utoipa::path(
    post, path = "/v1/second-factor", operation_id = "begin_second_factor", tag = "accounts", request_body = OwnPassword,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "The secret", body = NewSecondFactor), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn begin(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<OwnPassword>,
) -> Result<(StatusCode, Json<NewSecondFactor>), Problem> {
    let intent = intents.of(caller.user, &repeat, &body)?;
    let begun = accounts.begin_second_factor(&caller.owner(), body.password, &intent).await;
    let begun = mailboxes.told(&caller, begun)?;
    let view = NewSecondFactor { secret: begun.secret.text(), uri: begun.secret.uri(&begun.address) };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Show the first code: from the answer on log-ins want one. The answer has the recovery codes.
#[utoipa::path(
    post, path = "/v1/second-factor/confirm", operation_id = "confirm_second_factor", tag = "accounts", request_body = FirstCode,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, while the code is taken")),
    responses((status = 200, description = "Log-ins want a code", body = RecoveryCodes), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn confirm(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<FirstCode>,
) -> Result<Json<RecoveryCodes>, Problem> {
    let intent = intents.of(caller.user, &repeat, &body)?;
    let confirmed = accounts.confirm_second_factor(&caller.owner(), &body.code, &intent).await;
    Ok(Json(RecoveryCodes { recovery_codes: mailboxes.told(&caller, confirmed)? }))
}

/// Make other recovery codes; those of before are good for nothing.
#[utoipa::path(
    post, path = "/v1/second-factor/recovery-codes", operation_id = "replace_recovery_codes", tag = "accounts", request_body = PasswordAndCode,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, while the code is taken")),
    responses((status = 200, description = "The codes", body = RecoveryCodes), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn replace(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<PasswordAndCode>,
) -> Result<Json<RecoveryCodes>, Problem> {
    let intent = intents.of(caller.user, &repeat, &body)?;
    let code = body.code.as_deref();
    let replaced = accounts.replace_recovery_codes(&caller.owner(), body.password, code, &intent).await;
    Ok(Json(RecoveryCodes { recovery_codes: mailboxes.told(&caller, replaced)? }))
}

/// Have log-ins want a password alone again. It needs no Idempotency-Key: where there is none the answer is 404.
#[utoipa::path(
    delete, path = "/v1/second-factor", operation_id = "remove_second_factor", tag = "accounts", request_body = PasswordAndCode,
    responses((status = 204, description = "Log-ins want no code"), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    JsonBody(body): JsonBody<PasswordAndCode>,
) -> Result<StatusCode, Problem> {
    let removed = accounts.remove_second_factor(&caller.owner(), body.password, body.code.as_deref()).await;
    mailboxes.told(&caller, removed)?;
    Ok(StatusCode::NO_CONTENT)
}
