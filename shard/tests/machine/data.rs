//! Rows as older builds wrote them: `shard/tests/data/v<N>.rows` of each version. They must be read, verified and worked on.
//!
//! A file holds one row a line, key and value in hexadecimal. A new version adds a file, made by
//! `POSTRIDER_WRITE_ROWS=1 cargo test -p postrider-shard`; a file of an old version is never written again.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use postrider_api::keyword::Keywords;
use postrider_api::pb::{self, Settlement};
use postrider_shard::INBOX;
use postrider_shard::format::VERSION_MAX;
use postrider_shard::key::KeyBytes;
use postrider_shard::store::MemoryStore;

use crate::harness::{
    MAILBOX, Machine, accept, create_folder, delete, deliver, hash, message, relabel, request, update,
};
use crate::labels::made;
use crate::queue::settle;

fn file(version: u32) -> PathBuf {
    PathBuf::from(format!("tests/data/v{version}.rows"))
}

/// A shard with a row of most kinds.
fn sample() -> Machine {
    let mut machine = Machine::with_users(2);
    let mut first = machine.command(accept(&[1, 2, 9], message(3, Some(hash(1)), &[])));
    first.request = Bytes::copy_from_slice(&request(1).0);
    machine.run(first);
    machine.accepted(accept(&[1], message(6, Some(hash(2)), &[hash(1)])));
    machine.delivered(deliver(&[(2, request(2))], message(12, None, &[])));
    machine.apply(create_folder(1, "Work"));
    let urgent = made(&mut machine, 1, "Urgent");
    let id = machine.messages(1, INBOX)[0].email_id.clone();
    machine.changed(update(1, vec![delete(&id)]));
    machine.changed(update(1, vec![delete(&id)]));
    let id = machine.messages(1, INBOX)[0].email_id.clone();
    let flag = pb::MessageUpdate { keywords_add: Keywords::FLAGGED.0, ..relabel(&id, &[urgent], &[]) };
    machine.changed(update(1, vec![flag]));
    let entry = machine.accepted(accept(&[8, 9], message(15, None, &[]))).entry;
    machine.done(settle(entry, &[(8, Settlement::Failed)], 1000));
    machine
}

#[test]
fn rows_of_every_version_are_read() {
    if std::env::var_os("POSTRIDER_WRITE_ROWS").is_some() && !file(VERSION_MAX).exists() {
        let mut lines = String::new();
        for (key, value) in sample().store.rows() {
            writeln!(lines, "{} {}", hex::encode(key), hex::encode(value)).unwrap();
        }
        std::fs::create_dir_all(file(VERSION_MAX).parent().unwrap()).unwrap();
        std::fs::write(file(VERSION_MAX), lines).unwrap();
    }
    for version in 1..=VERSION_MAX {
        let mut store = MemoryStore::new();
        for line in std::fs::read_to_string(file(version)).unwrap().lines() {
            let (key, value) = line.split_once(' ').unwrap();
            let key = KeyBytes::from_slice(&hex::decode(key).unwrap()).unwrap();
            postrider_shard::row::check(key.as_ref(), &hex::decode(value).unwrap().into()).unwrap();
            store.put(key, hex::decode(value).unwrap().into());
        }
        let mut machine = Machine { store, index: 1000, ..Machine::new(MAILBOX) };
        machine.assert_verified();
        assert_eq!(machine.account(1).name, "User 1");
        assert_eq!(machine.messages(1, INBOX).len(), 1);
        machine.accepted(accept(&[1, 2], message(20, Some(hash(3)), &[hash(1)])));
        machine.assert_verified();
        if version == VERSION_MAX {
            assert_eq!(machine.messages(1, INBOX)[0].thread_id, machine.messages(1, INBOX)[1].thread_id);
        }
    }
}

#[test]
fn this_build_writes_the_rows_of_its_version() {
    let written: Vec<String> =
        sample().store.rows().map(|(key, value)| format!("{} {}", hex::encode(key), hex::encode(value))).collect();
    let kept = std::fs::read_to_string(file(VERSION_MAX)).unwrap();
    assert!(
        kept.lines().eq(written.iter().map(String::as_str)),
        "rows have another shape or apply another outcome: that needs a new version (src/format.rs)"
    );
}

#[test]
fn operators_are_told_what_each_version_brings() {
    let told: Vec<u32> = postrider_api::version::CHANGES.iter().map(|(version, _)| *version).collect();
    assert_eq!(told, (1..=VERSION_MAX).collect::<Vec<_>>());
}
