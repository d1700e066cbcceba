//! Many connections on one thread, each doing one thing after the other until the load is over.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::Until;
use super::percentile::Samples;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

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
    /// The same from when it was due.
    pub(crate) from_due: Samples,
}

/// Numbers the things to do, and says when each is due and when there are no more.
#[derive(Clone)]
pub(crate) struct Turns {
    next: Rc<Cell<u64>>,
    until: Until,
    /// Things a second, if not as many as can be done.
    rate: Option<u32>,
    begin: Instant,
}

impl Turns {
    fn new(until: Until, rate: Option<u32>) -> Self {
        Self { next: Rc::default(), until, rate, begin: Instant::now() }
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

    /// The next thing to do, once it is due, and when it was: earlier than now if nobody was free.
    pub(crate) async fn take_due(&self) -> Option<(u64, Instant)> {
        let turn = self.take()?;
        let Some(rate) = self.rate else {
            return Some((turn, Instant::now()));
        };
        let due = self.begin + Duration::from_nanos(turn.saturating_mul(NANOS_PER_SECOND) / u64::from(rate));
        if matches!(self.until, Until::Elapsed(time) if due - self.begin >= time) {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        Some((turn, due))
    }
}

/// Runs `connections` futures of `connect` on a thread of their own, at `rate` a second or as fast as they can, and adds up what they did.
pub(crate) async fn run<F, Fut>(
    connections: usize,
    until: Until,
    rate: Option<u32>,
    connect: F,
) -> anyhow::Result<Outcome>
where
    F: Fn(usize, Turns) -> Fut + Send + 'static,
    Fut: Future<Output = anyhow::Result<Outcome>> + 'static,
{
    let thread = move || -> anyhow::Result<Outcome> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the generator")?;
        let local = tokio::task::LocalSet::new();
        let turns = Turns::new(until, rate);
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
                whole.from_due.append(part.from_due);
            }
            anyhow::Ok(whole)
        })?;
        Ok(Outcome { took: begin.elapsed(), ..outcome })
    };
    tokio::task::spawn_blocking(thread).await.context("the generator's thread")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_are_due_at_their_rate() {
        let turns = Turns::new(Until::Count(3), Some(100));
        for turn in 0..3 {
            let due = turns.begin + Duration::from_millis(10) * u32::try_from(turn).expect("few");
            assert_eq!(turns.take_due().await, Some((turn, due)));
            assert!(due.elapsed() > Duration::ZERO, "not before it is due");
        }
        assert_eq!(turns.take_due().await, None);

        let turns = Turns::new(Until::Elapsed(Duration::from_secs(60)), Some(1));
        turns.next.set(60);
        assert_eq!(turns.take_due().await, None, "it would be due when the load is over");
    }
}
