//! `ctl operations`: changes that take time, what they wait for, and how they ended.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use postrider_api::id::ShardId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState, OperationStep, answer, command::Op, outcome, query};
use serde::Serialize;

use super::Verdict;
use super::session::Session;
use super::table::{Align, Table, join};

/// The pause between two looks at an operation.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

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
        let (kind, of) = match &operation.kind {
            Some(Kind::SetReplicas(set)) => ("replicas", format!("shard {} on {}", set.shard, join(&set.replicas))),
            Some(Kind::SetHome(set)) => ("home", format!("shard {} in {}", set.shard, set.region)),
            Some(Kind::DrainNode(drain)) => ("drain", format!("node {}", drain.node)),
            Some(Kind::Balance(_)) => ("balance", "the cluster".to_owned()),
            Some(Kind::MakeShard(make)) => ("make", format!("shard {}", make.shard)),
            None => ("unknown", String::new()),
        };
        let why = match &operation.kind {
            Some(Kind::SetReplicas(set)) => set.reason.clone(),
            Some(Kind::SetHome(set)) => set.reason.clone(),
            Some(Kind::DrainNode(_) | Kind::Balance(_) | Kind::MakeShard(_)) | None => String::new(),
        };
        Self {
            id: operation.id,
            kind,
            of,
            state: state_name(operation.state()),
            step: step_name(operation.step()),
            waits_for: operation.waits_for.clone(),
            why,
            started_ms: operation.started_ms,
            ended_ms: (operation.ended_ms > 0).then_some(operation.ended_ms),
        }
    }
}

fn state_name(state: OperationState) -> &'static str {
    match state {
        OperationState::Running => "running",
        OperationState::Cancelling => "cancelling",
        OperationState::Done => "done",
        OperationState::Cancelled => "cancelled",
        OperationState::Unspecified => "unknown",
    }
}

fn step_name(step: OperationStep) -> &'static str {
    match step {
        OperationStep::Recorded => "recorded",
        OperationStep::Joining => "joining",
        OperationStep::CatchingUp => "catching up",
        OperationStep::Copying => "copying",
        OperationStep::HandingOver => "handing over",
        OperationStep::Voting => "voting",
        OperationStep::Removing => "removing",
        OperationStep::Draining => "draining",
        OperationStep::Balancing => "balancing",
        OperationStep::Making => "making",
    }
}

pub(super) async fn run(session: &Session, command: Option<OperationsCommand>) -> anyhow::Result<Verdict> {
    match command {
        None => list(session).await,
        Some(OperationsCommand::Cancel { id }) => {
            let reason = "cancelled by an operator".to_owned();
            let cancel = Op::CancelOperation(pb::CancelOperation { id, reason });
            session.place("operation.cancel", [format!("operation {id}")], cancel).await?;
            let ended = until_ended(session, id).await?;
            tell(session, &ended)?;
            Ok(if ended.state() == OperationState::Cancelled { Verdict::Good } else { Verdict::Bad })
        }
    }
}

/// Those that run and the last that have ended, the newest first.
pub(super) async fn newest(session: &Session) -> anyhow::Result<Vec<pb::Operation>> {
    let list = query::Query::ListOperations(pb::ListOperations { limit: 0 });
    match session.ask(ShardId::PLACEMENT.0, list).await? {
        answer::Answer::Operations(listed) => Ok(listed.operations),
        _ => bail!("placement answered something else than a list of operations"),
    }
}

/// The operation on whose behalf one runs; 0: of none.
pub(super) fn parent_of(operation: &pb::Operation) -> u64 {
    match &operation.kind {
        Some(Kind::SetReplicas(set)) => set.parent,
        Some(Kind::SetHome(set)) => set.parent,
        Some(Kind::DrainNode(_) | Kind::Balance(_) | Kind::MakeShard(_)) | None => 0,
    }
}

async fn list(session: &Session) -> anyhow::Result<Verdict> {
    let lines: Vec<Line> = newest(session).await?.iter().map(Line::of).collect();
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
    let id = match session.place(action, targets, op).await? {
        outcome::Result::OperationBegun(begun) => begun.id,
        // All is as it is wanted already.
        _ => return Ok(Verdict::Good),
    };
    let ended = until_ended(session, id).await?;
    if ended.state() == OperationState::Done {
        return Ok(Verdict::Good);
    }
    bail!("operation {id} was cancelled; all is as it was: {}", ended.waits_for)
}

pub(super) async fn until_ended(session: &Session, id: u64) -> anyhow::Result<pb::Operation> {
    let mut told = (OperationStep::Recorded, String::new());
    loop {
        // Whoever leads placement may be about to change: the operation goes on meanwhile.
        let asked = session.ask(ShardId::PLACEMENT.0, query::Query::GetOperation(pb::GetOperation { id })).await;
        match asked {
            Ok(answer::Answer::Operation(operation)) if operation.ended_ms > 0 => return Ok(operation),
            Ok(answer::Answer::Operation(operation)) => {
                let now = (operation.step(), operation.waits_for.clone());
                if now != told && !session.json {
                    let Line { of, step, waits_for, .. } = Line::of(&operation);
                    let why = if waits_for.is_empty() { String::new() } else { format!(" (waits: {waits_for})") };
                    eprintln!("operation {id}: {of}: {step}{why}");
                }
                told = now;
            }
            Ok(_) => bail!("placement does not know operation {id} any more"),
            Err(error) => eprintln!("operation {id}: {error:#}; it goes on"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
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
