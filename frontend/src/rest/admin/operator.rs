//! Who operates: an account that the frontend's configuration names, or whoever holds the administrator's token; and the operator's
//! certificate, under which all of it goes out.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRef, FromRequestParts};
use bytes::Bytes;
use http::request::Parts;
use postrider_api::env::{self, Entropy};
use postrider_api::id::{RequestId, ShardId};
use postrider_api::limit::QUEUE_REMARK_BYTES_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{Refusal, answer, outcome, query};
use postrider_router::{ReadMode, operate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::operating::OperatorSettings;
use crate::rest::administrator::Administrator;
use crate::rest::credentials::Effect;
use crate::rest::limit::CLUSTER_CALL_MAX;
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};

/// Who holds the administrator's token is not known more closely.
const ADMINISTRATOR: &str = "administrator";

/// Longest reason, bytes: it is kept with what becomes of mail as well.
const WHY_BYTES_MAX: usize = QUEUE_REMARK_BYTES_MAX;

/// What operators work with at this frontend; nothing where it was given no certificate.
#[derive(Clone)]
pub(crate) struct Operators {
    settings: Option<Arc<OperatorSettings>>,
    entropy: Arc<dyn Entropy>,
}

impl Operators {
    pub(crate) fn new(settings: Option<OperatorSettings>, entropy: Arc<dyn Entropy>) -> Self {
        Self { settings: settings.map(Arc::new), entropy }
    }
}

/// An operator.
pub(crate) struct Operator {
    /// As the audit log names it.
    name: String,
    pub(crate) settings: Arc<OperatorSettings>,
    entropy: Arc<dyn Entropy>,
}

impl<S> FromRequestParts<S> for Operator
where
    Administrator: FromRef<S>,
    Mailboxes: FromRef<S>,
    Operators: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Operators { settings, entropy } = Operators::from_ref(state);
        let elsewhere = || Problem::new(Kind::NotOperator).detail("this frontend has no operator's certificate");
        if Administrator::from_ref(state).asks(&parts.headers) {
            let settings = settings.ok_or_else(elsewhere)?;
            return Ok(Self { name: ADMINISTRATOR.to_owned(), settings, entropy });
        }
        let caller = Caller::from_request_parts(parts, state).await?;
        let mailboxes = Mailboxes::from_ref(state);
        let ask = query::Query::GetAccount(pb::GetAccount { user_id: caller.user.to_bytes() });
        // A page that shows what is broken has to open while the operator's own mailbox is: what only looks is let in by any replica
        // that knows the session. What changes something wants its leader.
        let read = match Effect::of(&parts.method) {
            Effect::Reads => mailboxes.read(&caller, ask, 0).await?,
            Effect::Changes => mailboxes.read_consistent(&caller, ask).await?,
        };
        let answer::Answer::Account(account) = read.answer else {
            return Err(Problem::internal("an account was asked for, and something else came"));
        };
        let settings = settings.ok_or_else(elsewhere)?;
        if !settings.accounts.iter().any(|address| address.as_str() == account.address) {
            return Err(Problem::new(Kind::NotOperator));
        }
        Ok(Self { name: account.address, settings, entropy })
    }
}

/// Why something is done.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reason {
    /// For the audit log: 1 to 500 bytes. Name nobody's address, since it is kept for long.
    #[schema(example = "disks are replaced", min_length = 1)]
    why: String,
}

impl Reason {
    /// The reason, if one was given.
    pub(crate) fn checked(self) -> Result<String, Problem> {
        checked(self.why)
    }
}

/// The same of a reason that stands in another body.
pub(crate) fn checked(why: String) -> Result<String, Problem> {
    let why = why.trim();
    match why.is_empty() || why.len() > WHY_BYTES_MAX || why.chars().any(char::is_control) {
        true => Err(Problem::field("why", format!("1 to {WHY_BYTES_MAX} bytes on one line, for the audit log"))),
        false => Ok(why.to_owned()),
    }
}

