//! Recorded operations: changes that take time, and outlive whoever carries them on.
//!
//! Invariant: an operation is recorded before its first step and ends only when placement has checked that what was wanted is so.
//! A shard, and a node, has one at a time, and its row names it.

use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, Missing, Operation, OperationState, Refusal, outcome};

use crate::key::{Key, KeyRange, Table};
use crate::placement::set;
use crate::query::{QueryError, missing};
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, Turn, refuse};
use crate::{Broken, row};

/// Operations that run at a time, in the whole cluster.
const RUNNING_MAX: usize = 1024;
/// Operations that have ended and are still listed.
const ENDED_MAX: usize = 256;

pub(crate) fn has_ended(operation: &Operation) -> bool {
    !matches!(operation.state(), OperationState::Running | OperationState::Cancelling)
}

/// Records a new operation. The first thing that its verb writes, since it may refuse.
pub(crate) fn begin(turn: &mut Turn<'_, impl Rows>, kind: Kind, home_before: String) -> Result<u64, Stop> {
    let (ended, running): (Vec<_>, Vec<_>) = all(turn.rows)?.into_iter().partition(has_ended);
    if running.len() >= RUNNING_MAX {
        return Err(refuse(Refusal::Conflict, format!("{RUNNING_MAX} operations are running: wait for one to end")));
    }
    // By their numbers, the oldest first.
    for operation in ended.iter().take((ended.len() + 1).saturating_sub(ENDED_MAX)) {
        row::delete(turn.rows, Key::Operation(operation.id));
    }
    // The version rises with each operation, so no two have the same.
    let id = turn.state.map_version + 1;
    let operation = Operation {
        id,
        started_ms: turn.now,
        kind: Some(kind),
        state: OperationState::Running.into(),
        stepped_ms: turn.now,
        home_before,
        ..Default::default()
    };
    set(turn, Key::Operation(id), &operation)?;
    Ok(id)
}

/// Ends an operation.
pub(crate) fn end(turn: &mut Turn<'_, impl Rows>, mut operation: Operation) -> Result<(), Broken> {
    let is_done = operation.state() == OperationState::Running;
    let state = if is_done { OperationState::Done } else { OperationState::Cancelled };
    operation.state = state.into();
    operation.ended_ms = turn.now;
    if is_done {
        operation.waits_for.clear();
    }
    set(turn, Key::Operation(operation.id), &operation)
}

/// The operation of this number, which has not ended.
pub(crate) fn running(reader: &impl Reader, id: u64) -> Result<Operation, Stop> {
    match row::get::<Operation>(reader, Key::Operation(id))? {
        Some(operation) if !has_ended(&operation) => Ok(operation),
        Some(_) => Err(refuse(Refusal::Conflict, format!("operation {id} has ended"))),
        None => Err(refuse(Refusal::UnknownOperation, format!("there is no operation {id}"))),
    }
}

/// All of them, by their numbers.
pub(crate) fn all(reader: &impl Reader) -> Result<Vec<Operation>, Broken> {
    let rows = reader.scan(&KeyRange::table(Table::Operations), Direction::Forward);
    rows.map(|found| {
        let (key, value) = found?;
        Ok(row::decode_row::<Operation>(key, value)?.1)
    })
    .collect()
}

/// What is running on behalf of another operation.
pub(crate) fn children(reader: &impl Reader, parent: u64) -> Result<Vec<Operation>, Broken> {
    let is_child = |operation: &Operation| match &operation.kind {
        Some(Kind::SetReplicas(set)) => set.parent == parent,
        Some(Kind::SetHome(set)) => set.parent == parent,
        Some(Kind::DrainNode(_) | Kind::Balance(_) | Kind::MakeShard(_)) | None => false,
    };
    Ok(all(reader)?.into_iter().filter(|operation| !has_ended(operation) && is_child(operation)).collect())
}

pub(crate) fn begun(id: u64) -> outcome::Result {
    outcome::Result::OperationBegun(pb::OperationBegun { id })
}

/// One operation, running or ended.
pub(crate) fn answer(reader: &impl Reader, query: &pb::GetOperation) -> Result<Answer, QueryError> {
    let found: Option<Operation> = row::get(reader, Key::Operation(query.id))?;
    Ok(found.map_or_else(|| missing(Missing::Operation), Answer::Operation))
}

/// The newest operations.
pub(crate) fn answer_all(reader: &impl Reader, query: &pb::ListOperations) -> Result<Answer, QueryError> {
    let limit = if query.limit == 0 { PAGE_ROWS_MAX } else { query.limit.min(PAGE_ROWS_MAX) };
    let mut operations = all(reader)?;
    operations.reverse();
    operations.truncate(limit as usize);
    Ok(Answer::Operations(pb::Operations { operations }))
}
