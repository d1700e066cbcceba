//! `/v1/app-passwords`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use http::header::LOCATION;
use postrider_api::id::AppPasswordId;
use postrider_api::limit::APP_PASSWORD_NAME_BYTES_MAX;
use postrider_api::pb::AppScope;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Accounts;
use crate::account::app_passwords::AppPassword;
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::name;
use crate::rest::openapi::OwnerProblems;
use crate::rest::outgoing::Category;
use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// What an application password may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// Sending mail by SMTP submission.
    Smtp,
    /// Reading mail by IMAP, which is not served yet.
    Imap,
}

impl From<Scope> for AppScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Smtp => Self::SmtpSubmission,
            Scope::Imap => Self::Imap,
        }
    }
}

impl Scope {
    fn of(scope: AppScope) -> Option<Self> {
        match scope {
            AppScope::Unspecified => None,
            AppScope::SmtpSubmission => Some(Self::Smtp),
            AppScope::Imap => Some(Self::Imap),
        }
    }
}

/// An application password in the making.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"name": "Thunderbird at home", "scopes": ["smtp"]}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAppPassword {
    /// What its owner calls it: 1 to 100 bytes, neither `/` nor control characters, no space at either end.
    name: String,
    /// What it may be used for; at least one.
    scopes: Vec<Scope>,
    /// What is sent by it, where no header field says it; what the account sends unless given.
    #[serde(default)]
    category: Category,
}

/// An application password that was just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct MadeAppPassword {
    /// Says which, and opens nothing.
    #[schema(example = "4bc8a3e5d1f20b6c7a9e8d4f5b3c2a10")]
    id: String,
    /// What its owner calls it.
    name: String,
    /// What it may be used for.
    scopes: Vec<Scope>,
    /// When it was made.
    created_at: Time,
    /// For the program, with the account's address. It is shown here and never again.
    #[schema(example = "abcde-fghij-klmno-pqrst-uvwxyz")]
    password: String,
}

/// An application password, without the password.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedAppPassword {
    /// Says which, and opens nothing.
    #[schema(example = "4bc8a3e5d1f20b6c7a9e8d4f5b3c2a10")]
    id: String,
    /// What its owner calls it.
    name: String,
    /// What it may be used for.
    scopes: Vec<Scope>,
    /// What is sent by it, where no header field says it.
    category: Category,
    /// When it was made.
    created_at: Time,
    /// When it was last used, to within an hour; null: never.
    last_used_at: Option<Time>,
}

impl From<AppPassword> for ListedAppPassword {
    fn from(listed: AppPassword) -> Self {
        Self {
            id: hex::encode(listed.id.0),
            name: listed.name,
            scopes: listed.scopes.into_iter().filter_map(Scope::of).collect(),
            category: listed.category.into(),
            created_at: Time(listed.created_ms),
            last_used_at: listed.last_used_ms.map(Time),
        }
    }
}

/// List the application passwords, the newest first.
#[utoipa::path(
    get, path = "/v1/app-passwords", operation_id = "list_app_passwords", tag = "accounts",
    responses((status = 200, description = "All of them, without the passwords", body = Vec<ListedAppPassword>), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
) -> Result<Json<Vec<ListedAppPassword>>, Problem> {
    let all = mailboxes.told(&caller, accounts.app_passwords(&caller.owner()).await)?;
    Ok(Json(all.into_iter().map(ListedAppPassword::from).collect()))
}

/// Make a password for one program. It is shown in this answer and never again.
#[utoipa::path(
    post, path = "/v1/app-passwords", operation_id = "create_app_password", tag = "accounts", request_body = NewAppPassword,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 201, description = "The password works", body = MadeAppPassword), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn create(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<NewAppPassword>,
) -> Result<(StatusCode, [(http::HeaderName, String); 1], Json<MadeAppPassword>), Problem> {
    name::check(&body.name, APP_PASSWORD_NAME_BYTES_MAX)?;
    if body.scopes.is_empty() {
        return Err(Problem::field("scopes", "an application password is for something: name at least one scope"));
    }
    let intent = intents.of(caller.user, &repeat, &body)?;
    let scopes: Vec<AppScope> = body.scopes.iter().copied().map(AppScope::from).collect();
    let category = body.category.into();
    let made = accounts.create_app_password(&caller.owner(), body.name.clone(), &scopes, category, &intent).await;
    let made = mailboxes.told(&caller, made)?;
    let id = hex::encode(made.id.0);
    let location = [(LOCATION, format!("/v1/app-passwords/{id}"))];
    let view = MadeAppPassword {
        id,
        name: body.name,
        scopes: body.scopes,
        created_at: Time(made.created_ms),
        password: made.password,
    };
    Ok((StatusCode::CREATED, location, Json(view)))
}

/// Revoke an application password: nobody logs in with it any more, and what is connected with it sends nothing more.
#[utoipa::path(
    delete, path = "/v1/app-passwords/{app_password_id}", operation_id = "delete_app_password", tag = "accounts",
    params(("app_password_id" = String, Path, description = "The application password's id")),
    responses((status = 204, description = "It works no longer"), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn remove(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    PathId(id): PathId<AppPasswordId>,
) -> Result<StatusCode, Problem> {
    mailboxes.told(&caller, accounts.delete_app_password(&caller.owner(), id).await)?;
    Ok(StatusCode::NO_CONTENT)
}
