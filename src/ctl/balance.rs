//! `ctl balance`: placement's leader does what `ctl plan` shows, until nothing is left to do; this shows how far it has come.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::bail;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, OperationState, answer, command::Op, outcome, query};
use postrider_balance::limits::Limits;
use serde::Serialize;

use super::Verdict;
use super::operations::{self, LOOK_EVERY, Line};
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
    let made = session.place("cluster.balance", ["cluster".to_owned()], Op::Balance(pb::Balance {})).await?;
    let outcome::Result::OperationBegun(begun) = made else {
        bail!("placement gave an outcome of another kind: {made:?}")
    };
    let mut steps = BTreeMap::new();
    loop {
        match look(session, begun.id).await {
            Ok((own, listed)) => {
                follow(begun.id, &listed, &mut steps, session.json);
                match own.state() {
                    OperationState::Done => break,
                    OperationState::Cancelled => bail!("operation {} was cancelled: {}", own.id, own.waits_for),
                    _ => {}
                }
            }
            // Whoever leads placement may be about to change: the operation goes on meanwhile.
            Err(error) => eprintln!("operation {}: {error:#}; it goes on", begun.id),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let (planned, silent) = plan::make(session, &session.map(), &BTreeSet::new(), &Limits::default()).await?;
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
    let get = query::Query::GetOperation(pb::GetOperation { id });
    let answer::Answer::Operation(own) = session.ask(ShardId::PLACEMENT.0, get).await? else {
        bail!("placement does not know operation {id} any more");
    };
    Ok((own, operations::newest(session).await?))
}

/// Says which steps have begun and which have ended since the last look.
fn follow(parent: u64, listed: &[pb::Operation], steps: &mut BTreeMap<u64, Line>, is_quiet: bool) {
    // The newest come first.
    for operation in listed.iter().rev().filter(|operation| operations::parent_of(operation) == parent) {
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
