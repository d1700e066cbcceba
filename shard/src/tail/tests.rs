//! What is kept, what goes, and that every object is read as it was written.

use postrider_api::id::ShardId;
use postrider_api::pb;
use proptest::prelude::*;

use super::*;
use crate::key::Table;
use crate::store::{MemoryStore, Txn};

const SMALL: Retention = Retention { bytes_max: 64 * 1024, age_ms_max: 1_000_000 };

/// One command that makes `count` changes and trims by `retention`.
fn command(store: &mut MemoryStore, index: u64, now: i64, count: usize, retention: Retention) {
    let below = store.clone();
    let mut txn = Txn::new(&below);
    let stamped = pb::Command { at_ms: now, ..Default::default() };
    let mut turn = Turn::begin(ShardId::MAILBOX_FIRST, &mut txn, index, &stamped).unwrap();
    trim_to(&mut turn, retention).unwrap();
    for n in 0..count {
        push(&mut turn, Object::QueueEntry(EntryId(index * 1000 + n as u64)), Verb::Created, ModSeq(0));
    }
    let state = turn.state;
    row::put(turn.rows, Key::Shard, &state);
    store.write(txn.into_writes());
}

fn state(store: &MemoryStore) -> ShardRecord {
    row::get(store, Key::Shard).unwrap().unwrap_or_default()
}

/// Every row that is there, and that the record of the shard says so.
fn held(store: &MemoryStore) -> Vec<(u64, u32)> {
    let mut bytes = 0;
    let mut held = Vec::new();
    for found in store.scan(&KeyRange::table(Table::Tail), Direction::Forward) {
        let (key, value) = found.unwrap();
        bytes += row_bytes(key.as_ref(), &value);
        match Key::decode(key.as_ref()).unwrap() {
            Key::Tail(index, n) => held.push((index, n)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, state(store).tail_bytes);
    assert!(held.iter().all(|(index, _)| *index >= state(store).tail_floor));
    held
}

#[test]
fn a_tail_is_kept_by_its_bytes() {
    let mut store = MemoryStore::new();
    let bound = SMALL.bytes_max + BYTES_SLACK + 8 * 1024;
    for index in 1..=6000u64 {
        command(&mut store, index, 5, 2, SMALL);
        assert!(state(&store).tail_bytes <= bound, "{}", state(&store).tail_bytes);
    }
    let held = held(&store);
    assert!(state(&store).tail_bytes >= SMALL.bytes_max);
    // Whole commands, from the floor to the newest.
    let floor = state(&store).tail_floor;
    assert!(floor > 1);
    let wanted: Vec<_> = (floor..=6000).flat_map(|index| [(index, 0), (index, 1)]).collect();
    assert_eq!(held, wanted);
}

#[test]
fn a_tail_is_kept_by_its_age() {
    let mut store = MemoryStore::new();
    for index in 1..=200u64 {
        command(&mut store, index, index as i64 * 10_000, 1, SMALL);
    }
    // The last command came at 2,000,000: what is a million milliseconds older is gone.
    assert_eq!(held(&store).first(), Some(&(101, 0)));
    assert_eq!(state(&store).tail_floor, 101);
    // Nothing changes for long: the floor is behind what was trimmed, and no further. Who had read it all has missed nothing.
    command(&mut store, 500, 9_000_000, 0, SMALL);
    assert_eq!((held(&store).len(), state(&store).tail_floor), (0, 201));
}

#[test]
fn a_fresh_shard_s_tail_reaches_back_to_its_beginning() {
    let mut store = MemoryStore::new();
    command(&mut store, 7, 5, 3, RETENTION);
    assert_eq!(floor(&store).unwrap(), 0);
    assert_eq!(read(&store, 0, 10).unwrap().changes.len(), 3);
}

#[test]
fn commands_are_trimmed_whole_in_bounded_steps() {
    let mut store = MemoryStore::new();
    for index in 1..=20u64 {
        command(&mut store, index, 5, 1000, RETENTION);
    }
    // Everything is too old at once; a command takes five of them and stops, for four would be one too few.
    for left in [15, 10, 5, 0] {
        let at = state(&store).tail_floor + 100;
        command(&mut store, at, 5_000_000, 0, SMALL);
        let held = held(&store);
        assert_eq!(held.len(), left * 1000);
        assert!(held.is_empty() || held[0] == (state(&store).tail_floor, 0));
    }
}

#[test]
fn a_reader_gets_whole_commands() {
    let mut store = MemoryStore::new();
    for index in [3, 4, 9] {
        command(&mut store, index, 5, 4, RETENTION);
    }
    let places = |read: &Changes| read.changes.iter().map(|change| (change.index, change.n)).collect::<Vec<_>>();
    let first = read(&store, 0, 5).unwrap();
    assert_eq!(places(&first), (3..=4).flat_map(|i| (0..4).map(move |n| (i, n))).collect::<Vec<_>>());
    assert!(first.more);
    let rest = read(&store, 5, 5).unwrap();
    assert_eq!((places(&rest), rest.more), ((0..4).map(|n| (9, n)).collect(), false));
    assert_eq!(read(&store, 10, 5).unwrap(), Changes { changes: Vec::new(), more: false });
}

fn object() -> impl Strategy<Value = Object> {
    let user = any::<[u8; 16]>().prop_map(UserId);
    let hash = any::<[u8; 32]>();
    prop_oneof![
        (user.clone(), any::<[u8; 16]>()).prop_map(|(user, email)| Object::Message(user, EmailId(email))),
        (user.clone(), any::<u32>()).prop_map(|(user, folder)| Object::Folder(user, FolderId(folder))),
        (user.clone(), any::<u32>()).prop_map(|(user, label)| Object::Label(user, LabelId(label))),
        user.clone().prop_map(Object::Account),
        (user.clone(), hash).prop_map(|(user, hash)| Object::Session(user, hash)),
        any::<u64>().prop_map(|entry| Object::QueueEntry(EntryId(entry))),
        any::<u64>().prop_map(|entry| Object::FailedEntry(EntryId(entry))),
        hash.prop_map(|hash| Object::Blob(BlobHash(hash))),
        (user, hash).prop_map(|(user, hash)| Object::Address(user, hash)),
    ]
}

proptest! {
    #[test]
    fn a_change_is_read_as_it_was_written(
        object in object(),
        verb in prop_oneof![Just(Verb::Created), Just(Verb::Updated), Just(Verb::Deleted)],
        (index, n, modseq, at_ms) in any::<(u64, u32, u64, i64)>(),
    ) {
        let written = record(object, verb, ModSeq(modseq), at_ms).encode_to_vec();
        let read = change(Key::Tail(index, n), &TailRecord::decode(&written[..]).unwrap()).unwrap();
        prop_assert_eq!(read, Change { index, n, object, verb, modseq: ModSeq(modseq), at_ms });
    }
}
