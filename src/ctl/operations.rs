//! `ctl operations`: changes that take time, what they wait for, and how they ended.

use anyhow::Context as _;
use clap::Subcommand;
use postrider_api::pb::{self, OperationState, command::Op};
use postrider_operator::operation::Look;
use postrider_router::operate::OperationSummary;
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table};

#[derive(Debug, Subcommand)]
pub(crate) enum OperationsCommand {
    /// Take an operation back: the shard, or the node, is as it was before.
    Cancel {
        /// Its number.
        id: u64,
    },
}

#[derive(Serialize)]
pub(super) struct Line {
    id: u64,
    kind: &'static str,
    pub(super) of: String,
    pub(super) state: &'static str,
    step: &'static str,
    waits_for: String,
    /// Where the balancer began it.
    pub(super) why: String,
    started_ms: i64,
    pub(super) ended_ms: Option<i64>,
}

impl Line {
    pub(super) fn of(operation: &pb::Operation) -> Self {
        let OperationSummary { id, kind, of, state, step, waits_for, why, started_ms, ended_ms, .. } =
            OperationSummary::of(operation);
        Self { id, kind, of, state, step, waits_for, why, started_ms, ended_ms }
    }
}

pub(super) async fn run(session: &Session, command: Option<OperationsCommand>) -> anyhow::Result<Verdict> {
    match command {
        None => list(session).await,
        Some(OperationsCommand::Cancel { id }) => {
            session.cancel(id, "cancelled by an operator").await?;
            let ended = until_ended(session, id).await?;
            tell(session, &ended)?;
            Ok(if ended.state() == OperationState::Cancelled { Verdict::Good } else { Verdict::Bad })
        }
    }
}

async fn list(session: &Session) -> anyhow::Result<Verdict> {
    let lines: Vec<Line> = session.operations().await?.iter().map(Line::of).collect();
    if session.json {
        session.print_json(&lines)?;
        return Ok(Verdict::Good);
    }
    let mut table = Table::new(&[
        ("id", Align::Right),
        ("kind", Align::Left),
        ("of", Align::Left),
        ("state", Align::Left),
        ("step", Align::Left),
        ("waits for", Align::Left),
        ("why", Align::Left),
    ]);
    for line in lines {
        let Line { id, kind, of, state, step, waits_for, why, .. } = line;
        table.row([id.to_string(), kind.into(), of, state.into(), step.into(), waits_for, why]);
    }
    table.print();
    Ok(Verdict::Good)
}

/// Has placement record a change, and waits until it has ended. Interrupting this does not end the change.
pub(super) async fn carry_out(
    session: &Session,
    action: &str,
    targets: impl IntoIterator<Item = String>,
    op: Op,
) -> anyhow::Result<Verdict> {
    if let Some(id) = session.begin(action, targets, op).await? {
        session.until_done(id, &mut |look| tell_of(session, &look)).await?;
    }
    Ok(Verdict::Good)
}

async fn until_ended(session: &Session, id: u64) -> anyhow::Result<pb::Operation> {
    session.until_ended(id, &mut |look| tell_of(session, &look)).await
}

/// Says on the screen how far an operation is.
pub(super) fn tell_of(session: &Session, look: &Look<'_>) {
    match look {
        Look::At(operation) if !session.json => {
            let Line { id, of, step, waits_for, .. } = Line::of(operation);
            let why = if waits_for.is_empty() { String::new() } else { format!(" (waits: {waits_for})") };
            eprintln!("operation {id}: {of}: {step}{why}");
        }
        Look::At(_) => {}
        Look::Unanswered(id, error) => eprintln!("operation {id}: {error:#}; it goes on"),
    }
}

/// Prints how an operation ended.
fn tell(session: &Session, operation: &pb::Operation) -> anyhow::Result<()> {
    let line = Line::of(operation);
    if session.json {
        return session.print_json(&line).context("print the operation");
    }
    println!("Operation {} ({} {}) is {}.", line.id, line.kind, line.of, line.state);
    Ok(())
}
