//! Followers over a database that the state machine itself fills: every change once and in order, whatever happens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use postrider_api::env::SystemClock;
use postrider_api::id::{ShardId, Slot, UserId, ZoneId};
use postrider_api::pb::{self, command::Op};
use postrider_raft::state_prefix;
use postrider_shard::key::{Key, KeyRange, Table};
use postrider_shard::store::{Direction, Reader, RocksReader, Txn};
use postrider_shard::tail::{self, Change, Object};
use prost::Message;
use rocksdb::{DB, WriteBatch};
use tempfile::TempDir;

use super::*;
use crate::replicas::group;

const GENEROUS: Duration = Duration::from_secs(60);
pub(crate) const SHARD: ShardId = ShardId(1000);
const OTHER: ShardId = ShardId(1001);

/// A node's database, and what has been applied to it.
pub(crate) struct State {
    _dir: TempDir,
    pub(crate) db: Arc<DB>,
    applied: BTreeMap<ShardId, u64>,
}

impl State {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Arc::new(DB::open_default(dir.path()).unwrap());
        Self { _dir: dir, db, applied: BTreeMap::new() }
    }

    pub(crate) fn rows(&self, shard: ShardId) -> RocksReader<'_> {
        RocksReader::new(&self.db, state_prefix(group(shard)))
    }

    /// Every row, copied.
    fn all(&self, shard: ShardId) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = self.rows(shard);
        let all = rows.scan(&KeyRange::all(), Direction::Forward).map(Result::unwrap);
        all.map(|(key, value)| (key.as_ref().to_vec(), value.to_vec())).collect()
    }

    fn write(&self, shard: ShardId, rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>) {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            let key = [&state_prefix(group(shard))[..], &key].concat();
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        self.db.write(batch).unwrap();
    }

    /// Applies one command.
    pub(crate) fn apply(&mut self, shard: ShardId, op: Op) {
        let index = self.applied.entry(shard).or_insert(2);
        // Gaps, as where consensus writes entries of its own.
        *index += 1 + *index % 3;
        let command = pb::Command {
            request: u128::from(*index).to_be_bytes().to_vec().into(),
            at_ms: 5,
            entropy: vec![7; 16].into(),
            op: Some(op),
            ..Default::default()
        };
        let rows = RocksReader::new(&self.db, state_prefix(group(shard)));
        let mut txn = Txn::new(&rows);
        let applied = postrider_shard::apply(shard, &mut txn, *index, &command).unwrap();
        assert!(applied.changes > 0, "{:?}", applied.outcome);
        let writes: Vec<_> =
            txn.into_writes().map(|(key, value)| (key.as_ref().to_vec(), value.map(|value| value.to_vec()))).collect();
        self.write(shard, writes);
    }

    /// Some people more, each with folders: more rows than one batch has.
    pub(crate) fn grow(&mut self, shard: ShardId, people: u16) {
        let known = self.rows(shard).scan(&KeyRange::table(Table::Accounts), Direction::Forward).count();
        let known = u16::try_from(known).unwrap();
        for n in known..known + people {
            let user = user(n);
            self.apply(
                shard,
                Op::CreateAccount(pb::CreateAccount {
                    user_id: user.to_bytes(),
                    address: format!("{n}@postrider.example"),
                    password_hash: "hash".to_owned(),
                    quota_bytes: 1 << 30,
                    ..Default::default()
                }),
            );
            let folder = pb::CreateFolder { user_id: user.to_bytes(), name: "Own".to_owned() };
            self.apply(shard, Op::CreateFolder(folder));
        }
    }

    /// The shard as `from` has it: what a snapshot does.
    pub(crate) fn install(&mut self, shard: ShardId, from: &State) {
        let gone = self.all(shard).into_iter().map(|(key, _)| (key, None));
        let new = from.all(shard).into_iter().map(|(key, value)| (key, Some(value)));
        self.write(shard, gone.chain(new));
        self.applied.insert(shard, from.applied[&shard]);
    }

    /// Trims the tail up to `floor`, as apply does with what is too old.
    pub(crate) fn trim(&mut self, shard: ShardId, floor: u64) {
        let changes = tail::read(&self.rows(shard), 0, usize::MAX).unwrap().changes;
        let mut bytes = 0;
        let mut rows: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for change in changes.iter().filter(|change| change.index < floor) {
            let key = Key::Tail(change.index, change.n).bytes();
            bytes += (key.as_ref().len() + self.rows(shard).get(&key).unwrap().unwrap().len()) as u64;
            rows.push((key.as_ref().to_vec(), None));
        }
        let state = self.rows(shard).get(&Key::Shard.bytes()).unwrap().unwrap();
        let mut state = pb::ShardRecord::decode(state).unwrap();
        (state.tail_floor, state.tail_bytes) = (floor, state.tail_bytes - bytes);
        rows.push((Key::Shard.bytes().as_ref().to_vec(), Some(state.encode_to_vec())));
        self.write(shard, rows);
    }

    fn changes(&self, shard: ShardId) -> Vec<Change> {
        tail::read(&self.rows(shard), 0, usize::MAX).unwrap().changes
    }

    pub(crate) fn newest(&self, shard: ShardId) -> u64 {
        tail::newest(&self.rows(shard)).unwrap().unwrap()
    }
}

