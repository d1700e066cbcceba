//! What administrators do through REST stands in the audit log before it happens (ADR 070), as what operators do through
//! `ctl`.

use std::future::Future;

use bytes::Bytes;
use postrider_api::audit;
use postrider_api::env;
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{AuditOutcome, AuditRecord, outcome};

use crate::account::{AccountError, Accounts, unexpected, unexpected_result};

/// Who holds the administrator's token is not known more closely.
const ADMINISTRATOR: &str = "administrator";
/// Bytes of what went wrong that are kept.
const DETAIL_BYTES_MAX: usize = 1000;

impl Accounts {
    /// Writes down what is about to happen, lets it happen, and writes down how it ended. What cannot be written down is not
    /// done.
    pub(super) async fn audited<T>(
        &self,
        action: &str,
        targets: Vec<String>,
        work: impl Future<Output = Result<T, AccountError>>,
    ) -> Result<T, AccountError> {
        let begun = AuditRecord {
            operator: ADMINISTRATOR.to_owned(),
            action: action.to_owned(),
            targets,
            ..AuditRecord::default()
        };
        let of = self.record(begun).await?;
        let worked = work.await;
        let (outcome, detail) = match &worked {
            Ok(_) => (AuditOutcome::Done, String::new()),
            Err(error) => (AuditOutcome::Failed, audit::without_addresses(&error.to_string())),
        };
        let detail = detail[..detail.floor_char_boundary(DETAIL_BYTES_MAX)].to_owned();
        if let Err(error) =
            self.record(AuditRecord { of, outcome: outcome.into(), detail, ..AuditRecord::default() }).await
        {
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
