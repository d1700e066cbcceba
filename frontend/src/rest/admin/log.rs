//! The audit log.

use axum::Json;
use postrider_api::id::ShardId;
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb;
use postrider_api::pb::{answer, query};
use postrider_router::operate::{AuditLine, AuditOutcomes};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::rest::admin::operator::Operator;
use crate::rest::extract::Params;
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;

/// Lines of a page unless another number is asked for, and at most.
const LINES_DEFAULT: usize = 50;
const LINES_MAX: usize = 200;

/// `?limit=&cursor=`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfLog {
    /// Lines of a page: 1 to 200, 50 unless given.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// What an operator or an administrator did, or looked at.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditView {
    sequence: u64,
    at: Time,
    operator: String,
    /// Role and name of the certificate under which it was done.
    certificate: String,
    #[schema(example = "node.drain")]
    action: String,
    /// One thing under each of its names; an account is an id and a hash of its address.
    targets: Vec<String>,
    why: String,
    #[schema(example = "done", pattern = "^(done|failed|not_known)$")]
    outcome: String,
    ended_at: Option<Time>,
    /// What went wrong.
    detail: String,
}

impl From<AuditLine> for AuditView {
    fn from(line: AuditLine) -> Self {
        let outcome = line.outcome().replace(' ', "_");
        let AuditLine { record, end } = line;
        Self {
            sequence: record.sequence,
            at: Time(record.at_ms),
            operator: record.operator,
            certificate: record.certificate,
            action: record.action,
            targets: record.targets,
            why: record.why,
            outcome,
            ended_at: end.as_ref().map(|end| Time(end.at_ms)),
            detail: end.map(|end| end.detail).unwrap_or_default(),
        }
    }
}

/// A page of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditLogPage {
    /// The newest first.
    lines: Vec<AuditView>,
    /// For the next page; null at the end.
    next_cursor: Option<String>,
}

/// Where a page begins: the records behind `read`, and of their lines those older than `line`. An end whose beginning stands on the next page is
/// read again there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    read: u64,
    line: u64,
}

impl Place {
    const NEWEST: Self = Self { read: 0, line: u64::MAX };

    fn sealed(self) -> String {
        format!("{}-{}", self.read, self.line)
    }

    fn opened(text: &str) -> Option<Self> {
        let (read, line) = text.split_once('-')?;
        let place = Self { read: read.parse().ok()?, line: line.parse().ok()? };
        (place.read > 0 && place.line > 0).then_some(place)
    }
}

/// List what operators and administrators did or looked at, who, when and why.
#[utoipa::path(
    get, path = "/v1/admin/audit", operation_id = "list_audit", tag = "administration", params(OfLog),
    responses((status = 200, description = "The log", body = AuditLogPage), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(operator: Operator, Params(of): Params<OfLog>) -> Result<Json<AuditLogPage>, Problem> {
    let limit = of.limit.unwrap_or(LINES_DEFAULT);
    if !(1..=LINES_MAX).contains(&limit) {
        return Err(Problem::new(Kind::InvalidQuery).detail(format!("limit: 1 to {LINES_MAX}")));
    }
    let place = match of.cursor.as_deref() {
        None => Place::NEWEST,
        Some(text) => Place::opened(text).ok_or_else(|| Problem::new(Kind::InvalidCursor))?,
    };
    let (lines, next) = read(&operator, place, limit).await?;
    Ok(Json(AuditLogPage { lines, next_cursor: next.map(Place::sealed) }))
}

async fn read(operator: &Operator, place: Place, limit: usize) -> Result<(Vec<AuditView>, Option<Place>), Problem> {
    let (mut lines, mut outcomes, mut before) = (Vec::new(), AuditOutcomes::default(), place.read);
    loop {
        let ask = query::Query::ListAudit(pb::ListAudit { limit: PAGE_ROWS_MAX, before, since_ms: 0 });
        let answer::Answer::Audit(page) = operator.ask(ShardId::PLACEMENT, ask).await? else {
            return Err(Problem::internal("placement gave an answer to another question"));
        };
        for record in page.records {
            before = record.sequence;
            let Some(line) = outcomes.take(record).filter(|line| line.record.sequence < place.line) else { continue };
            let sequence = line.record.sequence;
            lines.push(AuditView::from(line));
            if lines.len() == limit {
                let read = outcomes.newest_open().map_or(sequence, |end| end + 1);
                return Ok((lines, Some(Place { read, line: sequence })));
            }
        }
        if !page.more {
            return Ok((lines, None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_and_nothing_else_is_one() {
        let place = Place { read: 12, line: 9 };
        assert_eq!(Place::opened(&place.sealed()), Some(place));
        for text in ["", "12", "12-", "-9", "0-9", "12-0", "a-b", "1-2-3"] {
            assert_eq!(Place::opened(text), None, "{text:?}");
        }
    }
}
