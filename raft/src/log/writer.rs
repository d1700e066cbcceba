//! The one writer of the log: everything that waits is written in one piece and synced once.
//!
//! Invariant: after a failed write nothing more is written for the groups that it concerned, until they are opened
//! anew from what the log really holds; otherwise a later entry could end up behind a hole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::faults::{FaultPoint, Faults};
use crate::ids::GroupId;
use crate::log::engine::{LogEngine, LogError, LogOp};
use crate::log::store::GroupLog;
use crate::stats::Counters;
use crate::types::{self, Types};

/// Changes that may wait for the writer, of all groups together.
const QUEUE_MAX: usize = 4_096;
/// One write takes no more than this once it is exceeded, in bytes.
const WRITE_BYTES_MAX: usize = 8 << 20;

/// A write that found this many appends waiting shows that there is load: more are on their way.
const PACED_APPENDS_MIN: usize = 3;
/// Under load a write begins no sooner than this after the one before, so that more share its sync. Whoever has company waits
/// longer for a processor than for this; one who is alone never waits.
const PACE: Duration = Duration::from_millis(6);

/// Whom to tell, and what.
pub(crate) enum Done {
    /// Entries up to `next`, exclusive, are synced.
    Appended { next: u64, callback: IOFlushed<Types> },
    /// The change is written; synced if its kind asks for that.
    Signal(oneshot::Sender<Result<(), LogError>>),
    /// Nobody waits.
    Nobody,
}

/// A change that waits, or nothing: the writer is to end.
type Queued = Option<Write>;

struct Write {
    group: GroupId,
    /// The opened log that asked, if one did.
    log: Option<Arc<GroupLog>>,
    op: LogOp,
    done: Done,
}

impl Write {
    fn bytes(&self) -> usize {
        match &self.op {
            LogOp::Append(entries) => entries.iter().map(types::weight).sum(),
            _ => types::ENTRY_OVERHEAD_BYTES,
        }
    }

    fn finish(self, result: Result<(), LogError>) {
        if let (Some(log), Err(error)) = (&self.log, &result) {
            log.fail(error);
        }
        match self.done {
            Done::Appended { next, callback } => {
                if let (Some(log), Ok(())) = (&self.log, &result) {
                    log.advance_synced(next);
                }
                callback.io_completed(result.map_err(Into::into));
            }
            // Whoever asked may have gone away: then nobody wants to know.
            Done::Signal(tell) => drop(tell.send(result)),
            Done::Nobody => {}
        }
    }
}

/// When the write that is under way began, if one is.
type UnderWay = Arc<Mutex<Option<Instant>>>;

