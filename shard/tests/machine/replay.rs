//! P-12: the same log gives the same rows, over whatever store, in whatever batches, from whatever snapshot.

use postrider_shard::key::KeyRange;
use postrider_shard::store::{Direction, MemoryStore, Reader, RocksReader, Txn};
use postrider_shard::{apply, digest, verify};
use proptest::prelude::*;

use crate::harness::{MAILBOX, Machine};
use crate::steps::{run, step};

/// As the consensus host names its groups; a neighbour's rows stand right behind.
const PREFIX: [u8; 5] = [1, 0, 0, 3, 0xff];
const NEIGHBOUR: [u8; 5] = [1, 0, 0, 4, 0];

/// The machine's log again, in batches.
fn replay(machine: &Machine, from: usize, mut store: MemoryStore, mut batch: impl FnMut() -> usize) -> MemoryStore {
    let mut at = from;
    while at < machine.log.len() {
        let below = store.clone();
        let mut txn = Txn::new(&below);
        let end = (at + batch().max(1)).min(machine.log.len());
        for place in at..end {
            apply(MAILBOX, &mut txn, place as u64 + 1, &machine.log[place]).unwrap();
        }
        store.write(txn.into_writes());
        at = end;
    }
    store
}

fn replay_in_rocks(machine: &Machine, batch: usize) -> ([u8; 32], Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let db = rocksdb::DB::open_default(directory.path()).unwrap();
    db.put([&NEIGHBOUR[..], b"\x01"].concat(), b"not ours").unwrap();
    for (chunk, commands) in machine.log.chunks(batch).enumerate() {
        let reader = RocksReader::new(&db, PREFIX);
        let mut txn = Txn::new(&reader);
        for (place, command) in commands.iter().enumerate() {
            apply(MAILBOX, &mut txn, (chunk * batch + place) as u64 + 1, command).unwrap();
        }
        let mut writes = rocksdb::WriteBatch::default();
        for (key, value) in txn.into_writes() {
            let key = [&PREFIX[..], key.as_ref()].concat();
            match value {
                Some(value) => writes.put(key, value),
                None => writes.delete(key),
            }
        }
        db.write(writes).unwrap();
        if chunk % 7 == 0 {
            db.flush().unwrap();
        }
    }
    let snapshot = db.snapshot();
    let reader = RocksReader::of_snapshot(&snapshot, PREFIX);
    // Both directions, both ends: what a snapshot stream would send.
    let up: Vec<_> = reader.scan(&KeyRange::all(), Direction::Forward).map(Result::unwrap).collect();
    let mut down: Vec<_> = reader.scan(&KeyRange::all(), Direction::Backward).map(Result::unwrap).collect();
    down.reverse();
    assert_eq!(up, down);
    assert!(up.iter().map(|(key, value)| (key, value)).eq(machine.store.rows()));
    (digest(&RocksReader::new(&db, PREFIX)).unwrap(), verify(&reader).unwrap().differences)
}

proptest! {
    #[test]
    fn batches_do_not_matter(
        steps in proptest::collection::vec(step(), 1..60),
        sizes in proptest::collection::vec(1usize..20, 1..10),
        cut in 0.0f64..1.0,
    ) {
        let (machine, _) = run(&steps, |_, _| {});
        let mut sizes = sizes.iter().copied().cycle();
        let whole = replay(&machine, 0, MemoryStore::new(), || sizes.next().unwrap());
        prop_assert_eq!(digest(&whole).unwrap(), machine.digest());
        // A snapshot in the middle, and the rest of the log.
        let middle = (machine.log.len() as f64 * cut) as usize;
        let mut first = machine.clone();
        first.log.truncate(middle);
        let prefix = replay(&first, 0, MemoryStore::new(), || 5);
        let mut snapshot = MemoryStore::new();
        for (key, value) in prefix.rows() {
            snapshot.put(*key, value.clone());
        }
        let rest = replay(&machine, middle, snapshot, || 3);
        prop_assert_eq!(digest(&rest).unwrap(), machine.digest());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn memory_and_rocksdb_hold_the_same(steps in proptest::collection::vec(step(), 30..60), batch in 1usize..9) {
        let (machine, _) = run(&steps, |_, _| {});
        let (digest, differences) = replay_in_rocks(&machine, batch);
        prop_assert_eq!(digest, machine.digest());
        prop_assert_eq!(differences, Vec::<String>::new());
    }
}

#[test]
fn a_digest_sees_every_byte() {
    let mut machine = Machine::with_users(1);
    let before = machine.digest();
    machine.accepted(crate::harness::accept(&[1], crate::harness::message(1, None, &[])));
    let after = machine.digest();
    assert_ne!(before, after);
    for (key, value) in machine.clone().store.rows() {
        let mut other = machine.store.clone();
        let mut changed = value.to_vec();
        changed.push(0);
        other.put(*key, changed.into());
        assert_ne!(digest(&other).unwrap(), after);
        other.remove(key);
        assert_ne!(digest(&other).unwrap(), after);
    }
}
