//! P-10: `verify` finds what was planted, whatever the table.

use bytes::Bytes;
use postrider_api::keyword::Keywords;
use postrider_api::pb::{self, AccountRecord, ShardRecord};
use postrider_shard::key::{Key, Table};
use postrider_shard::store::{MemoryStore, Reader};
use postrider_shard::{Broken, INBOX, JUNK, apply, query, verify};
use prost::Message;

use crate::blobs::{pin, with_blobs};
use crate::harness::{
    MAILBOX, Machine, accept, delete, delete_label, deliver, hash, mark, message, move_to, relabel, request, update,
    user,
};
use crate::labels::made;
use crate::outside;
use crate::queue::{settle, settle_of};

/// A shard with a row in every table of mailboxes and queue.
fn full() -> Machine {
    let mut machine = Machine::with_users(2);
    let mut first = machine.command(accept(&[1, 2, 9], message(3, Some(hash(1)), &[])));
    first.request = Bytes::copy_from_slice(&request(77).0);
    machine.run(first);
    machine.accepted(accept(&[1], message(6, Some(hash(2)), &[hash(1)])));
    machine.accepted(accept(&[1], message(9, Some(hash(3)), &[])));
    let entry = machine.accepted(accept(&[8, 9], message(15, None, &[]))).entry;
    machine.done(settle(entry, &[(8, pb::Settlement::Failed)], 1000));
    // Two who wait for a mailbox, and one for a shard.
    for n in [33, 36] {
        let entry = machine.accepted(accept(&[8], message(n, None, &[]))).entry;
        machine.done(settle(entry, &[(8, pb::Settlement::Full)], 1000));
    }
    let entry = machine.accepted(accept(&[9], message(39, None, &[]))).entry;
    machine.done(settle_of(1001, entry, &[(9, pb::Settlement::Held)], 1000));
    machine.delivered(deliver(&[(2, request(1))], message(12, None, &[])));
    // Two who wait for a destination outside, the second parked, one who waits alone, and one whom an operator holds.
    for n in [42, 45] {
        let entry = outside::sent(&mut machine, &["ada@far.example"], n);
        machine.apply(outside::settle(entry, vec![outside::down("ada@far.example")]));
    }
    let entry = outside::sent(&mut machine, &["bob@far.example", "bob@near.example"], 48);
    machine.done(outside::manage(entry, &["bob@near.example"], pb::QueueAction::Hold));
    let ids: Vec<Bytes> = machine.messages(1, INBOX).iter().map(|row| row.email_id.clone()).collect();
    machine.changed(update(1, vec![delete(&ids[0])]));
    machine.changed(update(1, vec![delete(&ids[0])]));
    machine.changed(update(1, vec![mark(&ids[1], Keywords::SEEN | Keywords::FLAGGED, Keywords::default())]));
    // A label with a message in each of its lists, and one that was deleted.
    machine.accepted(accept(&[1], message(27, None, &[])));
    let ids: Vec<Bytes> = machine.messages(1, INBOX).iter().map(|row| row.email_id.clone()).collect();
    let last = machine.accepted(accept(&[1], message(30, None, &[]))).deliveries[0].email_id.clone();
    let (work, gone) = (made(&mut machine, 1, "Work"), made(&mut machine, 1, "Gone"));
    machine.changed(update(1, ids.iter().chain([&last]).map(|id| relabel(id, &[work], &[])).collect()));
    machine.changed(update(1, vec![move_to(&last, JUNK)]));
    machine.changed(delete_label(1, gone));
    let token_hash = Bytes::from_static(&[3; 32]);
    machine.done(pb::command::Op::OpenSession(pb::OpenSession {
        user_id: user(1).to_bytes(),
        token_hash,
        expires_at_ms: i64::MAX,
        ..Default::default()
    }));
    machine.done(pin(request(60), &[1, 2]));
    let mut with_files = machine.command(accept(&[1, 9], with_blobs(18, &[1, 2])));
    with_files.request = request(60).to_bytes();
    machine.run(with_files);
    machine.done(pin(request(61), &[2, 3]));
    machine.assert_verified();
    machine
}

