//! The log on a disk that loses power at any moment, and on one that refuses.

mod disk;
mod model;

use std::sync::Arc;

use proptest::prelude::*;

use disk::SimDisk;
use model::{Model, any_step, entry, read, run};

use super::*;
use crate::log::disk::{BLOCK_BYTES, Directory};
use crate::types::log_id;

/// The making of every group here.
const MADE: Incarnation = Incarnation(7);
const LIMITS: SegmentLimits = SegmentLimits { segment_bytes: 16 << 10, log_bytes: 64 << 10 };

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
        log.write(&[(GroupId(group), LogOp::Append { entries: vec![entry(1, index, bytes)], committed: None })])
            .expect("written");
    }
}

fn purge(log: &SegmentLog, group: u32, index: u64) {
    log.write(&[(GroupId(group), LogOp::Purge { upto: log_id(1, index) })]).expect("written");
}

#[test]
fn what_is_small_takes_some_of_a_new_file_with_it() {
    let disk = SimDisk::default();
    let limits = SegmentLimits { segment_bytes: 256 << 10, log_bytes: 1 << 20 };
    let log = SegmentLog::open(Arc::new(disk.clone()), limits).expect("opened");
    let hosted = log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
    assert_eq!(hosted.bytes + hosted.ahead, AHEAD_BYTES);
    let mut indexes = 0..;
    let mut write = |bytes: usize| {
        let index = indexes.next().expect("endless");
        let entries = vec![entry(1, index, bytes)];
        let written = log.write(&[(GroupId(0), LogOp::Append { entries, committed: None })]).expect("written");
        (index, written.bytes + written.ahead)
    };

    let block = BLOCK_BYTES as u64;
    for _ in 1..AHEAD_BYTES / block {
        assert_eq!(write(100).1, block, "it lies in what was written ahead");
    }
    assert_eq!(write(100).1, AHEAD_BYTES);
    assert_eq!(write(20_000).1, 5 * block, "a larger one takes what it needs");

    // Two more segments: the file of the first is used again for the third.
    for _ in 0..2 {
        write(100_000);
    }
    let (last, _) = write(100);
    purge(&log, 0, last - 1);
    log.reclaim().expect("reclaimed");
    for _ in 0..2 {
        write(100_000);
    }
    assert_eq!(disk.0.lock().files.len(), 2);
    assert_eq!(write(100).1, block, "it was written before");
}

#[test]
fn after_a_vacuum_nothing_that_was_purged_is_on_the_disk() {
    let disk = SimDisk::default();
    // Room for all of it: a reclaim moves nothing.
    let limits = SegmentLimits { log_bytes: 1 << 20, ..LIMITS };
    let log = SegmentLog::open(Arc::new(disk.clone()), limits).expect("opened");
    // An entry is filled with its index and term: under these terms with what nothing else on this disk is, neither the other
    // group's entries nor the zeros behind a record nor what a new file holds.
    let holds = |term: u8, index: u8| disk.holds(&[index ^ term; 64]);
    const GOES: u8 = 0x40;
    const STAYS: u8 = 0xc0;
    let write = |group: u32, term: u8, index: u64| {
        let entries = vec![entry(term.into(), index, 500)];
        log.write(&[(GroupId(group), LogOp::Append { entries, committed: None })]).expect("written");
    };
    log.write(&[(GroupId(0), LogOp::Host(MADE)), (GroupId(1), LogOp::Host(MADE))]).expect("written");
    for index in 1..=40 {
        write(0, GOES, index);
        // This group keeps everything: it holds each segment.
        write(1, STAYS, index);
    }
    log.write(&[(GroupId(0), LogOp::Purge { upto: log_id(GOES.into(), 39) })]).expect("written");
    log.reclaim().expect("reclaimed");
    assert!([1, 20, 39].into_iter().all(|index| holds(GOES, index)), "it stands in a segment that another group needs");
    log.vacuum().expect("vacuumed");
    assert!((1..=39).all(|index| !holds(GOES, index)));
    assert!(holds(GOES, 40) && (1..=40).all(|index| holds(STAYS, index)));
    // It goes on, and is found so.
    write(0, GOES, 41);
    let again = open(&disk.after_power_cut(|| false)).expect("opened again");
    for (log, group, range) in [(&log, 0, 40..42), (&log, 1, 1..41), (&again, 0, 40..42), (&again, 1, 1..41)] {
        let read = log.entries(GroupId(group), range.clone(), usize::MAX).expect("read");
        assert_eq!(read.len() as u64, range.end - range.start);
    }
}

#[test]
fn a_vacuum_takes_no_file_that_holds_what_was_purged() {
    let disk = SimDisk::default();
    let log = open_roomy(&disk).expect("opened");
    let holds = |index: u8| disk.holds(&[index ^ 0x40; 64]);
    let write = |index: u64| {
        let entries = vec![entry(0x40, index, 500)];
        log.write(&[(GroupId(0), LogOp::Append { entries, committed: None })]).expect("written");
    };
    let purge = |index: u64| {
        log.write(&[(GroupId(0), LogOp::Purge { upto: log_id(0x40, index) })]).expect("written");
        log.reclaim().expect("reclaimed");
    };
    log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
    // Some segments, each with room for more than what stays.
    (1..=40).for_each(write);
    purge(40);
    assert!((1..=40).any(holds), "free files hold it");
    write(41);
    // It begins a segment, and moves what stays there.
    log.vacuum().expect("vacuumed");
    assert!((1..=40).all(|index| !holds(index)) && holds(41));
    // The files of segments that were begun since are used again.
    let round = |at: u64| {
        (at..at + 20).for_each(write);
        purge(at + 19);
        disk.0.lock().files.len()
    };
    let begun = (42..142).step_by(20).map(round).last();
    assert_eq!((142..342).step_by(20).map(round).last(), begun);
}

#[test]
fn files_are_used_again_and_the_log_stays_small() {
    let disk = SimDisk::default();
    let log = open(&disk).expect("opened");
    log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
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
        log.write(&[(GroupId(group), LogOp::Host(MADE))]).expect("written");
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
        log.write(&[(GroupId(group), LogOp::Host(MADE))]).expect("written");
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
    log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
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
    log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
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
        log.write(&[(GroupId(group), LogOp::Host(MADE))]).expect("written");
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
    log.write(&[(GroupId(0), LogOp::Host(MADE))]).expect("written");
    append(&log, 0, 0, 100, 500);
    purge(&log, 0, 89);
    log.reclaim().expect("reclaimed");
    let before = read(&log).expect("readable");
    drop(log);
    let log = open();
    assert_eq!(read(&log).expect("readable"), before);
    assert_eq!(log.claim(NodeId(8)).expect("claimed"), NodeId(7));
}
