//! P-10: `verify` finds what was planted, whatever the table.

use bytes::Bytes;
use postrider_api::pb::{self, AccountRecord, ShardRecord};
use postrider_shard::key::{Key, Table};
use postrider_shard::store::{MemoryStore, Reader};
use postrider_shard::{Broken, INBOX, apply, query, verify};
use prost::Message;

use crate::harness::{MAILBOX, Machine, accept, delete, deliver, hash, message, request, update, user};

/// A shard with a row in every table of mailboxes and queue.
fn full() -> Machine {
    let mut machine = Machine::with_users(2);
    let mut first = machine.command(accept(&[1, 2, 9], message(3, Some(hash(1)), &[])));
    first.request = Bytes::copy_from_slice(&request(77).0);
    machine.run(first);
    machine.accepted(accept(&[1], message(6, Some(hash(2)), &[hash(1)])));
    machine.accepted(accept(&[1], message(9, Some(hash(3)), &[])));
    machine.delivered(deliver(&[(2, request(1))], message(12, None, &[])));
    let ids: Vec<Bytes> = machine.messages(1, INBOX).iter().map(|row| row.email_id.clone()).collect();
    machine.changed(update(1, vec![delete(&ids[0])]));
    machine.changed(update(1, vec![delete(&ids[0])]));
    let read = pb::MessageUpdate { email_id: ids[1].clone(), is_read: Some(true), ..Default::default() };
    machine.changed(update(1, vec![read]));
    let token_hash = Bytes::from_static(&[3; 32]);
    machine.done(pb::command::Op::OpenSession(pb::OpenSession {
        user_id: user(1).to_bytes(),
        token_hash,
        expires_at_ms: i64::MAX,
    }));
    machine.assert_verified();
    machine
}

fn differences(store: &MemoryStore) -> Vec<String> {
    verify(store).unwrap().differences
}

#[test]
fn every_missing_row_is_found() {
    let machine = full();
    let mut tables = Vec::new();
    for (key, _) in machine.store.rows() {
        let mut store = machine.store.clone();
        store.remove(key);
        let table = Key::decode(key.as_ref()).unwrap().table();
        tables.push(table);
        // The tail tells followers what has changed; that a row of it is gone shows in nothing else. A transfer's row is
        // known to its source alone.
        if matches!(table, Table::Tail | Table::Transfers) {
            continue;
        }
        assert!(!differences(&store).is_empty(), "a row of {} is missing and nobody says so", table.name());
    }
    for table in Table::ALL.iter().filter(|table| **table < Table::Addresses) {
        assert!(tables.contains(table), "no row of {} was tried", table.name());
    }
}

#[test]
fn every_row_that_is_too_much_is_found() {
    let machine = full();
    for (key, value) in machine.store.rows() {
        let table = Key::decode(key.as_ref()).unwrap().table();
        if table == Table::Shard || table == Table::Accounts {
            continue;
        }
        // The same row of another user, message, entry or body.
        let mut other = key.as_ref().to_vec();
        let last = other.len() - 1;
        other[1] ^= 0x01;
        other[last] ^= 0x01;
        let other = postrider_shard::key::KeyBytes::from_slice(&other).unwrap();
        if machine.store.get(&other).unwrap().is_some() || matches!(table, Table::Transfers) {
            continue;
        }
        let mut store = machine.store.clone();
        store.put(other, value.clone());
        // A row of the tail at a later index is a later change, as far as anybody can tell.
        if table == Table::Tail {
            continue;
        }
        assert!(!differences(&store).is_empty(), "a row too much in {} and nobody says so", table.name());
    }
}

#[test]
fn every_counter_is_recomputed() {
    let machine = full();
    let account = Key::Account(user(1)).bytes();
    let plants: Vec<fn(&mut AccountRecord)> = vec![
        |account| account.used_bytes += 1,
        |account| account.messages -= 1,
        |account| account.sessions += 1,
        |account| account.tombstones += 1,
        |account| account.email_ms_last = 0,
        |account| account.folder_next = 3,
        |account| account.user_id = Bytes::from_static(&[0; 16]),
        |account| account.changes_floor = account.modseq,
    ];
    for plant in plants {
        let mut store = machine.store.clone();
        let mut record = AccountRecord::decode(store.get(&account).unwrap().unwrap()).unwrap();
        plant(&mut record);
        store.put(account, record.encode_to_vec().into());
        assert!(!differences(&store).is_empty(), "{record:?}");
    }
    let inbox = Key::Folder(user(1), INBOX).bytes();
    let plants: Vec<fn(&mut pb::FolderRecord)> = vec![
        |folder| folder.total += 1,
        |folder| folder.unread += 1,
        |folder| folder.uid_next = 1,
        |folder| folder.modseq += 1000,
        |folder| folder.folder_id = 9,
    ];
    for plant in plants {
        let mut store = machine.store.clone();
        let mut record = pb::FolderRecord::decode(store.get(&inbox).unwrap().unwrap()).unwrap();
        plant(&mut record);
        store.put(inbox, record.encode_to_vec().into());
        assert!(!differences(&store).is_empty(), "{record:?}");
    }
    let shard = Key::Shard.bytes();
    let plants: Vec<fn(&mut ShardRecord)> =
        vec![|shard| shard.users += 1, |shard| shard.bytes += 1, |shard| shard.entry_last = 0, |shard| {
            shard.tail_floor = 1000
        }];
    for plant in plants {
        let mut store = machine.store.clone();
        let mut record = ShardRecord::decode(store.get(&shard).unwrap().unwrap()).unwrap();
        plant(&mut record);
        store.put(shard, record.encode_to_vec().into());
        assert!(!differences(&store).is_empty(), "{record:?}");
    }
}