/// What is written down of an action.
pub(crate) struct Act<'a> {
    /// `room.verb`, as `ctl` names it.
    pub(crate) action: &'a str,
    /// One thing under each of its names.
    pub(crate) targets: Vec<String>,
    /// Why; a look that needs no reason has none.
    pub(crate) why: &'a str,
}

impl Operator {
    /// As the audit log names it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The shard map.
    pub(crate) fn map(&self) -> Arc<pb::ShardMap> {
        self.settings.cluster.map()
    }

    /// An answer of the shard's leader.
    pub(crate) async fn ask(&self, shard: ShardId, query: query::Query) -> Result<answer::Answer, Problem> {
        let asked = self.settings.cluster.query(shard, None, query, ReadMode::Consistent, 0, CLUSTER_CALL_MAX).await?;
        asked.answer.answer.ok_or_else(|| Problem::internal("a shard gave an empty answer"))
    }

    /// Has a shard carry out a command, once. A refusal is a problem, in the shard's words.
    pub(crate) async fn propose(&self, shard: ShardId, op: Op) -> Result<outcome::Result, Problem> {
        let command = pb::Command {
            request: RequestId(env::random(&*self.entropy)).to_bytes(),
            entropy: Bytes::copy_from_slice(&env::random::<16>(&*self.entropy)),
            op: Some(op),
            ..pb::Command::default()
        };
        let outcome = self.settings.cluster.propose(shard, None, command, CLUSTER_CALL_MAX).await?;
        match outcome.result {
            Some(outcome::Result::Refused(refused)) => Err(refusal(refused)),
            Some(result) => Ok(result),
            None => Err(Problem::internal("a shard gave an empty outcome")),
        }
    }

    /// Writes down what is about to happen, lets it happen, and writes down how it ended. What cannot be written down is not done.
    pub(crate) async fn carry_out<T>(
        &self,
        act: Act<'_>,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let of = self.record(operate::begun(&self.name, act.action, act.targets, act.why)).await?;
        let worked = work.await;
        let error = worked.as_ref().err().map(|problem| Said(problem).to_string());
        if self.record(operate::ended(of, error.as_deref())).await.is_err() {
            tracing::warn!(of, "the audit log does not say how something ended");
        }
        worked
    }

    async fn record(&self, record: pb::AuditRecord) -> Result<u64, Problem> {
        let op = Op::RecordAudit(pb::RecordAudit { record: Some(record) });
        match self.propose(ShardId::PLACEMENT, op).await? {
            outcome::Result::Audited(audited) => Ok(audited.sequence),
            _ => Err(Problem::internal("placement gave an outcome of another kind")),
        }
    }
}

/// Operators know what they ask of, so they are told why it is refused.
fn refusal(refused: pb::Refused) -> Problem {
    match refused.refusal() {
        Refusal::UnknownUser
        | Refusal::UnknownNode
        | Refusal::NodeRemoved
        | Refusal::UnknownShard
        | Refusal::UnknownEntry
        | Refusal::UnknownOperation
        | Refusal::UnknownDomain => Problem::new(Kind::NotFound).detail(refused.detail),
        Refusal::VersionNotEnabled => Problem::new(Kind::Unavailable),
        _ => Problem::new(Kind::ActionRefused).detail(refused.detail),
    }
}

/// A problem as the audit log tells it.
struct Said<'a>(&'a Problem);

impl Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.said() {
            Some(detail) => write!(f, "{} ({detail})", self.0.kind().title()),
            None => f.write_str(self.0.kind().title()),
        }
    }
}

/// Who asks.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperatorView {
    /// As the audit log names whoever asks: an account's address, or `administrator` for the token's holder.
    #[schema(example = "ada@postrider.example")]
    name: String,
}

/// Tell an operator who the audit log takes it for.
#[utoipa::path(
    get, path = "/v1/admin/operator", operation_id = "read_operator", tag = "administration",
    responses((status = 200, description = "Who asks", body = OperatorView), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn who(operator: Operator) -> Json<OperatorView> {
    Json(OperatorView { name: operator.name().to_owned() })
}
