//! `/v1/sessions` as their owner sees them. Opening one and ending the current one are in [`accounts`](super::accounts).

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use postrider_api::id::RequestId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::account::Accounts;
use crate::account::sessions::Listed;
use crate::rest::extract::PathId;
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::OwnerProblems;
use crate::rest::problem::Problem;
use crate::rest::time::Time;

/// An open session.
#[derive(Serialize, ToSchema)]
pub(crate) struct OpenSession {
    /// Says which, and opens nothing.
    #[schema(example = "4bc8a3e5d1f20b6c7a9e8d4f5b3c2a10")]
    id: String,
    /// When it was opened.
    created_at: Time,
    /// When it ends by itself.
    expires_at: Time,
    /// Where it was opened from.
    #[schema(value_type = Option<String>, example = "192.0.2.7")]
    address: Option<IpAddr>,
    /// What the program that opened it called itself.
    user_agent: String,
    /// When it was last used, to within an hour; null: not since the hour in which it was opened.
    last_used_at: Option<Time>,
    /// Whether this request came under it.
    current: bool,
}

impl From<Listed> for OpenSession {
    fn from(listed: Listed) -> Self {
        Self {
            id: hex::encode(listed.id),
            created_at: Time(listed.created_ms),
            expires_at: Time(listed.expires_at_ms),
            address: listed.peer,
            user_agent: listed.user_agent,
            last_used_at: listed.last_used_ms.map(Time),
            current: listed.is_current,
        }
    }
}

/// List the open sessions, the newest first.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "list_sessions", tag = "accounts",
    responses((status = 200, description = "The sessions", body = Vec<OpenSession>), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
) -> Result<Json<Vec<OpenSession>>, Problem> {
    let sessions = mailboxes.told(&caller, accounts.sessions(&caller.owner()).await)?;
    Ok(Json(sessions.into_iter().map(OpenSession::from).collect()))
}

/// End a session.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", operation_id = "end_session", tag = "accounts",
    params(("id" = String, Path, description = "The session's id")),
    responses((status = 204, description = "The session is over"), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn end(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    PathId(id): PathId<SessionId>,
) -> Result<StatusCode, Problem> {
    mailboxes.told(&caller, accounts.end_session(&caller.owner(), id.0).await)?;
    Ok(StatusCode::NO_CONTENT)
}

/// A session's id in a path: 32 lower-case hexadecimal digits, as other ids of 16 bytes.
pub(crate) struct SessionId([u8; 16]);

impl std::str::FromStr for SessionId {
    type Err = postrider_api::id::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<RequestId>().map(|id| Self(id.0))
    }
}