/// Makes a record wrong.
type Plant<R> = fn(&mut R);

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
        if machine.store.get(&other).unwrap().is_some() {
            continue;
        }
        let mut store = machine.store.clone();
        store.put(other, value.clone());
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
        |account| account.label_next = 1,
        |account| account.user_id = Bytes::from_static(&[0; 16]),
        |account| account.changes_floor = account.modseq,
        |account| account.changes_floor = account.modseq + 1,
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
    let label = first_of(&machine, Table::Labels).bytes();
    let plants: Vec<fn(&mut pb::LabelRecord)> = vec![
        |label| label.total += 1,
        |label| label.unread += 1,
        |label| label.hidden -= 1,
        |label| label.modseq += 1000,
        |label| label.label_id = 9,
    ];
    for plant in plants {
        let mut store = machine.store.clone();
        let mut record = pb::LabelRecord::decode(store.get(&label).unwrap().unwrap()).unwrap();
        plant(&mut record);
        store.put(label, record.encode_to_vec().into());
        assert!(!differences(&store).is_empty(), "{record:?}");
    }
    let shard = Key::Shard.bytes();
    let plants: Vec<fn(&mut ShardRecord)> = vec![
        |shard| shard.users += 1,
        |shard| shard.bytes += 1,
        |shard| shard.entry_last = 0,
        |shard| shard.tail_floor = 1000,
        |shard| shard.tail_bytes += 1,
        |shard| shard.failed_entries += 1,
        |shard| shard.dedup_trimmed_ms = i64::MAX,
        |shard| shard.transfers_trimmed_ms = i64::MAX,
        |shard| shard.blobs += 1,
        |shard| shard.blob_bytes -= 1,
        |shard| shard.pins_trimmed_ms = i64::MAX,
    ];
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
fn a_wrong_count_of_a_blob_is_named() {
    let machine = full();
    let blobs = machine.store.rows().map(|(key, _)| Key::decode(key.as_ref()).unwrap());
    let blobs: Vec<Key> = blobs.filter(|key| key.table() == Table::Blobs).collect();
    assert_eq!(blobs.len(), 3);
    for key in blobs {
        let plants: Vec<(&str, Plant<pb::BlobRecord>)> = vec![
            ("references", |blob| blob.references += 1),
            ("pins", |blob| blob.pins += 1),
            ("bytes", |blob| blob.bytes += 1),
            ("condemned", |blob| blob.condemned = 7),
        ];
        for (word, change) in plants {
            let found = plant(&machine, key, change);
            let names =
                |difference: &String| difference.contains(&hex_of(key.bytes().as_ref())) && difference.contains(word);
            assert!(found.iter().any(names), "{word}: {found:?}");
        }
    }
    // A body says that it has other blobs than its messages have.
    let with_blobs = machine.store.rows().find_map(|(key, value)| match Key::decode(key.as_ref()).unwrap() {
        key @ Key::BodyHead(_) => (!pb::BodyHead::decode(value.clone()).unwrap().blobs.is_empty()).then_some(key),
        _ => None,
    });
    let found = plant::<pb::BodyHead>(&machine, with_blobs.unwrap(), |head| drop(head.blobs.pop()));
    assert!(found.iter().any(|difference| difference.contains("has other blobs than its body")), "{found:?}");
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

/// A record under a key, changed: the differences that `verify` then finds.
fn plant<M: Message + Default>(machine: &Machine, key: Key, change: impl Fn(&mut M)) -> Vec<String> {
    let mut store = machine.store.clone();
    let mut record = M::decode(store.get(&key.bytes()).unwrap().unwrap()).unwrap();
    change(&mut record);
    store.put(key.bytes(), record.encode_to_vec().into());
    differences(&store)
}

/// The first key of a table.
fn first_of(machine: &Machine, table: Table) -> Key {
    let keys = machine.store.rows().map(|(key, _)| Key::decode(key.as_ref()).unwrap());
    keys.into_iter().find(|key| key.table() == table).unwrap()
}

#[test]
fn a_modseq_is_not_behind_what_has_changed() {
    // Of one user nothing was deleted: no tombstone tells.
    let machine = full();
    let newest = machine.account(2).modseq;
    let behind = |change: fn(&mut AccountRecord)| plant(&machine, Key::Account(user(2)), change);
    let found = behind(|account| account.modseq -= 1);
    assert!(found.iter().any(|difference| difference.contains(&format!("change {newest} was made"))), "{found:?}");
    // The newest change of a new mailbox is of a folder.
    let machine = Machine::with_users(1);
    let found = plant::<AccountRecord>(&machine, Key::Account(user(1)), |account| account.modseq = 5);
    assert!(found.iter().any(|difference| difference.contains("change 6 was made")), "{found:?}");
    let found = plant::<AccountRecord>(&machine, Key::Account(user(1)), |account| account.changes_floor = 7);
    assert!(found.iter().any(|difference| difference.contains("changes_floor is 7, modseq 6")), "{found:?}");
}

#[test]
fn what_is_remembered_of_a_request_can_be_read() {
    let machine = full();
    for outcome in [&b"\xff\xff"[..], b""] {
        let found = plant::<pb::DedupRecord>(&machine, first_of(&machine, Table::Dedup), |record| {
            record.outcome = Bytes::copy_from_slice(outcome);
        });
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let transfer = first_of(&machine, Table::Transfers);
    let plants: Vec<fn(&mut pb::TransferRecord)> = vec![
        |record| record.delivery = None,
        |record| record.delivery.as_mut().unwrap().email_id = Bytes::from_static(b"short"),
        |record| record.delivery.as_mut().unwrap().user_id = Bytes::new(),
    ];
    for change in plants {
        let found = plant(&machine, transfer, change);
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let found = plant::<pb::TransferRecord>(&machine, transfer, |record| record.expires_at_ms += 1);
    assert!(found.iter().any(|difference| difference.contains("transfers_by_expiry")), "{found:?}");
}

#[test]
fn what_was_trimmed_away_is_not_there() {
    let machine = full();
    for (table, change) in [
        (Table::Dedup, (|shard| shard.dedup_trimmed_ms = i64::MAX) as fn(&mut ShardRecord)),
        (Table::Transfers, |shard| shard.transfers_trimmed_ms = i64::MAX),
    ] {
        let found = plant(&machine, Key::Shard, change);
        let key = hex_of(first_of(&machine, table).bytes().as_ref());
        assert!(
            found.iter().any(|difference| difference.contains(&key) && difference.contains("trimmed")),
            "{found:?}"
        );
    }
}

#[test]
fn a_row_of_the_tail_is_a_change_that_was_made() {
    let machine = full();
    let mut rows = machine.store.rows().filter(|(key, _)| key.as_ref()[0] == Table::Tail as u8);
    let of_message = rows.find(|(_, value)| {
        pb::TailRecord::decode((*value).clone()).is_ok_and(|record| record.kind() == pb::TailKind::Message)
    });
    let key = Key::decode(of_message.unwrap().0.as_ref()).unwrap();
    let plants: Vec<fn(&mut pb::TailRecord)> = vec![
        |record| record.modseq = 0,
        |record| record.modseq += 1000,
        |record| record.user_id = user(9).to_bytes(),
        |record| record.user_id = Bytes::from_static(b"short"),
        |record| record.object = Bytes::from_static(b"short"),
        |record| record.kind = 0,
        |record| record.verb = 77,
    ];
    for change in plants {
        let found = plant(&machine, key, change);
        let names_it = |difference: &&String| difference.contains(&hex_of(key.bytes().as_ref()));
        assert_eq!(found.iter().filter(names_it).count(), 1, "{found:?}");
        // Its bytes may have changed as well, which is another difference, and nothing else is.
        assert!(found.iter().all(|difference| names_it(&difference) || difference.contains("tail_bytes")), "{found:?}");
    }
}

#[test]
fn a_row_of_the_error_queue_is_of_an_entry_and_has_its_body() {
    let machine = full();
    let key = first_of(&machine, Table::Failed);
    let plants: Vec<fn(&mut pb::FailedRecord)> = vec![
        |record| record.entry += 1,
        |record| record.recipients.clear(),
        |record| record.message = None,
        |record| record.message.as_mut().unwrap().body.as_mut().unwrap().body_id = Bytes::from_static(&[9; 16]),
    ];
    for change in plants {
        assert!(!plant(&machine, key, change).is_empty());
    }
}

/// Whatever row of a mailbox is broken, it is one difference where nothing is derived from it, and the rest of the mailbox is
/// looked at.
#[test]
fn a_broken_row_does_not_end_the_check_of_its_mailbox() {
    let machine = full();
    let account = Key::Account(user(1)).bytes();
    let mut record = AccountRecord::decode(machine.store.get(&account).unwrap().unwrap()).unwrap();
    record.sessions += 1;
    let is_derived = |table: Table| {
        use Table::*;
        matches!(
            table,
            FolderEmails | UnreadEmails | ReadEmails | Attachments | Uids | Threads | FolderThreads | Sessions
        ) || matches!(table, MessageIds | References | Changes | FlaggedEmails | LabelUnread | LabelRead | LabelHidden)
    };
    for (key, value) in machine.store.rows() {
        let table = Key::decode(key.as_ref()).unwrap().table();
        if !is_derived(table) && !matches!(table, Table::Emails | Table::Folders | Table::Labels)
            || key.as_ref()[1..17] != user(1).0
        {
            continue;
        }
        let mut store = machine.store.clone();
        store.put(*key, Bytes::from_static(&[0xff; 9]));
        let found = differences(&store);
        let named = found.iter().filter(|difference| difference.contains(&hex_of(key.as_ref()))).count();
        assert!(named >= 1, "{}: {found:?}", table.name());
        if is_derived(table) {
            assert_eq!(found.len(), 1, "{}, of {} bytes: {found:?}", table.name(), value.len());
        }
        // Something else is wrong as well, and is checked last of the mailbox.
        store.put(account, record.encode_to_vec().into());
        let found = differences(&store);
        assert!(found.iter().any(|difference| difference.contains("sessions is 2")), "{}: {found:?}", table.name());
    }
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
