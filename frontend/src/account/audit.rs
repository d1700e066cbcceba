//! What administrators do through REST stands in the audit log before it happens (ADR 070), as what operators do through
//! `ctl`; and so does what an owner does with his second factor.

use std::future::Future;

use bytes::Bytes;
use postrider_api::env;
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AuditRecord, outcome};
use postrider_router::operate;

use crate::account::{AccountError, Accounts, unexpected, unexpected_result};

/// Who holds the administrator's token is not known more closely.
const ADMINISTRATOR: &str = "administrator";
/// Whoever has a session of the account and its password.
const OWNER: &str = "owner";

impl Accounts {
    /// Writes down what is about to happen, lets it happen, and writes down how it ended. What cannot be written down is not
    /// done.
    pub(super) async fn audited<T>(
        &self,
        action: &str,
        targets: Vec<String>,
        work: impl Future<Output = Result<T, AccountError>>,
    ) -> Result<T, AccountError> {
        self.audited_of(ADMINISTRATOR, action, targets, work).await
    }

    /// The same of what an account's owner does that decides who gets in.
    pub(super) async fn audited_of_owner<T>(
        &self,
        action: &str,
        targets: Vec<String>,
        work: impl Future<Output = Result<T, AccountError>>,
    ) -> Result<T, AccountError> {
        self.audited_of(OWNER, action, targets, work).await
    }

    async fn audited_of<T>(
        &self,
        operator: &str,
        action: &str,
        targets: Vec<String>,
        work: impl Future<Output = Result<T, AccountError>>,
    ) -> Result<T, AccountError> {
        let of = self.record(operate::begun(operator, action, targets, "")).await?;
        let worked = work.await;
        let error = worked.as_ref().err().map(ToString::to_string);
        if let Err(error) = self.record(operate::ended(of, error.as_deref())).await {
            tracing::warn!(%error, of, "the audit log does not say how something ended");
        }
        worked
    }

    async fn record(&self, record: AuditRecord) -> Result<u64, AccountError> {
        let request = RequestId(env::random(&*self.entropy));
        let op = Op::RecordAudit(pb::RecordAudit { record: Some(record) });
        match self.step(ShardId::PLACEMENT, None, request, Bytes::new(), op).await? {
            Ok(outcome::Result::Audited(audited)) => Ok(audited.sequence),
            Ok(_) => Err(unexpected_result("record audit")),
            Err(refused) => Err(unexpected("record audit", &refused)),
        }
    }
}
