//! The audit log, as `ctl audit` reads it. Every command that changes something or looks into mail writes it first
//! ([`postrider_operator::audit`]).

use anyhow::{Context as _, bail, ensure};
use postrider_api::address::Address;
use postrider_api::audit;
use postrider_api::env::SystemClock;
use postrider_api::id::{ShardId, UserId};
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::{self, answer::Answer, query::Query};
use postrider_router::operate::{AuditLine, AuditOutcomes};
use serde::Serialize;

use super::Verdict;
use super::session::{DEADLINE, Session};
use super::table::{Align, Table};

/// Lines that are shown unless more are asked for.
const LINES_DEFAULT: usize = 1000;
/// What `ctl audit` is asked for.
pub(super) struct Wanted {
    /// A time (RFC 3339), or how long ago: 30m, 24h, 7d.
    pub(super) since: Option<String>,
    /// An address, or a target as the log names it.
    pub(super) target: Option<String>,
    pub(super) limit: Option<usize>,
}

/// One action with its end.
#[derive(Debug, Serialize)]
struct Line {
    sequence: u64,
    at: String,
    operator: String,
    certificate: String,
    action: String,
    targets: Vec<String>,
    why: String,
    /// `done`, `failed`, or `not known`.
    outcome: &'static str,
    ended: Option<String>,
    detail: String,
}

pub(super) async fn run(session: &Session, wanted: Wanted) -> anyhow::Result<Verdict> {
    let since_ms = wanted.since.as_deref().map(|text| since(text, SystemClock::shared().wall_ms())).transpose()?;
    let targets = match &wanted.target {
        Some(text) => Some(names_of(session, text).await?),
        None => None,
    };
    let limit = wanted.limit.unwrap_or(LINES_DEFAULT);
    let (mut lines, more) = read(session, since_ms.unwrap_or(0), targets.as_deref(), limit).await?;
    // As a log: the newest last.
    lines.reverse();
    if session.json {
        session.print_json(&lines)?;
    } else {
        print(&lines);
    }
    if more {
        eprintln!("postrider: the newest {limit} are shown; older ones: --limit");
    }
    Ok(Verdict::Good)
}

/// The newest first, and whether there are more.
async fn read(
    session: &Session,
    since_ms: i64,
    targets: Option<&[String]>,
    limit: usize,
) -> anyhow::Result<(Vec<Line>, bool)> {
    let (mut lines, mut outcomes, mut before) = (Vec::new(), AuditOutcomes::default(), 0);
    loop {
        let list = pb::ListAudit { limit: PAGE_ROWS_MAX, before, since_ms };
        let Answer::Audit(page) = session.ask(ShardId::PLACEMENT.0, Query::ListAudit(list)).await? else {
            bail!("placement gave an answer to another question");
        };
        let Some(last) = page.records.last() else { return Ok((lines, false)) };
        before = last.sequence;
        for record in page.records {
            let Some(found) = outcomes.take(record) else { continue };
            if targets.is_some_and(|wanted| !found.record.targets.iter().any(|target| wanted.contains(target))) {
                continue;
            }
            if lines.len() == limit {
                return Ok((lines, true));
            }
            lines.push(line(found));
        }
        if !page.more {
            return Ok((lines, false));
        }
    }
}

fn line(found: AuditLine) -> Line {
    let outcome = found.outcome();
    let AuditLine { record, end } = found;
    Line {
        sequence: record.sequence,
        at: time(record.at_ms),
        operator: record.operator,
        certificate: record.certificate,
        action: record.action,
        targets: record.targets,
        why: record.why,
        outcome,
        ended: end.as_ref().map(|end| time(end.at_ms)),
        detail: end.map(|end| end.detail).unwrap_or_default(),
    }
}

/// Under which names the log has a target. An address that somebody has is also a user.
async fn names_of(session: &Session, text: &str) -> anyhow::Result<Vec<String>> {
    let Ok(address) = Address::parse(text) else { return Ok(vec![text.to_owned()]) };
    let mut names = vec![audit::address(&address)];
    if let Some(record) = session.router.look_up(&address, DEADLINE).await.context("ask the directory")?
        && let Ok(user) = UserId::try_from(&record.user_id)
    {
        names.push(audit::user(user));
    }
    Ok(names)
}

/// A moment, milliseconds: RFC 3339, or so long before `now_ms`.
fn since(text: &str, now_ms: i64) -> anyhow::Result<i64> {
    let wanted = || format!("--since {text}: a time (2026-11-30T08:00:00Z) or how long ago (30m, 24h, 7d)");
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).with_context(wanted)?;
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => bail!(wanted()),
    };
    let number: i64 = number.parse().with_context(wanted)?;
    ensure!(number >= 0, wanted());
    Ok(now_ms.saturating_sub(number.saturating_mul(unit_ms)))
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| format!("{ms} ms"), |time| time.to_string())
}

fn print(lines: &[Line]) {
    let mut table = Table::new(&[
        ("at", Align::Left),
        ("operator", Align::Left),
        ("certificate", Align::Left),
        ("action", Align::Left),
        ("target", Align::Left),
        ("outcome", Align::Left),
        ("why", Align::Left),
    ]);
    for line in lines {
        let outcome = match line.detail.as_str() {
            "" => line.outcome.to_owned(),
            detail => format!("{}: {detail}", line.outcome),
        };
        table.row([
            line.at.clone(),
            line.operator.clone(),
            line.certificate.clone(),
            line.action.clone(),
            line.targets.join(", "),
            outcome,
            line.why.clone(),
        ]);
    }
    table.print();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_how_long_ago() {
        let now = 1_790_000_000_000;
        assert_eq!(since("2026-11-30T08:00:00Z", now).unwrap(), 1_796_025_600_000);
        assert_eq!(since("90s", now).unwrap(), now - 90_000);
        assert_eq!(since("2d", now).unwrap(), now - 2 * 86_400_000);
        for wrong in ["", "d", "7", "7w", "-7d", "é"] {
            assert!(since(wrong, now).unwrap_err().to_string().contains("--since"), "{wrong}");
        }
    }
}
