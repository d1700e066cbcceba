//! The one writer of the log: everything that waits is written in one piece and synced once. Whoever is alone writes himself.
//!
//! Invariant: after a failed write nothing more is written for the groups that it concerned, until they are opened
//! anew from what the log really holds; otherwise a later entry could end up behind a hole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use openraft::storage::IOFlushed;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::blocking::{self, Threads};
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

/// Larger writes than this are the writer's thread's, in bytes: they take longer than a sync.
const ALONE_BYTES_MAX: usize = 256 << 10;

/// The name of the writer's thread.
const THREAD: &str = "raft-log";

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
            LogOp::Append { entries, .. } => entries.iter().map(types::weight).sum(),
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

/// The queue in front of the writer's thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Queued>,
    worker: Arc<Worker>,
    threads: Threads,
    thread: Arc<Mutex<Option<std::thread::JoinHandle<()>>>>,
}

impl Writer {
    pub(crate) fn start(
        engine: Arc<dyn LogEngine>,
        counters: Arc<Counters>,
        faults: Arc<dyn Faults>,
        threads: Threads,
    ) -> std::io::Result<Self> {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let worker = Arc::new(Worker {
            engine,
            counters,
            faults,
            queued: AtomicUsize::new(0),
            turn: Mutex::new(Turn::default()),
            under_way: Mutex::new(None),
        });
        let thread = {
            let worker = worker.clone();
            std::thread::Builder::new().name(THREAD.to_owned()).spawn(move || worker.run(waiting))?
        };
        Ok(Self { queue, worker, threads, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// How long the disk has kept the write that is under way waiting.
    pub(crate) fn stalled(&self) -> Duration {
        self.worker.under_way.lock().map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Queues `op` behind everything that was queued before.
    pub(crate) async fn queue(
        &self,
        group: GroupId,
        log: Option<Arc<GroupLog>>,
        op: LogOp,
        done: Done,
    ) -> Result<(), LogError> {
        self.send(Write { group, log, op, done }).await
    }

    /// Writes `op` on the caller's thread if nothing waits for the writer's, which then need not be woken, nor wake anybody; otherwise
    /// queues it.
    pub(crate) async fn write_here(
        &self,
        group: GroupId,
        log: Option<Arc<GroupLog>>,
        op: LogOp,
        done: Done,
    ) -> Result<(), LogError> {
        let write = Write { group, log, op, done };
        if write.bytes() > ALONE_BYTES_MAX || !self.worker.is_idle() {
            return self.send(write).await;
        }
        let left = match self.threads.hold() {
            Some(_held) => self.worker.write_alone(write),
            None => Some(write),
        };
        match left {
            Some(write) => self.send(write).await,
            None => Ok(()),
        }
    }

    async fn send(&self, write: Write) -> Result<(), LogError> {
        let place = self.queue.reserve().await.map_err(|_| LogError::Closed)?;
        self.worker.queued.fetch_add(1, Ordering::AcqRel);
        place.send(Some(write));
        Ok(())
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

/// Whose turn it is to write: whoever holds it.
#[derive(Default)]
struct Turn {
    /// When the next write may begin, under load.
    not_before: Option<Instant>,
    closed: bool,
}

impl Turn {
    /// A write of so many appends begins.
    fn begin(&mut self, appends: usize, now: Instant) {
        self.not_before = (appends >= PACED_APPENDS_MIN).then(|| now + PACE);
    }

    /// How long the next write has to wait.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.not_before?.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }
}

struct Worker {
    engine: Arc<dyn LogEngine>,
    counters: Arc<Counters>,
    faults: Arc<dyn Faults>,
    /// Writes that were queued and are not done with.
    queued: AtomicUsize,
    turn: Mutex<Turn>,
    /// When the write that is under way began, if one is.
    under_way: Mutex<Option<Instant>>,
}

impl Worker {
    fn run(&self, mut waiting: mpsc::Receiver<Queued>) {
        while let Some(Some(first)) = waiting.blocking_recv() {
            let mut turn = self.turn.lock();
            if turn.closed {
                return;
            }
            if let Some(wait) = turn.wait(Instant::now()) {
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
            let appends = writes.iter().filter(|write| matches!(write.op, LogOp::Append { .. })).count();
            turn.begin(appends, Instant::now());
            let count = writes.len();
            self.commit(writes);
            self.queued.fetch_sub(count, Ordering::AcqRel);
            if closed {
                break;
            }
        }
        // Who writes himself has finished when this ends, and writes no more.
        self.turn.lock().closed = true;
    }

    /// Whether whoever holds the turn may write: nothing was queued before, of his group or another's.
    fn is_free(&self, turn: &Turn) -> bool {
        self.queued.load(Ordering::Acquire) == 0 && turn.wait(Instant::now()).is_none() && !turn.closed
    }

    /// Whether a write would be alone, as far as that can be seen without taking the turn.
    fn is_idle(&self) -> bool {
        self.turn.try_lock().is_some_and(|turn| self.is_free(&turn))
    }

    /// Writes, or gives back what should wait with others.
    fn write_alone(&self, write: Write) -> Option<Write> {
        let Some(mut turn) = self.turn.try_lock().filter(|turn| self.is_free(turn)) else {
            return Some(write);
        };
        turn.begin(1, Instant::now());
        let log = write.log.clone();
        if let Err(error) = blocking::caught(|| self.commit(vec![write])) {
            // As if the writer's thread had panicked: what is half written is not built upon.
            tracing::error!(%error, "the log is closed");
            turn.closed = true;
            *self.under_way.lock() = None;
            if let Some(log) = log {
                log.fail(&LogError::Closed);
            }
        }
        None
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

    struct Begun {
        at: Instant,
        changes: usize,
        /// On the writer's own thread.
        by_writer: bool,
    }

    /// Notes what each write is; each waits until it may end.
    struct Gate {
        begun: std_mpsc::Sender<Begun>,
        may_end: Mutex<std_mpsc::Receiver<()>>,
    }

    impl LogEngine for Gate {
        fn write(&self, ops: &[(GroupId, LogOp)]) -> Result<Written, LogError> {
            let by_writer = std::thread::current().name() == Some(THREAD);
            self.begun.send(Begun { at: Instant::now(), changes: ops.len(), by_writer }).expect("the test listens");
            self.may_end.lock().recv().map_err(|_| LogError::Closed)?;
            Ok(Written::default())
        }
        fn groups(&self) -> Result<Vec<(GroupId, crate::ids::Incarnation)>, LogError> {
            Ok(vec![(GROUP, crate::ids::Incarnation(1))])
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
        fn vacuum(&self) -> Result<(), LogError> {
            Ok(())
        }
        fn reclaim(&self) -> Result<(), LogError> {
            Ok(())
        }
        fn size(&self) -> LogSize {
            LogSize::default()
        }
    }

    fn append() -> LogOp {
        LogOp::Append { entries: vec![Entry { log_id: log_id(1, 1), payload: Payload::Blank }], committed: None }
    }

    /// A writer, what it begins, and what lets that end.
    fn gated() -> (Writer, std_mpsc::Receiver<Begun>, std_mpsc::Sender<()>) {
        let (begun, writes) = std_mpsc::channel();
        let (end, may_end) = std_mpsc::channel();
        let engine = Arc::new(Gate { begun, may_end: Mutex::new(may_end) });
        let writer = Writer::start(
            engine,
            Arc::new(Counters::default()),
            Arc::new(NoFaults),
            Threads::watch().expect("watched"),
        )
        .expect("a writer");
        (writer, writes, end)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn whoever_is_alone_writes_himself_and_whoever_is_not_stands_in_line() {
        let (writer, writes, end) = gated();
        let here = |writer: &Writer| {
            let writer = writer.clone();
            async move { writer.write_here(GROUP, None, append(), Done::Nobody).await }
        };

        let alone = tokio::spawn(here(&writer));
        let first = writes.recv().expect("a write");
        assert_eq!((first.changes, first.by_writer), (1, false));
        assert!(writer.stalled() > Duration::ZERO);

        // Neither waits for it, and neither comes before it.
        writer.queue(GROUP, None, append(), Done::Nobody).await.expect("queued");
        here(&writer).await.expect("queued");
        end.send(()).expect("somebody writes");
        alone.await.expect("no panic").expect("written");
        let then = writes.recv().expect("a write");
        assert_eq!((then.changes, then.by_writer), (2, true));
        end.send(()).expect("somebody writes");

        writer.close().await;
        assert!(matches!(here(&writer).await, Err(LogError::Closed)));
    }

    #[test]
    fn writes_are_paced_under_load_and_only_then() {
        let (mut turn, now) = (Turn::default(), Instant::now());
        assert_eq!(turn.wait(now), None);
        turn.begin(PACED_APPENDS_MIN - 1, now);
        assert_eq!(turn.wait(now), None);

        turn.begin(PACED_APPENDS_MIN, now);
        assert_eq!(turn.wait(now), Some(PACE));
        assert_eq!(turn.wait(now + PACE / 3), Some(PACE - PACE / 3));
        assert_eq!(turn.wait(now + PACE), None);
        assert_eq!(turn.wait(now + 2 * PACE), None);

        turn.begin(1, now);
        assert_eq!(turn.wait(now), None);
    }

    #[tokio::test]
    async fn what_waits_while_the_disk_is_busy_goes_together_and_what_comes_then_waits_for_company() {
        let (writer, writes, end) = gated();
        let queue = async || writer.queue(GROUP, None, append(), Done::Nobody).await.expect("queued");

        queue().await;
        assert_eq!(writes.recv().expect("a write").changes, 1);
        for _ in 0..PACED_APPENDS_MIN {
            queue().await;
        }
        // The next write can begin no sooner than this.
        let released = Instant::now();
        end.send(()).expect("the writer waits");
        assert_eq!(writes.recv().expect("a write").changes, PACED_APPENDS_MIN);
        end.send(()).expect("the writer waits");
        queue().await;
        let last = writes.recv().expect("a write");
        assert!(last.at >= released + PACE, "{:?}", last.at - released);
        end.send(()).expect("the writer waits");
        writer.close().await;
    }
}
