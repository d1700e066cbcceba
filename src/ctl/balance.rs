//! `ctl balance`: placement's leader does what `ctl plan` shows, until nothing is left to do; this shows how far it has come.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use postrider_api::pb::{self, OperationState, command::Op};
use postrider_balance::limits::Limits;
use postrider_operator::operation::LOOK_EVERY;
use postrider_operator::plan::make;
use postrider_router::operate::parent_of;
use serde::Serialize;

use super::Verdict;
use super::operations::Line;
use super::plan;
use super::session::Session;

#[derive(Serialize)]
struct Balanced {
    /// In the order in which they began.
    steps: Vec<Line>,
    /// Shards that cannot be put right.
    blocked_shards: usize,
    /// Shards that wait for nodes that do not answer.
    waiting_shards: usize,
}

pub(super) async fn run(session: &Session) -> anyhow::Result<Verdict> {
    let begun = session.begin("cluster.balance", ["cluster".to_owned()], Op::Balance(pb::Balance {})).await?;
    let id = begun.context("placement began nothing")?;
    let mut steps = BTreeMap::new();
    loop {
        match look(session, id).await {
            Ok((own, listed)) => {
                follow(id, &listed, &mut steps, session.json);
                match own.state() {
                    OperationState::Done => break,
                    OperationState::Cancelled => bail!("operation {} was cancelled: {}", own.id, own.waits_for),
                    _ => {}
                }
            }
            // Whoever leads placement may be about to change: the operation goes on meanwhile.
            Err(error) => eprintln!("operation {id}: {error:#}; it goes on"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (planned, silent) = make(&session.router, &session.map(), &BTreeSet::new(), &Limits::default()).await?;
    let (blocked_shards, waiting_shards) = (planned.blocked_shards, planned.waiting_shards);
    if session.json {
        let steps = steps.into_values().collect();
        session.print_json(&Balanced { steps, blocked_shards, waiting_shards })?;
    } else {
        plan::print_stuck(&planned, &silent);
        match steps.len() {
            0 => println!("Nothing was to be done."),
            steps => println!("{steps} steps were taken, and nothing is left to do."),
        }
    }
    Ok(if blocked_shards == 0 && waiting_shards == 0 { Verdict::Good } else { Verdict::Bad })
}

/// The operation, and those that run or have ended of late.
async fn look(session: &Session, id: u64) -> anyhow::Result<(pb::Operation, Vec<pb::Operation>)> {
    Ok((session.operation(id).await?, session.operations().await?))
}

/// Says which steps have begun and which have ended since the last look.
fn follow(parent: u64, listed: &[pb::Operation], steps: &mut BTreeMap<u64, Line>, is_quiet: bool) {
    // The newest come first.
    for operation in listed.iter().rev().filter(|operation| parent_of(operation) == parent) {
        let line = Line::of(operation);
        let before = steps.get(&operation.id).map(|known| known.state);
        if before != Some(line.state) && !is_quiet {
            match before {
                None if line.ended_ms.is_none() => eprintln!("{}: begun: {}", line.of, line.why),
                _ => eprintln!("{}: {}", line.of, line.state),
            }
        }
        steps.insert(operation.id, line);
    }
}
