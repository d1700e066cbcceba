//! Many connections on one thread, each doing one thing after the other until the load is over.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Until;
use super::percentile::Samples;

/// What all connections together have done.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Things done.
    pub(crate) done: u64,
    /// Things refused or unanswered.
    pub(crate) failed: u64,
    /// Bytes of what was done.
    pub(crate) bytes: u64,
    /// From the first begin to the last end.
    pub(crate) took: Duration,
    /// How long each took that was done.
    pub(crate) latency: Samples,
}

/// Numbers the things to do, and says when there are no more.
#[derive(Clone)]
pub(crate) struct Turns {
    next: Rc<Cell<u64>>,
    until: Until,
    begin: Instant,
}

impl Turns {
    fn new(until: Until) -> Self {
        Self { next: Rc::default(), until, begin: Instant::now() }
    }

    /// The number of the next thing to do.
    pub(crate) fn take(&self) -> Option<u64> {
        let turn = self.next.get();
        let over = match self.until {
            Until::Count(count) => turn >= count,
            Until::Elapsed(time) => self.begin.elapsed() >= time,
        };
        if over {
            return None;
        }
        self.next.set(turn + 1);
        Some(turn)
    }
}

/// Runs `connections` futures of `connect` on a thread of their own and adds up what they did.
pub(crate) async fn run<F, Fut>(connections: usize, until: Until, connect: F) -> anyhow::Result<Outcome>
where
    F: Fn(usize, Turns) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<Outcome>> + 'static,
{
    let thread = move || -> anyhow::Result<Outcome> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the generator")?;
        let local = tokio::task::LocalSet::new();
        let turns = Turns::new(until);
        let begin = turns.begin;
        let outcome = local.block_on(&runtime, async move {
            let tasks: Vec<_> = (0..connections).map(|n| tokio::task::spawn_local(connect(n, turns.clone()))).collect();
            let mut whole = Outcome::default();
            for task in tasks {
                let part = task.await.context("a connection's task")??;
                whole.done += part.done;
                whole.failed += part.failed;
                whole.bytes += part.bytes;
                whole.latency.append(part.latency);
            }
            anyhow::Ok(whole)
        })?;
        Ok(Outcome { took: begin.elapsed(), ..outcome })
    };
    tokio::task::spawn_blocking(thread).await.context("the generator's thread")?
}
