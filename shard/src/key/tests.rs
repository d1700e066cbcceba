use super::*;
use proptest::prelude::*;

fn user() -> impl Strategy<Value = UserId> {
    any::<[u8; 16]>().prop_map(UserId)
}

fn email() -> impl Strategy<Value = EmailId> {
    any::<[u8; 16]>().prop_map(EmailId)
}

fn folder() -> impl Strategy<Value = FolderId> {
    any::<u32>().prop_map(FolderId)
}

fn label() -> impl Strategy<Value = LabelId> {
    any::<u32>().prop_map(LabelId)
}

fn ms() -> impl Strategy<Value = i64> {
    0..=i64::MAX
}

/// A time of few, so that two are often the same or neighbours; and any.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![2 => 254i64..258, 1 => ms(), 1 => Just(0), 1 => Just(i64::MAX)]
}

/// The same of a number.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 254u64..258, 1 => any::<u64>(), 1 => Just(0), 1 => Just(u64::MAX)]
}

fn round(key: Key) -> Result<(), TestCaseError> {
    let bytes = key.bytes();
    prop_assert_eq!(Key::decode(bytes.as_ref()), Ok(key));
    prop_assert_eq!(Table::of(bytes.as_ref()[0]), Some(key.table()));
    // One byte more or less is an error that names the table.
    let mut longer = bytes.as_ref().to_vec();
    longer.push(0);
    let is_too_long = matches!(Key::decode(&longer), Err(KeyError::Length { .. }));
    prop_assert!(is_too_long);
    if bytes.as_ref().len() > 1 {
        let shorter = &bytes.as_ref()[..bytes.as_ref().len() - 1];
        let is_named =
            matches!(Key::decode(shorter), Err(KeyError::Length { table, .. }) if table == key.table().name());
        prop_assert!(is_named);
    }
    Ok(())
}

macro_rules! round_trips {
    ($($test:ident: ($($part:ident in $strategy:expr),*) => $key:expr;)*) => {
        $(proptest! {
            #![proptest_config(ProptestConfig::with_cases(64))]
            #[test]
            fn $test($($part in $strategy),*) { round($key)?; }
        })*
    };
}