#[test]
fn a_wrong_reference_count_names_its_body() {
    let machine = full();
    for (key, value) in machine.store.rows() {
        let Ok(Key::BodyHead(_)) = Key::decode(key.as_ref()) else { continue };
        let mut head = pb::BodyHead::decode(value.clone()).unwrap();
        head.references += 1;
        let mut store = machine.store.clone();
        store.put(*key, head.encode_to_vec().into());
        let found = differences(&store);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&hex_of(key.as_ref())) && found[0].contains("references"), "{found:?}");
    }
}

#[test]
fn a_row_that_does_not_decode_is_named_and_the_rest_is_checked() {
    let machine = full();
    for (key, value) in machine.store.rows() {
        let table = Key::decode(key.as_ref()).unwrap().table();
        if matches!(table, Table::Bodies | Table::Shard) || value.is_empty() {
            continue;
        }
        let mut store = machine.store.clone();
        store.put(*key, Bytes::from_static(&[0xff; 9]));
        let found = differences(&store);
        assert!(
            found.iter().any(|difference| difference.contains(&hex_of(key.as_ref()))),
            "{}: {found:?}",
            table.name()
        );
    }
    let mut store = machine.store.clone();
    store.put(postrider_shard::key::KeyBytes::from_slice(b"\xee?").unwrap(), Bytes::new());
    assert!(differences(&store).iter().any(|difference| difference.contains("ee3f")));
}

#[test]
fn a_broken_row_stops_apply_and_query_and_is_named() {
    let machine = full();
    let key = Key::Account(user(1)).bytes();
    let mut store = machine.store.clone();
    store.put(key, Bytes::from_static(&[0xff; 9]));
    let below = store.clone();
    let mut txn = postrider_shard::store::Txn::new(&below);
    let command = machine.clone().command(accept(&[1], message(20, None, &[])));
    let broken = apply(MAILBOX, &mut txn, 100, &command).unwrap_err().to_string();
    assert!(broken.contains("accounts") && broken.contains(&hex_of(key.as_ref())), "{broken}");
    let ask = pb::Query { query: Some(pb::query::Query::GetAccount(pb::GetAccount { user_id: user(1).to_bytes() })) };
    let broken = query(MAILBOX, &store, 0, &ask).unwrap_err().to_string();
    assert!(broken.contains(&hex_of(key.as_ref())), "{broken}");
    // A row that another one refers to and that is not there.
    let mut store = machine.store.clone();
    store.remove(&Key::Folder(user(1), INBOX).bytes());
    let mut txn = postrider_shard::store::Txn::new(&store);
    let broken = apply(MAILBOX, &mut txn, 100, &command);
    assert!(matches!(broken, Err(Broken::Missing { table: "folders_by_user", .. })), "{broken:?}");
}

#[test]
fn a_newer_shard_is_refused() {
    let machine = full();
    let mut record = ShardRecord::decode(machine.store.get(&Key::Shard.bytes()).unwrap().unwrap()).unwrap();
    record.version = postrider_shard::format::VERSION_MAX + 1;
    let mut store = machine.store.clone();
    store.put(Key::Shard.bytes(), record.encode_to_vec().into());
    let mut txn = postrider_shard::store::Txn::new(&store);
    let command = machine.clone().command(accept(&[1], message(20, None, &[])));
    assert!(matches!(apply(MAILBOX, &mut txn, 100, &command), Err(Broken::Newer { .. })));
    assert!(matches!(verify(&store), Err(Broken::Newer { .. })));
    let ask = pb::Query { query: Some(pb::query::Query::GetShardStats(pb::GetShardStats {})) };
    assert!(query(MAILBOX, &store, 0, &ask).is_err());
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
