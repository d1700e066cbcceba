//! A follower's thread: reads the tail of changes of whichever shard has something new, a batch at a time, and hands it on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use postrider_api::env::Clock;
use postrider_api::id::ShardId;
use postrider_raft::state_prefix;
use postrider_shard::store::RocksReader;
use postrider_shard::tail;
use rocksdb::DB;

use super::inbox::{Inbox, Next, Note};
use super::{Batch, FollowError, Follower, Reason, Whole};
use crate::replicas::group;
use crate::scan::{Gone, ScanReader};

/// Rows of a batch, beside what its last command has beyond them.
const ROWS_PER_BATCH: usize = 1000;
/// Batches of one shard before the next has its turn.
const BATCHES_PER_TURN: u32 = 8;
/// The longest rest after a batch. A follower that is behind rests as long as it has worked, so that it takes no more than half
/// of a processor.
const REST_MAX: Duration = Duration::from_millis(100);
/// What was taken in is kept at least this often.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// A running follower.
pub(crate) struct FollowerThread {
    inbox: Arc<Inbox>,
    gone: Gone,
    thread: Option<JoinHandle<()>>,
}

impl FollowerThread {
    /// Starts it. `hosted`: the shards with a replica here; what it keeps of others goes.
    pub(crate) fn start(
        follower: Box<dyn Follower>,
        inbox: Arc<Inbox>,
        db: Arc<DB>,
        clock: Arc<dyn Clock>,
        hosted: Vec<ShardId>,
    ) -> std::io::Result<Self> {
        let name = follower.name();
        let gone = Gone::default();
        let driver = Driver { follower, name, inbox: inbox.clone(), db, clock, gone: gone.clone() };
        let run = move || {
            // A follower that breaks takes nothing else with it: what it derives can be made again.
            if catch_unwind(AssertUnwindSafe(|| driver.run(&hosted))).is_err() {
                tracing::error!(follower = name, "it has panicked, and follows no more until the node starts again");
                metrics::counter!("postrider_node_followers_lost_total", "follower" => name).increment(1);
            }
        };
        let thread = std::thread::Builder::new().name(format!("follow-{name}")).spawn(run)?;
        Ok(Self { inbox, gone, thread: Some(thread) })
    }

    /// Has it keep what it has taken in, and waits until it has ended. Blocks.
    pub(crate) fn stop(mut self) {
        self.end(true);
    }

    fn end(&mut self, keep: bool) {
        self.inbox.stop(keep);
        self.gone.leave();
        if let Some(thread) = self.thread.take() {
            // A panic was told of when it happened.
            drop(thread.join());
        }
    }
}

/// As a kill would end it; but its database is closed when this returns.
impl Drop for FollowerThread {
    fn drop(&mut self) {
        self.end(false);
    }
}

struct Driver {
    follower: Box<dyn Follower>,
    name: &'static str,
    inbox: Arc<Inbox>,
    db: Arc<DB>,
    clock: Arc<dyn Clock>,
    gone: Gone,
}

/// Whether a shard has more to give at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Something,
}

impl Driver {
    fn run(mut self, hosted: &[ShardId]) {
        for shard in self.follower.shards().into_iter().filter(|shard| !hosted.contains(shard)) {
            self.judge(shard, |driver| driver.follower.removed(shard));
        }
        // Since when something is to be kept.
        let mut unkept: Option<Duration> = None;
        loop {
            let patience = unkept.map(|since| (since + KEEP_EVERY).saturating_sub(self.clock.monotonic()));
            match self.inbox.next(patience) {
                Next::Shard(shard, note) => {
                    self.turn(shard, note);
                    unkept.get_or_insert(self.clock.monotonic());
                }
                Next::Nothing => {}
                Next::Stop { keep: true } => {
                    self.keep(true);
                    return;
                }
                Next::Stop { keep: false } => return,
            }
            if unkept.is_some_and(|since| self.clock.monotonic() >= since + KEEP_EVERY) {
                let is_all = self.keep(false);
                unkept = (!is_all).then(|| self.clock.monotonic());
            }
        }
    }