pub(crate) fn user(n: u16) -> UserId {
    UserId::new(ZoneId(1), Slot(n), [3; 12])
}

/// What a recorder has derived of a shard.
#[derive(Debug, Clone, Default, PartialEq)]
struct Derived {
    watermark: Option<u64>,
    changes: Vec<Change>,
    rebuilt: Vec<Reason>,
    restored: u32,
}

/// Derived things as they are on disk, and as they are in memory.
#[derive(Default)]
struct Disk {
    kept: Mutex<BTreeMap<ShardId, Derived>>,
    live: Mutex<BTreeMap<ShardId, Derived>>,
    /// Batches that it refuses yet.
    refuses: Mutex<u32>,
}

struct Recorder(Arc<Disk>);

impl Recorder {
    /// After a start: what was not kept is lost.
    fn start(disk: &Arc<Disk>) -> Self {
        *disk.live.lock() = disk.kept.lock().clone();
        Self(disk.clone())
    }
}

impl Follower for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn shards(&self) -> Vec<ShardId> {
        self.0.live.lock().keys().copied().collect()
    }

    fn watermark(&self, shard: ShardId) -> Option<u64> {
        self.0.live.lock().get(&shard)?.watermark
    }

    fn follow(&mut self, shard: ShardId, batch: &Batch<'_>) -> Result<(), FollowError> {
        let mut refuses = self.0.refuses.lock();
        if *refuses > 0 {
            *refuses -= 1;
            return Err(FollowError::Stopping);
        }
        // Rows that the changes name can be read.
        for change in batch.changes {
            if let Object::Account(user) = change.object {
                assert!(batch.rows.get(&Key::Account(user).bytes()).unwrap().is_some());
            }
        }
        let mut live = self.0.live.lock();
        let derived = live.entry(shard).or_default();
        derived.changes.extend_from_slice(batch.changes);
        derived.watermark = Some(batch.through);
        Ok(())
    }

    fn rebuild(&mut self, shard: ShardId, whole: &Whole<'_>) -> Result<(), FollowError> {
        let mut live = self.0.live.lock();
        let derived = live.entry(shard).or_default();
        derived.changes.clear();
        derived.rebuilt.push(whole.reason);
        derived.watermark = Some(whole.through);
        assert!(whole.rows.scan(&KeyRange::all(), Direction::Forward).count() > 0);
        whole.check()
    }

    fn restored(&mut self, shard: ShardId) {
        self.0.live.lock().entry(shard).or_default().restored += 1;
    }

    fn removed(&mut self, shard: ShardId) -> Result<(), FollowError> {
        self.0.live.lock().remove(&shard);
        Ok(())
    }

    fn keep(&mut self, _: bool) -> Result<bool, FollowError> {
        *self.0.kept.lock() = self.0.live.lock().clone();
        Ok(true)
    }
}

/// A follower that runs, and the way to tell it.
pub(crate) struct Following {
    pub(crate) follow: Follow,
    pub(crate) thread: FollowerThread,
}

