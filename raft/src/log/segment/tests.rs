//! The log on a disk that loses power at any moment, and on one that refuses.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::log::disk::{BLOCK_BYTES, Directory};
use crate::types::{Command, LogId, Payload, Vote, log_id};

/// What a disk writes in one piece.
const SECTOR: usize = 512;
const LIMITS: SegmentLimits = SegmentLimits { segment_bytes: 16 << 10, log_bytes: 64 << 10 };

// --- a disk ----------------------------------------------------------------------------------------------------------

#[derive(Clone, Default)]
struct Bytes {
    /// As the machine sees it.
    seen: Vec<u8>,
    /// As it would be after a power cut that keeps nothing else.
    durable: Vec<u8>,
    /// Written and not synced.
    pending: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone)]
enum Name {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default)]
struct State {
    files: Vec<Bytes>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<Name>,
    /// Operations done so far.
    done: u64,
    /// From this operation on everything fails: the power is gone.
    dead_from: Option<u64>,
    /// This operation alone fails.
    refuse: Option<u64>,
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        self.done += 1;
        if self.dead_from.is_some_and(|from| self.done >= from) {
            return Err(io::Error::other("the power is gone"));
        }
        if self.refuse == Some(self.done) {
            return Err(io::Error::other("the disk refuses"));
        }
        Ok(())
    }

    fn rename(names: &mut BTreeMap<String, usize>, change: &Name) {
        match change {
            Name::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            Name::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Name::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// A disk in memory that knows what has been synced.
#[derive(Clone, Default)]
struct SimDisk(Arc<Mutex<State>>);

struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl SimDisk {
    /// What is left after a power cut: everything synced, and of the rest whatever `chance` says, sector by sector. Names
    /// are kept in the order in which they were changed, as a journal does.
    fn after_power_cut(&self, mut chance: impl FnMut() -> bool) -> Self {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if !chance() {
                break;
            }
            State::rename(&mut names, change);
        }
        let files = state.files.iter().map(|bytes| {
            let mut left = bytes.durable.clone();
            left.resize(bytes.seen.len(), 0);
            for (offset, written) in &bytes.pending {
                let mut at = *offset as usize;
                let mut rest = written.as_slice();
                while !rest.is_empty() {
                    let piece = (SECTOR - at % SECTOR).min(rest.len());
                    if chance() {
                        left[at..at + piece].copy_from_slice(&rest[..piece]);
                    }
                    at += piece;
                    rest = &rest[piece..];
                }
            }
            Bytes { seen: left.clone(), durable: left, pending: Vec::new() }
        });
        let state = State { files: files.collect(), durable_names: names.clone(), names, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    fn handle(&self, file: usize) -> Arc<dyn DiskFile> {
        Arc::new(SimFile { disk: self.clone(), file })
    }

    fn corrupt(&self, name: &str, offset: usize) {
        let mut state = self.0.lock();
        let file = state.names[name];
        state.files[file].seen[offset] ^= 1;
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.step()?;
        assert!(!state.names.contains_key(name), "{name} is there already");
        let file = state.files.len();
        // Whatever lay on the disk there before.
        let left = vec![0xa5; bytes as usize];
        state.files.push(Bytes { seen: left.clone(), durable: left, pending: Vec::new() });
        state.names.insert(name.to_owned(), file);
        state.pending_names.push(Name::Create(name.to_owned(), file));
        drop(state);
        Ok(self.handle(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.0.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        assert!(state.names.contains_key(from) && !state.names.contains_key(to), "{from} becomes {to}");
        let change = Name::Rename(from.to_owned(), to.to_owned());
        State::rename(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = Name::Remove(name.to_owned());
        State::rename(&mut state.names, &change);
        state.pending_names.push(change);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.step()?;
        state.durable_names = state.names.clone();
        state.pending_names.clear();
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().files[self.file].seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.0.lock();
        let from = offset as usize;
        let bytes = state.files[self.file].seen.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, blocks: &Blocks, offset: u64) -> io::Result<()> {
        let bytes = blocks.as_slice();
        assert!(
            offset.is_multiple_of(BLOCK_BYTES as u64) && bytes.len().is_multiple_of(BLOCK_BYTES),
            "{offset}, {}",
            bytes.len()
        );
        assert_eq!(bytes.as_ptr().align_offset(BLOCK_BYTES), 0, "memory for direct writes is aligned");
        let mut state = self.disk.0.lock();
        let died = state.step();
        // A write that fails, or in which the power goes, may have reached the disk in part.
        let file = &mut state.files[self.file];
        let from = offset as usize;
        file.seen[from..from + bytes.len()].copy_from_slice(bytes);
        file.pending.push((offset, bytes.to_vec()));
        died
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        // A failed sync leaves open what of it is on the disk.
        state.step()?;
        let file = &mut state.files[self.file];
        for (offset, bytes) in std::mem::take(&mut file.pending) {
            let from = offset as usize;
            file.durable[from..from + bytes.len()].copy_from_slice(&bytes);
        }
        Ok(())
    }
}

// --- a model ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelGroup {
    hosted: bool,
    vote: Option<(u64, u64)>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    entries: BTreeMap<u64, (u64, usize)>,
}

type Model = BTreeMap<u32, ModelGroup>;

#[derive(Clone, Debug)]
enum Step {
    Host(u32),
    Forget(u32),
    /// Some entries behind the last one.
    Append(u32, Vec<usize>),
    Vote(u32),
    Committed(u32),
    /// So many entries from the end.
    Truncate(u32, u64),
    /// So many entries from the front.
    Purge(u32, u64),
    Reclaim,
}

fn any_step() -> impl Strategy<Value = Step> {
    let group = 0..3u32;
    prop_oneof![
        1 => group.clone().prop_map(Step::Host),
        1 => group.clone().prop_map(Step::Forget),
        6 => (group.clone(), prop::collection::vec(0..3_000usize, 1..4)).prop_map(|(group, sizes)| Step::Append(group, sizes)),
        2 => group.clone().prop_map(Step::Vote),
        2 => group.clone().prop_map(Step::Committed),
        2 => (group.clone(), 1..4u64).prop_map(|(group, count)| Step::Truncate(group, count)),
        4 => (group, 1..12u64).prop_map(|(group, count)| Step::Purge(group, count)),
        2 => Just(Step::Reclaim),
    ]
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let fill = (index as u8) ^ (term as u8);
    Entry { log_id: log_id(term, index), payload: Payload::Normal(Command(vec![fill; bytes].into())) }
}

/// The operation that `step` is where the model stands, and the model after it; none when it makes no sense there.
fn plan(model: &Model, step: &Step, term: u64) -> Option<(GroupId, LogOp, Model)> {
    let mut after = model.clone();
    let (group, op) = match step {
        Step::Host(group) => {
            after.entry(*group).or_default().hosted = true;
            (*group, LogOp::Host)
        }
        Step::Forget(group) => {
            let rows = after.get_mut(group)?;
            *rows = ModelGroup { vote: rows.vote, ..ModelGroup::default() };
            (*group, LogOp::Forget)
        }
        Step::Append(group, sizes) => {
            let rows = after.entry(*group).or_default();
            // As consensus does: a group is hosted before anything is written for it.
            if !rows.hosted {
                return None;
            }
            let last = rows.entries.last_key_value().map(|(index, _)| *index);
            let first = last.map_or(types::next_index(rows.purged.as_ref()), |last| last + 1);
            let entries: Vec<Entry> = (first..).zip(sizes).map(|(index, size)| entry(term, index, *size)).collect();
            rows.entries.extend((first..).zip(sizes).map(|(index, size)| (index, (term, *size))));
            (*group, LogOp::Append(entries))
        }
        Step::Vote(group) => {
            after.entry(*group).or_default().vote = Some((term, 9));
            (*group, LogOp::Vote(Vote::new(term, NodeId(9))))
        }
        Step::Committed(group) => {
            let rows = after.get_mut(group).filter(|rows| rows.hosted)?;
            let (index, (term, _)) = rows.entries.last_key_value()?;
            rows.committed = Some(log_id(*term, *index));
            (*group, LogOp::Committed(rows.committed))
        }
        Step::Truncate(group, count) => {
            let rows = after.get_mut(group)?;
            let last = *rows.entries.last_key_value()?.0;
            let from = (last + 1).saturating_sub(*count).max(*rows.entries.first_key_value()?.0);
            rows.entries.split_off(&from);
            (*group, LogOp::Truncate { from })
        }
        Step::Purge(group, count) => {
            let rows = after.get_mut(group)?;
            let (index, (term, _)) = rows.entries.iter().nth(*count as usize - 1).map(|(i, e)| (*i, *e))?;
            rows.entries = rows.entries.split_off(&(index + 1));
            let upto = log_id(term, index);
            rows.purged = Some(upto);
            (*group, LogOp::Purge { upto })
        }
        Step::Reclaim => return None,
    };
    Some((GroupId(group), op, after))
}

/// What the log says, in the model's terms.
fn read(log: &SegmentLog) -> Result<Model, LogError> {
    let mut model = Model::new();
    let hosted = log.groups()?;
    for group in 0..3u32 {
        let head = log.head(GroupId(group))?;
        let entries = log.entries(GroupId(group), 0..u64::MAX, usize::MAX)?;
        assert_eq!(entries.last().map(|entry| entry.log_id).or(head.purged), head.last);
        let entries = entries.into_iter().map(|found| {
            let index = found.log_id.index;
            let term = found.log_id.leader_id.term;
            let Payload::Normal(command) = &found.payload else { panic!("only commands were written") };
            assert_eq!(found, entry(term, index, command.0.len()));
            (index, (term, command.0.len()))
        });
        let rows = ModelGroup {
            hosted: hosted.contains(&GroupId(group)),
            vote: head.vote.map(|vote| (vote.leader_id.term, vote.leader_id.voted_for.0)),
            committed: head.committed,
            purged: head.purged,
            entries: entries.collect(),
        };
        if rows != ModelGroup::default() {
            model.insert(group, rows);
        }
    }
    Ok(model)
}

fn tidy(mut model: Model) -> Model {
    model.retain(|_, rows| *rows != ModelGroup::default());
    model
}

/// Does `steps` and returns every state that may be found after the power is gone: the last one that was synced, and all
/// that came after it.
fn run(log: &SegmentLog, steps: &[Step], mut model: Model) -> Vec<Model> {
    let mut possible = vec![tidy(model.clone())];
    for (at, step) in steps.iter().enumerate() {
        if matches!(step, Step::Reclaim) {
            // What it would free waits for the next time when the disk refuses.
            drop(log.reclaim());
            continue;
        }
        let Some((group, op, after)) = plan(&model, step, at as u64 + 1) else { continue };
        let sync = op.wants_sync();
        match log.write(&[(group, op)]) {
            Ok(_) => {
                model = after;
                if sync {
                    possible.clear();
                }
                possible.push(tidy(model.clone()));
                assert_eq!(read(log).expect("readable"), tidy(model.clone()), "after {step:?}");
            }
            Err(_) => {
                // Unknown, and not there for now.
                possible.push(tidy(after));
                possible.push(tidy(model.clone()));
            }
        }
    }
    possible
}

fn chance(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed | 1;
    move || {
        // xorshift64* (Vigna, 2016): any sequence will do, it only has to be the same again.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 63 == 1
    }
}

fn open(disk: &SimDisk) -> Result<SegmentLog, LogError> {
    SegmentLog::open(Arc::new(disk.clone()), LIMITS)
}

/// The same with room for many records in a segment.
fn open_roomy(disk: &SimDisk) -> Result<SegmentLog, LogError> {
    SegmentLog::open(Arc::new(disk.clone()), SegmentLimits { segment_bytes: 64 << 10, ..LIMITS })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// The power goes at each operation of the disk in turn, also while the log is being opened after a cut.
    #[test]
    fn whatever_is_synced_survives_a_power_cut_at_any_moment(
        steps in prop::collection::vec(any_step(), 1..40), seed in any::<u64>(),
    ) {
        let mut dead_from = 1;
        loop {
            let disk = SimDisk::default();
            disk.0.lock().dead_from = Some(dead_from);
            let possible = match open(&disk) {
                Ok(log) => run(&log, &steps, Model::new()),
                Err(_) => vec![Model::new()],
            };
            let survived = disk.0.lock().done < dead_from;
            let mut left = disk.after_power_cut(chance(seed ^ dead_from));
            // And again in the middle of the recovery.
            left.0.lock().dead_from = Some(1 + dead_from % 5);
            if open(&left).is_err() {
                left = left.after_power_cut(chance(seed ^ !dead_from));
            }
            left.0.lock().dead_from = None;
            let log = open(&left).expect("the log opens");
            let found = read(&log).expect("the log is readable");
            prop_assert!(possible.contains(&found), "dead from {dead_from}: {found:#?} is none of {possible:#?}");
            // It goes on from there, and survives again.
            let possible = run(&log, &steps, found);
            let left = left.after_power_cut(chance(seed));
            let found = read(&open(&left).expect("the log opens")).expect("the log is readable");
            prop_assert!(possible.contains(&found), "later: {found:#?} is none of {possible:#?}");
            if survived {
                break;
            }
            dead_from += 1;
        }
    }

    /// One operation of the disk fails, each in turn; what follows goes on without it.
    #[test]
    fn a_disk_that_refuses_once_costs_that_write_alone(
        steps in prop::collection::vec(any_step(), 1..40), seed in any::<u64>(),
    ) {
        let mut refuse = 1;
        loop {
            let disk = SimDisk::default();
            disk.0.lock().refuse = Some(refuse);
            if let Ok(log) = open(&disk) {
                let possible = run(&log, &steps, Model::new());
                drop(log);
                let left = disk.after_power_cut(chance(seed));
                let found = read(&open(&left).expect("the log opens")).expect("the log is readable");
                prop_assert!(possible.contains(&found), "refused {refuse}: {found:#?} is none of {possible:#?}");
            }
            if disk.0.lock().done < refuse {
                break;
            }
            refuse += 1;
        }
    }

    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Only that they return matters here.
        let _ = format::decode_record(1, 0, &bytes);
        let _ = format::items(&bytes).count();
        let _ = Index::default().apply(1, 0, &bytes);
    }
}

// --- single cases ----------------------------------------------------------------------------------------------------

fn append(log: &SegmentLog, group: u32, from: u64, count: u64, bytes: usize) {
    for index in from..from + count {
        log.write(&[(GroupId(group), LogOp::Append(vec![entry(1, index, bytes)]))]).expect("written");
    }
}

fn purge(log: &SegmentLog, group: u32, index: u64) {
    log.write(&[(GroupId(group), LogOp::Purge { upto: log_id(1, index) })]).expect("written");
}

#[test]
fn files_are_used_again_and_the_log_stays_small() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    log.write(&[(GroupId(0), LogOp::Host)]).expect("written");
    for round in 0..200 {
        append(&log, 0, round * 4, 4, 3_000);
        purge(&log, 0, round * 4 + 3);
        log.reclaim().expect("reclaimed");
    }
    let state = disk.0.lock();
    assert!(state.files.len() <= 8, "{} files were created", state.files.len());
    assert!(state.names.len() <= 2 + FREE_FILES_MAX, "{:?}", state.names.keys());
}

#[test]
fn what_an_idle_group_keeps_moves_and_holds_no_old_segment() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    for group in [0, 1] {
        log.write(&[(GroupId(group), LogOp::Host)]).expect("written");
    }
    append(&log, 1, 0, 3, 200);
    for round in 0..100 {
        append(&log, 0, round * 4, 4, 3_000);
        purge(&log, 0, round * 4 + 3);
        log.reclaim().expect("reclaimed");
    }
    assert!(log.size().bytes <= LIMITS.log_bytes + 2 * LIMITS.segment_bytes, "{:?}", log.size());
    drop(log);
    let log = open(&disk.after_power_cut(|| false)).expect("opened");
    let kept = log.entries(GroupId(1), 0..10, usize::MAX).expect("readable");
    assert_eq!(kept, (0..3).map(|index| entry(1, index, 200)).collect::<Vec<_>>());
}

/// Moving leaves room for less than it takes here: each segment holds more checkpoint than entries.
#[test]
fn moving_ends_when_it_gains_nothing() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    for group in 0..3 {
        log.write(&[(GroupId(group), LogOp::Host)]).expect("written");
    }
    for round in 0..12 {
        for group in 0..3 {
            append(&log, group, round, 1, 3_000);
        }
    }
    assert!(log.size().bytes > LIMITS.log_bytes);
    log.reclaim().expect("it ends");
    for group in 0..3 {
        assert_eq!(log.entries(GroupId(group), 0..99, usize::MAX).expect("readable").len(), 12);
    }
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    log.write(&[(GroupId(0), LogOp::Host)]).expect("written");
    append(&log, 0, 0, 2, 100_000);
    append(&log, 0, 2, 2, 10);
    let left = disk.after_power_cut(|| false);
    let entries = open(&left).expect("opened").entries(GroupId(0), 0..9, usize::MAX).expect("readable");
    assert_eq!(entries.iter().map(types::weight).collect::<Vec<_>>(), [100_064, 100_064, 74, 74]);
}

#[test]
fn damage_to_what_was_synced_is_an_error_and_never_the_end_of_the_log() {
    let disk = SimDisk::default();
    let log = open_roomy(&disk).expect("opened");
    log.write(&[(GroupId(0), LogOp::Host)]).expect("written");
    append(&log, 0, 0, 4, 100);
    drop(log);
    let last = {
        let state = disk.0.lock();
        state.names.keys().rfind(|name| name.ends_with(".log")).cloned().expect("a segment")
    };
    // In the checkpoint, in a record with others behind it; the last record alone cannot be told from a torn one.
    for block in [1, 3] {
        let offset = block * BLOCK_BYTES + 9;
        let damaged = disk.after_power_cut(|| false);
        damaged.corrupt(&last, offset);
        let error = open_roomy(&damaged).err().expect("it does not open");
        assert!(matches!(error, LogError::Corrupt { .. }), "{block}: {error}");
    }
    let early = disk.after_power_cut(|| false);
    let log = open_roomy(&early).expect("opened");
    append(&log, 0, 4, 4, 100);
    drop(log);
    let later = early.after_power_cut(|| false);
    later.corrupt(&last, 3 * BLOCK_BYTES + 9);
    let error = open_roomy(&later).err().expect("an earlier segment is damaged");
    assert!(matches!(error, LogError::Corrupt { .. }), "{error}");
}

#[test]
fn damage_under_a_running_log_is_noticed_when_it_is_read() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    for group in [0, 1] {
        log.write(&[(GroupId(group), LogOp::Host)]).expect("written");
        append(&log, group, 0, 1, 100);
    }
    let location = log.shelf.lock().index.group(GroupId(0)).expect("there").entries[&0];
    disk.corrupt(&segment_name(location.segment), location.offset as usize + 60);
    let error = log.entries(GroupId(0), 0..1, usize::MAX).expect_err("damaged");
    assert!(matches!(error, LogError::Corrupt { group: GroupId(0), .. }), "{error}");
    assert_eq!(log.entries(GroupId(1), 0..1, usize::MAX).expect("readable").len(), 1);
}

#[test]
fn a_foreign_file_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("CURRENT"), "MANIFEST-000005\n").expect("written");
    let disk = Directory::open(dir.path()).expect("a directory");
    let error = SegmentLog::open(Arc::new(disk), LIMITS).err().expect("refused");
    assert!(error.to_string().contains("CURRENT"), "{error}");
}

#[test]
fn a_directory_keeps_what_was_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let open = || {
        let disk = Directory::open(dir.path()).expect("a directory");
        SegmentLog::open(Arc::new(disk), LIMITS).expect("opened")
    };
    let log = open();
    assert_eq!(log.claim(NodeId(7)).expect("claimed"), NodeId(7));
    log.write(&[(GroupId(0), LogOp::Host)]).expect("written");
    append(&log, 0, 0, 100, 500);
    purge(&log, 0, 89);
    log.reclaim().expect("reclaimed");
    let before = read(&log).expect("readable");
    drop(log);
    let log = open();
    assert_eq!(read(&log).expect("readable"), before);
    assert_eq!(log.claim(NodeId(8)).expect("claimed"), NodeId(7));
}
