//! Changes that take time: recorded by placement before their first step, carried on by the cluster, watched from here.
//!
//! Invariant: whoever stops watching stops nothing. The same asked for again is the operation that runs.

use std::time::Duration;

use anyhow::{Context as _, bail};
use postrider_api::id::ShardId;
use postrider_api::pb::{self, OperationState, OperationStep, answer, command::Op, outcome, query};

pub use postrider_router::operate::{OperationSummary, parent_of};

use crate::session::Session;

/// The pause between two looks at an operation.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is to be told of an operation while somebody waits for it.
pub enum Look<'l> {
    /// It has got to another step, or waits for something else.
    At(&'l pb::Operation),
    /// Whoever leads placement may be about to change: the operation goes on meanwhile.
    Unanswered(u64, &'l anyhow::Error),
}

/// Who is told.
pub type Tell<'t> = &'t mut (dyn FnMut(Look<'_>) + Send);

impl Session {
    /// Has placement record a change. `None`: all is as it is wanted already.
    ///
    /// # Errors
    /// As [`Session::place`].
    pub async fn begin(
        &self,
        action: &str,
        targets: impl IntoIterator<Item = String>,
        op: Op,
    ) -> anyhow::Result<Option<u64>> {
        match self.place(action, targets, op).await? {
            outcome::Result::OperationBegun(begun) => Ok(Some(begun.id)),
            _ => Ok(None),
        }
    }

    /// Takes an operation back: what it changes is as it was before, or on its way there.
    ///
    /// # Errors
    /// As [`Session::place`].
    pub async fn cancel(&self, id: u64, reason: &str) -> anyhow::Result<()> {
        let cancel = Op::CancelOperation(pb::CancelOperation { id, reason: reason.to_owned() });
        self.place("operation.cancel", [format!("operation {id}")], cancel).await.map(drop)
    }

    /// An operation as it stands now.
    ///
    /// # Errors
    /// When placement does not answer, or has forgotten it.
    pub async fn operation(&self, id: u64) -> anyhow::Result<pb::Operation> {
        match self.ask(ShardId::PLACEMENT.0, query::Query::GetOperation(pb::GetOperation { id })).await? {
            answer::Answer::Operation(operation) => Ok(operation),
            _ => bail!("placement does not know operation {id} any more"),
        }
    }

    /// Those that run and the last that have ended, the newest first.
    ///
    /// # Errors
    /// When placement does not answer.
    pub async fn operations(&self) -> anyhow::Result<Vec<pb::Operation>> {
        let list = query::Query::ListOperations(pb::ListOperations { limit: 0 });
        match self.ask(ShardId::PLACEMENT.0, list).await? {
            answer::Answer::Operations(listed) => Ok(listed.operations),
            _ => bail!("placement answered something else than a list of operations"),
        }
    }

    /// Waits until an operation has ended. Dropping this does not end the operation.
    ///
    /// # Errors
    /// When placement has forgotten it.
    pub async fn until_ended(&self, id: u64, tell: Tell<'_>) -> anyhow::Result<pb::Operation> {
        let mut told = (OperationStep::Recorded, String::new());
        loop {
            let asked = self.ask(ShardId::PLACEMENT.0, query::Query::GetOperation(pb::GetOperation { id })).await;
            match asked {
                Ok(answer::Answer::Operation(operation)) if operation.ended_ms > 0 => return Ok(operation),
                Ok(answer::Answer::Operation(operation)) => {
                    let now = (operation.step(), operation.waits_for.clone());
                    if now != told {
                        tell(Look::At(&operation));
                    }
                    told = now;
                }
                Ok(_) => bail!("placement does not know operation {id} any more"),
                Err(error) => tell(Look::Unanswered(id, &error)),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same, and an error where it was cancelled.
    ///
    /// # Errors
    /// As [`Self::until_ended`]; and when somebody, or the cluster, took it back.
    pub async fn until_done(&self, id: u64, tell: Tell<'_>) -> anyhow::Result<()> {
        let ended = self.until_ended(id, tell).await.with_context(|| format!("wait for operation {id}"))?;
        match ended.state() {
            OperationState::Done => Ok(()),
            _ => bail!("operation {id} was cancelled; all is as it was: {}", ended.waits_for),
        }
    }
}