pub(crate) fn start(state: &State, follower: impl Follower, hosted: &[ShardId]) -> Following {
    let follow = Follow::new(1);
    // As the host does for each replica that it opens.
    hosted.iter().for_each(|shard| follow.restored(*shard));
    let (inbox, clock) = (follow.inboxes()[0].clone(), SystemClock::shared());
    let thread = FollowerThread::start(Box::new(follower), inbox, state.db.clone(), clock, hosted.to_vec()).unwrap();
    Following { follow, thread }
}

pub(crate) fn wait(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < GENEROUS, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn at(disk: &Disk, shard: ShardId) -> Option<u64> {
    disk.live.lock().get(&shard)?.watermark
}

#[test]
fn every_change_is_seen_once_and_in_order_across_restarts_and_kills() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    for round in 0..6 {
        let following = start(&state, Recorder::start(&disk), &[SHARD, OTHER]);
        for _ in 0..4 {
            state.grow(SHARD, 40);
            following.follow.changed(SHARD);
            state.grow(OTHER, 3);
            following.follow.changed(OTHER);
        }
        let (newest, other) = (state.newest(SHARD), state.newest(OTHER));
        if round % 3 == 1 {
            // In the middle of it, and nothing is kept.
            wait("it begins", || at(&disk, OTHER).is_some());
            drop(following);
            continue;
        }
        wait("it catches up", || at(&disk, SHARD) == Some(newest) && at(&disk, OTHER) == Some(other));
        match round % 3 {
            0 => following.thread.stop(),
            _ => drop(following),
        }
    }
    let following = start(&state, Recorder::start(&disk), &[SHARD, OTHER]);
    for shard in [SHARD, OTHER] {
        wait("it catches up", || at(&disk, shard) == Some(state.newest(shard)));
        assert_eq!(disk.live.lock()[&shard].changes, state.changes(shard));
        assert!(disk.live.lock()[&shard].rebuilt.is_empty(), "the tail reaches back to the beginning");
    }
    following.thread.stop();
}

#[test]
fn a_snapshot_takes_nothing_from_a_follower() {
    let (mut state, mut ahead) = (State::new(), State::new());
    let disk = Arc::new(Disk::default());
    state.grow(SHARD, 20);
    ahead.grow(SHARD, 20);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it catches up", || at(&disk, SHARD) == Some(state.newest(SHARD)));
    ahead.grow(SHARD, 100);
    state.install(SHARD, &ahead);
    following.follow.restored(SHARD);
    wait("it catches up", || at(&disk, SHARD) == Some(ahead.newest(SHARD)));
    let derived = disk.live.lock()[&SHARD].clone();
    assert_eq!(derived.changes, ahead.changes(SHARD));
    assert_eq!((derived.rebuilt, derived.restored), (vec![], 2));
    following.thread.stop();
}

#[test]
fn a_state_that_comes_back_after_a_crash_is_not_followed_twice() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    state.grow(SHARD, 30);
    let mut earlier = State::new();
    earlier.install(SHARD, &state);
    state.grow(SHARD, 30);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it catches up", || at(&disk, SHARD) == Some(state.newest(SHARD)));
    following.thread.stop();
    // The database has lost what it had not flushed; the log brings it again, and then goes on.
    let following = start(&earlier, Recorder::start(&disk), &[SHARD]);
    earlier.grow(SHARD, 60);
    following.follow.changed(SHARD);
    wait("it catches up", || at(&disk, SHARD) == Some(earlier.newest(SHARD)));
    assert_eq!(disk.live.lock()[&SHARD].changes, earlier.changes(SHARD));
    following.thread.stop();
}

