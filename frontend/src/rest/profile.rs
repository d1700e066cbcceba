//! `/v1/profile`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use postrider_api::limit::NAME_BYTES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{answer, query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::account::Accounts;
use crate::rest::extract::{JsonBody, Params};
use crate::rest::intent::{Intents, Repeat};
use crate::rest::limit::SIGNATURE_BYTES_MAX;
use crate::rest::mailboxes::{Caller, Freshness, Mailboxes, Read, wrong_answer};
use crate::rest::openapi::{MinModseq, OwnerProblems, ReadProblems, WriteProblems};
use crate::rest::problem::Problem;
use crate::rest::time::Time;
use crate::rest::view::Id;

/// An account as its owner sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Profile {
    /// The account.
    user_id: Id,
    /// In canonical form.
    address: String,
    /// What others see beside the address.
    name: String,
    /// Below what is written.
    signature: String,
    /// Where the mailbox is at home. Read-only.
    home_region: String,
    /// How much it may hold, bytes. Read-only.
    quota_bytes: u64,
    /// How much it holds, bytes. Read-only.
    used_bytes: u64,
    /// When the account was made.
    created_at: Time,
    /// The mailbox's newest change.
    modseq: u64,
}

impl TryFrom<Read> for Profile {
    type Error = Problem;

    fn try_from(read: Read) -> Result<Self, Problem> {
        let answer::Answer::Account(account) = read.answer else { return Err(wrong_answer()) };
        Ok(Self {
            user_id: Id::of(&account.user_id)?,
            address: account.address,
            name: account.name,
            signature: account.signature,
            home_region: account.home_region,
            quota_bytes: account.quota_bytes,
            used_bytes: account.used_bytes,
            created_at: Time(account.created_ms),
            modseq: account.modseq,
        })
    }
}

/// The query that answers with the caller's account.
pub(crate) fn get_account(caller: &Caller) -> query::Query {
    query::Query::GetAccount(pb::GetAccount { user_id: caller.user.to_bytes() })
}

/// Read the profile.
#[utoipa::path(
    get, path = "/v1/profile", operation_id = "read_profile", tag = "profile", params(MinModseq),
    responses((status = 200, description = "The profile", body = Profile), ReadProblems),
    security(("token" = [])),
)]
pub(crate) async fn read(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    caller: Caller,
    Params(params): Params<MinModseq>,
) -> Result<(Freshness, Json<Profile>), Problem> {
    let read = mailboxes.read(&caller, get_account(&caller), params.get()).await?;
    // What every program asks first.
    accounts.note_use_of_session(&caller.owner());
    Ok((read.freshness, Json(read.try_into()?)))
}

/// What changes of the profile. A field that is absent stays.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"name": "Ada", "signature": "Ada"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfilePatch {
    /// What others see beside the address.
    name: Option<String>,
    /// Below what is written.
    signature: Option<String>,
}

impl ProfilePatch {
    fn check(&self) -> Result<(), Problem> {
        if self.name.is_none() && self.signature.is_none() {
            return Err(Problem::field("name", "nothing is to be changed: give name or signature"));
        }
        let control = |text: &String| text.chars().any(char::is_control);
        if self.name.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX || control(name)) {
            let detail = format!("a name has at most {NAME_BYTES_MAX} bytes and no control characters");
            return Err(Problem::field("name", detail));
        }
        let too_long = |signature: &String| signature.len() > SIGNATURE_BYTES_MAX;
        if self.signature.as_ref().is_some_and(too_long) {
            return Err(Problem::field("signature", format!("a signature has at most {SIGNATURE_BYTES_MAX} bytes")));
        }
        Ok(())
    }
}

/// Change name or signature.
#[utoipa::path(
    patch, path = "/v1/profile", operation_id = "change_profile", tag = "profile", request_body = ProfilePatch,
    responses((status = 200, description = "The profile as it is now", body = Profile), WriteProblems),
    security(("token" = [])),
)]
pub(crate) async fn patch(
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<ProfilePatch>,
) -> Result<Json<Profile>, Problem> {
    body.check()?;
    let intent = intents.of(caller.user, &repeat, &body)?;
    let update = pb::UpdateProfile { user_id: caller.user.to_bytes(), name: body.name, signature: body.signature };
    if let Err(refused) = mailboxes.write(&caller, intent, Op::UpdateProfile(update)).await? {
        return Err(Problem::refused(&refused));
    }
    let profile = mailboxes.read_consistent(&caller, get_account(&caller)).await?;
    Ok(Json(profile.try_into()?))
}

/// Another password.
#[derive(Deserialize, Serialize, ToSchema)]
#[schema(example = json!({"current": "correct horse battery", "new": "staple of another kind"}))]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The password of now.
    current: String,
    /// At least 8 characters, at most 256 bytes.
    new: String,
}

/// Change the password. Every other session ends.
#[utoipa::path(
    post, path = "/v1/profile/password", operation_id = "change_password", tag = "profile", request_body = NewPassword,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key gives the first answer again, for 24 hours")),
    responses((status = 204, description = "The password is changed"), OwnerProblems),
    security(("token" = [])),
)]
pub(crate) async fn change_password(
    State(accounts): State<Arc<Accounts>>,
    State(mailboxes): State<Mailboxes>,
    State(intents): State<Intents>,
    caller: Caller,
    repeat: Repeat,
    JsonBody(body): JsonBody<NewPassword>,
) -> Result<StatusCode, Problem> {
    let intent = intents.of(caller.user, &repeat, &body)?;
    let owner = caller.owner();
    if mailboxes.told(&caller, accounts.has_changed_password(&owner, &intent).await)? {
        return Ok(StatusCode::NO_CONTENT);
    }
    let changed = accounts.change_password(&owner, body.current, body.new, &intent).await;
    mailboxes.told(&caller, changed)?;
    Ok(StatusCode::NO_CONTENT)
}
