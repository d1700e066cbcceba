//! An account as operators see it: its state and how much it holds, and nothing that is in it. It can be suspended, and resumed.

use axum::Json;
use http::StatusCode;
use postrider_api::address::Address;
use postrider_api::audit;
use postrider_api::id::{ShardId, UserId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AccountState, answer, outcome, query};
use postrider_router::operate::account_state;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::category::name_of;
use crate::rest::admin::operator::{Act, Operator, Reason, checked};
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::limit::CLUSTER_CALL_MAX;
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;

/// An account.
#[derive(Serialize, ToSchema)]
pub(crate) struct AccountView {
    user_id: String,
    #[schema(example = "bora@postrider.example")]
    address: String,
    /// Where its mailbox is.
    shard: u32,
    #[schema(example = "active", pattern = "^(active|suspended|deleting)$")]
    state: &'static str,
    /// Whether mail for it is taken.
    receives: bool,
    /// Since when it is suspended or being deleted.
    since: Option<Time>,
    /// Why, where it was suspended for what it sends.
    why: String,
    created_at: Time,
    /// What its mail is where nothing else says so.
    category: &'static str,
    messages: u64,
    used_bytes: u64,
    quota_bytes: u64,
    sessions: u32,
}

/// Whose account it is.
struct Account {
    address: Address,
    user: UserId,
    shard: ShardId,
}

impl Account {
    async fn find(operator: &Operator, address: &str) -> Result<Self, Problem> {
        let address = Address::parse(address).map_err(|_| Problem::new(Kind::NotFound))?;
        let found = operator.settings.cluster.look_up(&address, CLUSTER_CALL_MAX).await?;
        let record = found.ok_or_else(|| Problem::new(Kind::NotFound))?;
        let user = UserId::try_from(&record.user_id)
            .map_err(|_| Problem::internal("the directory's record of an address names no user"))?;
        Ok(Self { address, user, shard: ShardId(record.shard) })
    }

    fn act<'a>(&self, action: &'a str, why: &'a str) -> Act<'a> {
        Act { action, targets: vec![audit::user(self.user), audit::address(&self.address)], why }
    }

    async fn change(&self, operator: &Operator, act: Act<'_>, op: Op) -> Result<StatusCode, Problem> {
        match operator.carry_out(act, operator.propose(self.shard, op)).await? {
            outcome::Result::Done(_) => Ok(StatusCode::NO_CONTENT),
            _ => Err(Problem::internal("a shard gave an outcome of another kind")),
        }
    }
}

/// Show an account's state and how much it holds, never what. The look stands in the audit log.
#[utoipa::path(
    get, path = "/v1/admin/accounts/{account}", operation_id = "read_account", tag = "administration",
    params(("account" = String, Path, description = "The account's address")),
    responses((status = 200, description = "The account", body = AccountView), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn read(operator: Operator, PathId(of): PathId<String>) -> Result<Json<AccountView>, Problem> {
    let account = Account::find(&operator, &of).await?;
    let get = query::Query::GetAccount(pb::GetAccount { user_id: account.user.to_bytes() });
    let asked = operator.carry_out(account.act("account.show", ""), operator.ask(account.shard, get)).await?;
    let record = match asked {
        answer::Answer::Account(record) => record,
        answer::Answer::NotFound(_) => return Err(Problem::new(Kind::NotFound)),
        _ => return Err(Problem::internal("a shard gave an answer to another question")),
    };
    Ok(Json(AccountView {
        user_id: account.user.to_string(),
        address: account.address.as_str().to_owned(),
        shard: account.shard.0,
        state: account_state(record.state()),
        receives: record.state() != AccountState::Deleting && !record.refuses_mail,
        since: (record.state_ms > 0).then_some(Time(record.state_ms)),
        created_at: Time(record.created_ms),
        category: name_of(record.category()),
        messages: record.messages,
        used_bytes: record.used_bytes,
        quota_bytes: record.quota_bytes,
        sessions: record.sessions,
        why: record.suspended_why,
    }))
}

/// How an account is suspended, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suspension {
    /// For the audit log: 1 to 500 bytes. Name nobody's address, since it is kept for long.
    why: String,
    /// Whether mail for it is still taken; true unless given. Without, senders are told to try again later.
    #[serde(default = "yes")]
    receive: bool,
}

fn yes() -> bool {
    true
}

/// Suspend an account: nobody logs in, and its sessions open nothing, until it is resumed.
#[utoipa::path(
    post, path = "/v1/admin/accounts/{account}/suspend", operation_id = "suspend_account", tag = "administration",
    params(("account" = String, Path, description = "The account's address")), request_body = Suspension,
    responses((status = 204, description = "It is suspended"), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn suspend(
    operator: Operator,
    PathId(of): PathId<String>,
    JsonBody(suspension): JsonBody<Suspension>,
) -> Result<StatusCode, Problem> {
    let why = checked(suspension.why)?;
    let account = Account::find(&operator, &of).await?;
    let op = pb::SuspendAccount { user_id: account.user.to_bytes(), receive: suspension.receive };
    account.change(&operator, account.act("account.suspend", &why), Op::SuspendAccount(op)).await
}

/// Resume an account: it is as it was before.
#[utoipa::path(
    post, path = "/v1/admin/accounts/{account}/resume", operation_id = "resume_account", tag = "administration",
    params(("account" = String, Path, description = "The account's address")), request_body = Reason,
    responses((status = 204, description = "It is active"), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn resume(
    operator: Operator,
    PathId(of): PathId<String>,
    JsonBody(reason): JsonBody<Reason>,
) -> Result<StatusCode, Problem> {
    let why = reason.checked()?;
    let account = Account::find(&operator, &of).await?;
    let op = pb::ResumeAccount { user_id: account.user.to_bytes() };
    account.change(&operator, account.act("account.resume", &why), Op::ResumeAccount(op)).await
}