round_trips! {
    shard: (_x in 0u8..1) => Key::Shard;
    accounts: (u in user()) => Key::Account(u);
    sessions: (u in user(), h in any::<[u8; 32]>()) => Key::Session(u, h);
    folders: (u in user(), f in folder()) => Key::Folder(u, f);
    emails_by_folder: (u in user(), f in folder(), e in email()) => Key::FolderEmail(u, f, e);
    unread_emails: (u in user(), f in folder(), e in email()) => Key::UnreadEmail(u, f, e);
    read_emails: (u in user(), f in folder(), e in email()) => Key::ReadEmail(u, f, e);
    emails_by_user: (u in user(), e in email()) => Key::Email(u, e);
    attachments: (u in user(), e in email(), p in any::<u32>()) => Key::Attachment(u, e, p);
    uids: (u in user(), f in folder(), n in any::<u32>()) => Key::Uid(u, f, Uid(n));
    threads: (u in user(), t in any::<[u8; 16]>()) => Key::Thread(u, ThreadId(t));
    email_references: (u in user(), e in any::<[u8; 16]>()) => Key::References(u, EmailId(e));
    message_ids: (u in user(), h in any::<[u8; 16]>()) => Key::MessageId(u, MessageIdHash(h));
    threads_by_folder: (u in user(), f in folder(), e in email()) => Key::FolderThread(u, f, e);
    changes: (u in user(), m in any::<u64>()) => Key::Change(u, ModSeq(m));
    tombstones: (u in user(), m in any::<u64>()) => Key::Tombstone(u, ModSeq(m));
    changes_by_index: (i in any::<u64>(), n in any::<u32>()) => Key::Tail(i, n);
    labels_by_user: (u in user(), l in label()) => Key::Label(u, l);
    unread_by_label: (u in user(), l in label(), e in email()) => Key::LabelUnread(u, l, e);
    read_by_label: (u in user(), l in label(), e in email()) => Key::LabelRead(u, l, e);
    hidden_by_label: (u in user(), l in label(), e in email()) => Key::LabelHidden(u, l, e);
    flagged_emails: (u in user(), f in folder(), e in email()) => Key::FlaggedEmail(u, f, e);
    body_heads: (b in any::<[u8; 16]>()) => Key::BodyHead(BodyId(b));
    bodies: (b in any::<[u8; 16]>()) => Key::Body(BodyId(b));
    blobs: (h in any::<[u8; 32]>()) => Key::Blob(BlobHash(h));
    pins: (r in any::<[u8; 16]>()) => Key::Pin(RequestId(r));
    pins_by_expiry: (t in ms(), r in any::<[u8; 16]>()) => Key::PinExpiry(t, RequestId(r));
    dedup: (r in any::<[u8; 16]>()) => Key::Dedup(RequestId(r));
    dedup_by_expiry: (t in ms(), r in any::<[u8; 16]>()) => Key::DedupExpiry(t, RequestId(r));
    transfers: (r in any::<[u8; 16]>()) => Key::Transfer(RequestId(r));
    transfers_by_expiry: (t in ms(), r in any::<[u8; 16]>()) => Key::TransferExpiry(t, RequestId(r));
    queue: (e in any::<u64>()) => Key::Queue(EntryId(e));
    failed: (e in any::<u64>()) => Key::Failed(EntryId(e));
    queue_by_mailbox: (u in user(), e in any::<u64>()) => Key::MailboxLine(u, EntryId(e));
    queue_by_shard: (s in any::<u32>(), e in any::<u64>()) => Key::ShardLine(ShardId(s), EntryId(e));
    queue_recipients: (u in user()) => Key::QueueRecipient(u);
    queue_senders: (h in any::<[u8; 32]>()) => Key::QueueSender(h);
    queue_by_destination: (h in any::<[u8; 32]>(), e in any::<u64>()) => Key::DestinationLine(h, EntryId(e));
    queue_destinations: (h in any::<[u8; 32]>()) => Key::QueueDestination(h);
    entries_by_destination: (h in any::<[u8; 32]>(), e in any::<u64>()) => Key::DestinationEntry(h, EntryId(e));
    outbox: (u in user(), e in any::<u64>()) => Key::Outbox(u, EntryId(e));
    queue_by_due: (t in ms(), e in any::<u64>()) => Key::QueueDue(t, EntryId(e));
    addresses: (h in any::<[u8; 32]>()) => Key::Address(h);
    addresses_by_user: (u in user(), h in any::<[u8; 32]>()) => Key::UserAddress(u, h);
    regions: (h in any::<[u8; 32]>()) => Key::Region(h);
    nodes: (n in any::<u64>()) => Key::Node(NodeId(n));
    shards: (s in any::<u32>()) => Key::Shards(ShardId(s));
    domains: (h in any::<[u8; 32]>()) => Key::Domain(h);
    policies: (h in any::<[u8; 32]>()) => Key::Policy(h);
    public_certificates: (h in any::<[u8; 32]>()) => Key::PublicCertificate(h);
    acme: (_x in 0u8..1) => Key::Acme;
    zones: (h in any::<[u8; 32]>()) => Key::Zone(h);
    quarantine_by_expiry: (t in ms(), h in any::<[u8; 32]>()) => Key::QuarantineExpiry(t, h);
    deletions: (u in user()) => Key::Deletion(u);
    deleted_users: (u in user()) => Key::DeletedUser(u);
    domain_suppressions: (d in any::<[u8; 16]>(), h in any::<[u8; 32]>()) => Key::DomainSuppression(d, h);
    domain_suppression_counts: (d in any::<[u8; 16]>()) => Key::DomainSuppressionCount(d);
    sent_messages: (u in user(), e in any::<u64>()) => Key::SentMessage(u, EntryId(e));
    sent_by_expiry: (m in ms(), u in user(), e in any::<u64>()) => Key::SentExpiry(m, u, EntryId(e));
    feedback: (u in user(), s in any::<u64>()) => Key::Feedback(u, s);
    sending: (u in user()) => Key::Sending(u);
    second_factors: (u in user()) => Key::SecondFactor(u);
    suppressions: (u in user(), h in any::<[u8; 32]>()) => Key::Suppression(u, h);
    app_passwords: (u in user(), p in any::<[u8; 16]>()) => Key::AppPassword(u, AppPasswordId(p));
    audit: (n in any::<u64>()) => Key::Audit(n);
    operations: (id in any::<u64>()) => Key::Operation(id);
    map_changes: (version in any::<u64>()) => Key::MapChange(version);
    removed_nodes: (n in any::<u64>()) => Key::RemovedNode(NodeId(n));
    sweeps: (h in any::<[u8; 32]>()) => Key::Sweep(h);
}

#[test]
fn every_table_has_its_byte_and_its_name() {
    for table in Table::ALL {
        assert_eq!(Table::of(*table as u8), Some(*table));
        assert_eq!(Table::ALL.iter().filter(|other| other.name() == table.name()).count(), 1);
    }
    assert_eq!(Table::of(0xff), None);
    assert!(matches!(Key::decode(&[0xff]), Err(KeyError::UnknownTable { byte: 0xff, .. })));
    assert_eq!(Key::decode(&[]), Err(KeyError::Empty));
}

/// A table whose rows a deleted account would leave behind is found here.
#[test]
fn every_table_that_is_keyed_by_user_goes_with_his_account_or_says_why_not() {
    for table in Table::ALL {
        let mut key = vec![*table as u8];
        key.resize(1 + table.key_bytes(), 7);
        let is_by_user = Key::decode(&key).unwrap().user() == Some(UserId([7; 16]));
        let others = [Table::UserAddresses, Table::MailboxLines, Table::QueueRecipients];
        let stays = [Table::Accounts, Table::Deletions, Table::DeletedUsers].contains(table) || others.contains(table);
        assert_eq!(table.is_of_mailbox(), is_by_user && !stays, "{}", table.name());
    }
}