    /// Whether everything is kept.
    fn keep(&mut self, leaving: bool) -> bool {
        self.follower.keep(leaving).unwrap_or_else(|error| {
            tracing::error!(follower = self.name, %error, "what was followed cannot be kept");
            false
        })
    }

    fn turn(&mut self, shard: ShardId, note: Note) {
        if note.removed {
            self.judge(shard, |driver| driver.follower.removed(shard));
        }
        if note.restored {
            self.follower.restored(shard);
        }
        let mut left = Left::Something;
        for _ in 0..BATCHES_PER_TURN {
            if left == Left::Nothing || self.inbox.is_stopped() {
                break;
            }
            let began = self.clock.monotonic();
            left = self.judge(shard, |driver| driver.batch(shard)).unwrap_or(Left::Nothing);
            if left == Left::Something {
                let worked = self.clock.monotonic().saturating_sub(began);
                self.inbox.pause(worked.min(REST_MAX));
            }
        }
        if left == Left::Something {
            self.inbox.again(shard);
        }
    }

    /// Logs what went wrong: its shard's next change tries it again.
    fn judge<T>(&mut self, shard: ShardId, work: impl FnOnce(&mut Self) -> Result<T, FollowError>) -> Option<T> {
        match work(self) {
            Ok(made) => Some(made),
            Err(FollowError::Stopping | FollowError::Later) => None,
            Err(error) => {
                tracing::error!(follower = self.name, shard = shard.0, %error, "changes are not followed");
                metrics::counter!("postrider_node_follow_failures_total", "follower" => self.name).increment(1);
                None
            }
        }
    }

    /// Hands on what comes next: some changes, or the whole shard.
    fn batch(&mut self, shard: ShardId) -> Result<Left, FollowError> {
        let db = self.db.clone();
        let snapshot = db.snapshot();
        let rows = RocksReader::of_snapshot(&snapshot, state_prefix(group(shard)));
        let floor = tail::floor(&rows)?;
        let watermark = self.follower.watermark(shard);
        let from = watermark.map_or(0, |watermark| watermark + 1);
        if from < floor {
            let reason = match watermark {
                None => Reason::New,
                Some(watermark) => Reason::BelowFloor { watermark, floor },
            };
            return self.rebuild(shard, rows, floor, reason);
        }
        let read = tail::read(&rows, from, ROWS_PER_BATCH)?;
        let Some(through) = read.changes.last().map(|last| last.index) else { return Ok(Left::Nothing) };
        self.follower.follow(shard, &Batch { changes: &read.changes, through, rows: &rows })?;
        self.expect(shard, through)?;
        Ok(if read.more { Left::Something } else { Left::Nothing })
    }

    fn rebuild(
        &mut self,
        shard: ShardId,
        rows: RocksReader<'_>,
        floor: u64,
        reason: Reason,
    ) -> Result<Left, FollowError> {
        // Whoever has the rows has everything up to the last change in them: commands behind it have changed nothing.
        let through = tail::newest(&rows)?.unwrap_or(floor.saturating_sub(1));
        let gone = self.gone.clone();
        self.follower.rebuild(shard, &Whole { reason, rows: &ScanReader::new(rows, &gone), through, gone: &gone })?;
        metrics::counter!("postrider_node_follower_rebuilds_total", "follower" => self.name).increment(1);
        self.expect(shard, through)?;
        // There may be changes by now that its snapshot did not hold.
        Ok(Left::Something)
    }

    fn expect(&self, shard: ShardId, wanted: u64) -> Result<(), FollowError> {
        match self.follower.watermark(shard) {
            Some(found) if found == wanted => Ok(()),
            found => Err(FollowError::Watermark { wanted, found }),
        }
    }
}