#[test]
fn whoever_was_away_for_too_long_builds_anew() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    state.grow(SHARD, 20);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    let watermark = state.newest(SHARD);
    wait("it catches up", || at(&disk, SHARD) == Some(watermark));
    following.thread.stop();
    // All that it has seen may go: it has missed nothing.
    state.grow(SHARD, 1);
    state.trim(SHARD, watermark + 1);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it catches up", || at(&disk, SHARD) == Some(state.newest(SHARD)));
    assert!(disk.live.lock()[&SHARD].rebuilt.is_empty());
    following.thread.stop();
    // More than that may not.
    let watermark = state.newest(SHARD);
    state.grow(SHARD, 20);
    let floor = state.newest(SHARD) - 3;
    state.trim(SHARD, floor);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it catches up", || at(&disk, SHARD) == Some(state.newest(SHARD)));
    assert_eq!(disk.live.lock()[&SHARD].rebuilt, [Reason::BelowFloor { watermark, floor }]);
    // And from there on change by change.
    let before = state.newest(SHARD);
    state.grow(SHARD, 2);
    following.follow.changed(SHARD);
    wait("it catches up", || at(&disk, SHARD) == Some(state.newest(SHARD)));
    let wanted: Vec<_> = state.changes(SHARD).into_iter().filter(|change| change.index > before).collect();
    assert_eq!(disk.live.lock()[&SHARD].changes, wanted);
    following.thread.stop();
}

#[test]
fn whoever_is_new_builds_from_the_rows_of_an_old_shard() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    state.grow(SHARD, 20);
    state.trim(SHARD, state.newest(SHARD) + 1);
    let floor = tail::floor(&state.rows(SHARD)).unwrap();
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it catches up", || at(&disk, SHARD) == Some(floor - 1));
    assert_eq!(disk.live.lock()[&SHARD].rebuilt, [Reason::New]);
    following.thread.stop();
}

#[test]
fn what_is_kept_of_a_removed_replica_goes() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    state.grow(SHARD, 5);
    state.grow(OTHER, 5);
    let following = start(&state, Recorder::start(&disk), &[SHARD, OTHER]);
    wait("it catches up", || at(&disk, SHARD).is_some() && at(&disk, OTHER).is_some());
    state.write(OTHER, state.all(OTHER).into_iter().map(|(key, _)| (key, None)));
    following.follow.removed(OTHER);
    wait("it goes", || !disk.live.lock().contains_key(&OTHER));
    following.thread.stop();
    // It went while the node was down.
    let following = start(&state, Recorder::start(&disk), &[]);
    wait("it goes", || !disk.live.lock().contains_key(&SHARD));
    following.thread.stop();
}

#[test]
fn what_was_refused_is_given_again() {
    let mut state = State::new();
    let disk = Arc::new(Disk::default());
    *disk.refuses.lock() = 2;
    state.grow(SHARD, 5);
    let following = start(&state, Recorder::start(&disk), &[SHARD]);
    wait("it refuses", || {
        following.follow.changed(SHARD);
        at(&disk, SHARD) == Some(state.newest(SHARD))
    });
    assert_eq!(disk.live.lock()[&SHARD].changes, state.changes(SHARD));
    following.thread.stop();
}

#[test]
fn the_tally_tells_what_the_rows_hold_and_a_lie_is_found() {
    let mut state = State::new();
    let dir = tempfile::tempdir().unwrap();
    let differences = |state: &State, tallies: &Tallies| {
        let snapshot = state.db.snapshot();
        let rows = RocksReader::of_snapshot(&snapshot, state_prefix(group(SHARD)));
        tallies.differences(SHARD, &rows, &state.rows(SHARD)).unwrap()
    };
    for round in 0..3 {
        let tally = Tally::open(dir.path());
        let tallies = tally.tallies();
        let following = start(&state, tally, &[SHARD]);
        state.grow(SHARD, 7);
        following.follow.changed(SHARD);
        // Whether it has caught up or not.
        assert_eq!(differences(&state, &tallies), Vec::<String>::new(), "round {round}");
        match round {
            0 => following.thread.stop(),
            _ => drop(following),
        }
    }
    let tally = Tally::open(dir.path());
    let tallies = tally.tallies();
    let following = start(&state, tally, &[SHARD]);
    following.follow.changed(SHARD);
    // A message that no change told of, and an account that went without one.
    let row = (Key::Email(user(0), postrider_api::id::EmailId([1; 16])).bytes().as_ref().to_vec(), Some(vec![]));
    state.write(SHARD, [row, (Key::Account(user(1)).bytes().as_ref().to_vec(), None)]);
    wait("it is found", || differences(&state, &tallies).len() == 2);
    let found = differences(&state, &tallies).concat();
    assert!(found.contains("0 messages, there are 1") && found.contains("21 accounts, there are 20"), "{found}");
    following.thread.stop();
}