/// The queue in front of the writer's thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Queued>,
    under_way: UnderWay,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl Writer {
    pub(crate) fn start(
        engine: Arc<dyn LogEngine>,
        counters: Arc<Counters>,
        faults: Arc<dyn Faults>,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let under_way = UnderWay::default();
        let worker = Worker { engine, counters, faults, under_way: under_way.clone() };
        let thread = std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || worker.run(waiting))?;
        Ok(Self { queue, under_way, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// How long the disk has kept the write that is under way waiting.
    pub(crate) fn stalled(&self) -> Duration {
        self.under_way.lock().map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Queues `op` behind everything that was queued before.
    pub(crate) async fn queue(
        &self,
        group: GroupId,
        log: Option<Arc<GroupLog>>,
        op: LogOp,
        done: Done,
    ) -> Result<(), LogError> {
        let write = Write { group, log, op, done };
        self.queue.send(Some(write)).await.map_err(|_| LogError::Closed)
    }

    /// Queues `op` and waits until it is written.
    pub(crate) async fn write(&self, group: GroupId, log: Option<Arc<GroupLog>>, op: LogOp) -> Result<(), LogError> {
        let (tell, told) = oneshot::channel();
        self.queue(group, log, op, Done::Signal(tell)).await?;
        told.await.map_err(|_| LogError::Closed)?
    }

    /// Writes what is queued and ends the thread; what is queued later is refused.
    pub(crate) async fn close(&self) {
        // A writer that has ended already needs no telling.
        drop(self.queue.send(None).await);
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::error!("the log writer panicked"),
        }
    }
}

struct Worker {
    engine: Arc<dyn LogEngine>,
    counters: Arc<Counters>,
    faults: Arc<dyn Faults>,
    under_way: UnderWay,
}

impl Worker {
    fn run(self, mut waiting: mpsc::Receiver<Queued>) {
        let mut not_before = None;
        while let Some(Some(first)) = waiting.blocking_recv() {
            if let Some(wait) = not_before.and_then(|until: Instant| until.checked_duration_since(Instant::now())) {
                std::thread::sleep(wait);
            }
            let mut bytes = first.bytes();
            let mut writes = vec![first];
            let mut closed = false;
            while bytes < WRITE_BYTES_MAX
                && let Ok(next) = waiting.try_recv()
            {
                let Some(next) = next else {
                    closed = true;
                    break;
                };
                bytes += next.bytes();
                writes.push(next);
            }
            let appends = writes.iter().filter(|write| matches!(write.op, LogOp::Append(_))).count();
            not_before = (appends >= PACED_APPENDS_MIN).then(|| Instant::now() + PACE);
            self.commit(writes);
            if closed {
                return;
            }
        }
    }

    fn commit(&self, writes: Vec<Write>) {
        let mut ops = Vec::with_capacity(writes.len());
        let mut accepted = Vec::with_capacity(writes.len());
        for mut write in writes {
            if let Some(error) = write.log.as_ref().and_then(|log| log.failure()) {
                write.finish(Err(error));
                continue;
            }
            // The entries stay in the tail; here they are only borrowed bytes, so moving them out is enough.
            let op = std::mem::replace(&mut write.op, LogOp::Barrier);
            ops.push((write.group, op));
            accepted.push(write);
        }
        if ops.is_empty() {
            return;
        }
        *self.under_way.lock() = Some(Instant::now());
        let result = self.write(&ops);
        *self.under_way.lock() = None;
        if let Err(error) = &result {
            tracing::error!(%error, "the log refused a write; the groups concerned stop");
        }
        for write in accepted {
            write.finish(result.clone());
        }
    }

    fn write(&self, ops: &[(GroupId, LogOp)]) -> Result<(), LogError> {
        let injected = |fault: crate::faults::Injected| LogError::Engine { action: "write", reason: fault.to_string() };
        self.faults.reach(FaultPoint::LogBeforeWrite).map_err(injected)?;
        let written = self.engine.write(ops)?;
        self.counters.log_written(written.bytes, written.syncs);
        self.faults.reach(FaultPoint::LogAfterSync).map_err(injected)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::mpsc as std_mpsc;

    use super::*;
    use crate::faults::NoFaults;
    use crate::ids::NodeId;
    use crate::log::engine::{LogHead, LogSize, Written};
    use crate::types::{Entry, Payload, log_id};

    const GROUP: GroupId = GroupId(1);

    /// Notes when each write begins and how many changes are in it; each waits until it may end.
    struct Gate {
        begun: std_mpsc::Sender<(Instant, usize)>,
        may_end: Mutex<std_mpsc::Receiver<()>>,
    }

    impl LogEngine for Gate {
        fn write(&self, ops: &[(GroupId, LogOp)]) -> Result<Written, LogError> {
            self.begun.send((Instant::now(), ops.len())).expect("the test listens");
            self.may_end.lock().recv().map_err(|_| LogError::Closed)?;
            Ok(Written::default())
        }
        fn groups(&self) -> Result<Vec<GroupId>, LogError> {
            Ok(vec![GROUP])
        }
        fn head(&self, _: GroupId) -> Result<LogHead, LogError> {
            Ok(LogHead::default())
        }
        fn entries(&self, _: GroupId, _: Range<u64>, _: usize) -> Result<Vec<Entry>, LogError> {
            Ok(Vec::new())
        }
        fn claim(&self, node: NodeId) -> Result<NodeId, LogError> {
            Ok(node)
        }
        fn reclaim(&self) -> Result<(), LogError> {
            Ok(())
        }
        fn size(&self) -> LogSize {
            LogSize::default()
        }
    }

    fn append() -> LogOp {
        LogOp::Append(vec![Entry { log_id: log_id(1, 1), payload: Payload::Blank }])
    }

    #[tokio::test]
    async fn writes_are_paced_under_load_and_only_then() {
        let (begun, writes) = std_mpsc::channel();
        let (end, may_end) = std_mpsc::channel();
        let engine = Arc::new(Gate { begun, may_end: Mutex::new(may_end) });
        let writer = Writer::start(engine, Arc::new(Counters::default()), Arc::new(NoFaults)).expect("a writer");
        let queue = async || writer.queue(GROUP, None, append(), Done::Nobody).await.expect("queued");

        // What waits while the disk is busy goes together; what comes then waits for company.
        queue().await;
        assert_eq!(writes.recv().expect("a write").1, 1);
        for _ in 0..PACED_APPENDS_MIN {
            queue().await;
        }
        end.send(()).expect("the writer waits");
        let (together, count) = writes.recv().expect("a write");
        assert_eq!(count, PACED_APPENDS_MIN);
        end.send(()).expect("the writer waits");
        queue().await;
        let (mut last, _) = writes.recv().expect("a write");
        assert!(last - together >= PACE, "{:?}", last - together);

        // One after the other, none has company: of many that would all wait at least one shows that none does.
        let mut shortest = Duration::MAX;
        for _ in 0..200 {
            end.send(()).expect("the writer waits");
            queue().await;
            let (next, count) = writes.recv().expect("a write");
            assert_eq!(count, 1);
            shortest = shortest.min(next - last);
            last = next;
        }
        assert!(shortest < PACE, "{shortest:?}");
        end.send(()).expect("the writer waits");
        writer.close().await;
    }
}