#[test]
fn a_time_is_not_negative() {
    let request = RequestId([7; 16]);
    for key in [
        Key::QueueDue(5, EntryId(1)),
        Key::DedupExpiry(5, request),
        Key::TransferExpiry(5, request),
        Key::QuarantineExpiry(5, [7; 32]),
        Key::SentExpiry(5, UserId([7; 16]), EntryId(1)),
    ] {
        let name = key.table().name();
        let mut key = key.bytes().as_ref().to_vec();
        key[1] = 0x80;
        assert!(matches!(Key::decode(&key), Err(KeyError::Time { table, .. }) if table == name));
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        crate::row::fuzz_key(&bytes);
    }

    #[test]
    fn folder_keys_sort_newest_first(u in user(), f in folder(), a in email(), b in email()) {
        let (ka, kb) = (Key::FolderEmail(u, f, a).bytes(), Key::FolderEmail(u, f, b).bytes());
        prop_assert_eq!(a.cmp(&b), kb.cmp(&ka));
    }

    #[test]
    fn a_page_begins_behind_its_cursor(u in user(), f in folder(), a in email(), b in email()) {
        let range = KeyRange::folder_before(Table::FolderEmails, u, f, Some(a));
        let key = Key::FolderEmail(u, f, b).bytes();
        let inside = key >= range.start && range.end.is_none_or(|end| key < end);
        prop_assert_eq!(inside, b < a);
    }

    #[test]
    fn a_page_of_a_label_begins_behind_its_cursor(u in user(), l in label(), a in email(), b in email()) {
        let range = KeyRange::label_before(Table::LabelRead, u, l, Some(a));
        let key = Key::LabelRead(u, l, b).bytes();
        let inside = key >= range.start && range.end.is_none_or(|end| key < end);
        prop_assert_eq!(inside, b < a);
    }

    #[test]
    fn since_is_above(u in user(), since in any::<u64>(), m in any::<u64>()) {
        let range = KeyRange::since(Table::Changes, u, ModSeq(since));
        let key = Key::Change(u, ModSeq(m)).bytes();
        let inside = key >= range.start && range.end.is_none_or(|end| key < end);
        prop_assert_eq!(inside, m > since);
    }

    #[test]
    fn due_is_from_and_up_to(from in time(), until in time(), at in time(), entry in id()) {
        let range = KeyRange::due(from, until);
        let key = Key::QueueDue(at, EntryId(entry)).bytes();
        let inside = key >= range.start && range.end.is_none_or(|end| key < end);
        prop_assert_eq!(inside, at >= from && at <= until);
    }

    #[test]
    fn entries_are_behind(after in id(), entry in id()) {
        for (table, key) in [(Table::Queue, Key::Queue(EntryId(entry))), (Table::Failed, Key::Failed(EntryId(entry)))] {
            let range = KeyRange::entries_behind(table, EntryId(after));
            let key = key.bytes();
            let inside = key >= range.start && range.end.is_none_or(|end| key < end);
            prop_assert_eq!(inside, entry > after);
        }
    }

    #[test]
    fn a_shard_has_its_line(shard in any::<u32>(), other in any::<u32>(), entry in id()) {
        let range = KeyRange::shard_line(ShardId(shard));
        for (of, wanted) in [(shard, true), (other, other == shard)] {
            let key = Key::ShardLine(ShardId(of), EntryId(entry)).bytes();
            prop_assert_eq!(key >= range.start && range.end.is_none_or(|end| key < end), wanted);
        }
    }

    #[test]
    fn a_destination_has_its_line_and_its_entries(hash in any::<[u8; 32]>(), after in id(), entry in id()) {
        let line = KeyRange::destination_line(hash);
        let key = Key::DestinationLine(hash, EntryId(entry)).bytes();
        prop_assert!(key >= line.start && line.end.is_none_or(|end| key < end));
        let entries = KeyRange::destination_entries(hash, EntryId(after));
        let key = Key::DestinationEntry(hash, EntryId(entry)).bytes();
        prop_assert_eq!(key >= entries.start && entries.end.is_none_or(|end| key < end), entry > after);
        let outbox = KeyRange::outbox(UserId([7; 16]), EntryId(after));
        let key = Key::Outbox(UserId([7; 16]), EntryId(entry)).bytes();
        prop_assert_eq!(key >= outbox.start && outbox.end.is_none_or(|end| key < end), entry > after);
    }

    #[test]
    fn expiring_is_after_and_up_to(from in time(), to in time(), at in time()) {
        for (index, key) in [
            (Table::DedupByExpiry, Key::DedupExpiry(at, RequestId([7; 16]))),
            (Table::TransfersByExpiry, Key::TransferExpiry(at, RequestId([7; 16]))),
        ] {
            let range = KeyRange::expiring(index, from, to);
            let key = key.bytes();
            let inside = key >= range.start && range.end.is_none_or(|end| key < end);
            prop_assert_eq!(inside, at > from && at <= to);
        }
    }
}
