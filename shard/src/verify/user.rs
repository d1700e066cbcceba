//! One mailbox: every row of it against its messages.

use std::collections::BTreeMap;

use postrider_api::id::{BodyId, EmailId, FolderId, ModSeq, ThreadId, Uid, UserId};
use postrider_api::pb::{
    AccountRecord, AttachmentRecord, ChangeKind, ChangeRecord, EmailRecord, FolderRecord, ListRow, SessionRecord,
    UidRecord,
};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::{list_row, message, threads as mentions};
use crate::store::{Direction, Reader};
use crate::verify::bodies::References;
use crate::verify::ledger::Ledger;
use crate::verify::threads::{self, Threads};
use crate::{Broken, row};

/// What a folder's counters should be.
#[derive(Default)]
struct Counted {
    total: u64,
    unread: u64,
    uid_max: u32,
}

/// What the messages of one mailbox add up to.
#[derive(Default)]
struct Tally {
    messages: u64,
    bytes: u64,
    newest_ms: i64,
    folders: BTreeMap<FolderId, Counted>,
    threads: Threads,
}

pub(crate) fn verify(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut tally = Tally::default();
    for found in reader.scan(&KeyRange::user(Table::Emails, user), Direction::Forward) {
        let (key, value) = found?;
        let (Key::Email(_, id), email) = row::decode_row::<EmailRecord>(key, value)? else { continue };
        verify_message(reader, user, id, &email, ledger)?;
        references.add(row::id::<BodyId>(Key::Email(user, id), &email.body_id)?);
        tally.add(user, id, &email)?;
    }
    let folders = verify_folders(reader, user, account, &tally, ledger)?;
    let tombstones = verify_tombstones(reader, user, account, ledger)?;
    ledger.expect(Table::Changes, tally.messages + folders + tombstones);
    threads::verify(reader, user, &tally.threads, ledger)?;
    let sessions =
        count(reader, Table::Sessions, user, |key, value| row::decode_row::<SessionRecord>(key, value).map(|_| ()))?;
    ledger.expect(Table::Sessions, sessions);
    let key = Key::Account(user);
    ledger.compare(key, "user_id", account.user_id.as_ref(), &user.0[..]);
    ledger.compare(key, "sessions", u64::from(account.sessions), sessions);
    ledger.compare(key, "messages", account.messages, tally.messages);
    ledger.compare(key, "used_bytes", account.used_bytes, tally.bytes);
    ledger.compare(key, "tombstones", account.tombstones, tombstones);
    if account.email_ms_last < tally.newest_ms {
        ledger.at(key, "email_ms_last is behind the newest message");
    }
    Ok(())
}

impl Tally {
    fn add(&mut self, user: UserId, id: EmailId, email: &EmailRecord) -> Result<(), Broken> {
        let key = Key::Email(user, id);
        let folder = FolderId(email.folder_id);
        self.messages += 1;
        self.bytes += email.size;
        self.newest_ms = self.newest_ms.max(id.ms());
        let counted = self.folders.entry(folder).or_default();
        counted.total += 1;
        counted.unread += u64::from(!email.is_read);
        counted.uid_max = counted.uid_max.max(email.uid);
        let thread: ThreadId = row::id(key, &email.thread_id)?;
        self.threads.add(thread, id, folder, email.is_read, mentions::mentions_of(key, email)?);
        Ok(())
    }
}

/// A message against the rows that repeat parts of it.
fn verify_message(
    reader: &impl Reader,
    user: UserId,
    id: EmailId,
    email: &EmailRecord,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let folder = FolderId(email.folder_id);
    ledger.expect(Table::Emails, 1);
    ledger.compare(Key::Email(user, id), "email_id", email.email_id.as_ref(), &id.0[..]);
    let line = list_row::of(email);
    let index = list_row::index(user, folder, id, email.is_read);
    expect::<ListRow>(reader, Key::FolderEmail(user, folder, id), &line, ledger)?;
    expect::<ListRow>(reader, index, &line, ledger)?;
    expect::<UidRecord>(reader, Key::Uid(user, folder, Uid(email.uid)), &message::uid_record(email), ledger)?;
    for (place, part) in message::attachments(&email.parts) {
        let record = message::attachment_record(part);
        expect::<AttachmentRecord>(reader, Key::Attachment(user, id, place), &record, ledger)?;
    }
    let key = Key::Change(user, ModSeq(email.modseq));
    let Some(change) = row::get::<ChangeRecord>(reader, key)? else {
        ledger.at(key, "the newest change of a message is missing");
        return Ok(());
    };
    let is_first = change.created_modseq == email.modseq;
    let derived = ChangeRecord {
        kind: if is_first { ChangeKind::MessageCreated } else { ChangeKind::MessageUpdated }.into(),
        email_id: email.email_id.clone(),
        folder_id: email.folder_id,
        thread_id: email.thread_id.clone(),
        is_read: email.is_read,
        is_flagged: email.is_flagged,
        created_modseq: change.created_modseq,
    };
    ledger.compare(key, "the change of a message", change, derived);
    Ok(())
}

/// A row that must be there and must be this.
pub(crate) fn expect<M: prost::Message + Default + PartialEq>(
    reader: &impl Reader,
    key: Key,
    derived: &M,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    ledger.expect(key.table(), 1);
    match row::get::<M>(reader, key)? {
        None => ledger.at(key, "is missing"),
        // What it says is somebody's mail, and is not repeated.
        Some(stored) if stored != *derived => ledger.at(key, "differs from the row that it is derived from"),
        Some(_) => {}
    }
    Ok(())
}

/// Folders against what stands in them; gives their number.
fn verify_folders(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    tally: &Tally,
    ledger: &mut Ledger,
) -> Result<u64, Broken> {
    let none = Counted::default();
    let mut folders = 0;
    let mut counted_in = 0;
    for found in reader.scan(&KeyRange::user(Table::Folders, user), Direction::Forward) {
        let (key, value) = found?;
        let (key @ Key::Folder(_, id), folder) = row::decode_row::<FolderRecord>(key, value)? else { continue };
        folders += 1;
        let counted = tally.folders.get(&id).unwrap_or(&none);
        counted_in += counted.total;
        ledger.compare(key, "folder_id", folder.folder_id, id.0);
        ledger.compare(key, "total", folder.total, counted.total);
        ledger.compare(key, "unread", folder.unread, counted.unread);
        if folder.uid_next <= counted.uid_max {
            ledger.at(key, format!("uid_next is {}, UID {} is in use", folder.uid_next, counted.uid_max));
        }
        if id.0 >= account.folder_next {
            ledger.at(key, format!("folder_next is {}, which does not come after it", account.folder_next));
        }
        let key = Key::Change(user, ModSeq(folder.modseq));
        match row::get::<ChangeRecord>(reader, key)? {
            Some(change)
                if change.folder_id == id.0
                    && matches!(change.kind(), ChangeKind::FolderCreated | ChangeKind::FolderUpdated) => {}
            Some(_) => ledger.at(key, format!("is not the newest change of folder {id}")),
            None => ledger.at(key, format!("the newest change of folder {id} is missing")),
        }
    }
    ledger.expect(Table::Folders, folders);
    ledger.compare(Key::Account(user), "messages in folders", tally.messages, counted_in);
    Ok(folders)
}

/// Tombstones against the feed; gives their number.
fn verify_tombstones(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    ledger: &mut Ledger,
) -> Result<u64, Broken> {
    let mut tombstones = 0;
    for found in reader.scan(&KeyRange::user(Table::Tombstones, user), Direction::Forward) {
        let Key::Tombstone(_, modseq) = Key::decode(found?.0.as_ref())? else { continue };
        tombstones += 1;
        let key = Key::Change(user, modseq);
        let change: Option<ChangeRecord> = row::get(reader, key)?;
        let is_deletion = change
            .is_some_and(|change| matches!(change.kind(), ChangeKind::MessageDeleted | ChangeKind::FolderDeleted));
        if !is_deletion {
            ledger.at(key, "has a tombstone and is no deletion");
        }
        if modseq.0 <= account.changes_floor {
            ledger.at(key, "stands below the floor of the feed");
        }
        if modseq.0 > account.modseq {
            ledger.at(key, "is later than the newest change");
        }
    }
    ledger.expect(Table::Tombstones, tombstones);
    Ok(tombstones)
}

fn count(
    reader: &impl Reader,
    table: Table,
    user: UserId,
    check: impl Fn(crate::key::KeyBytes, bytes::Bytes) -> Result<(), Broken>,
) -> Result<u64, Broken> {
    let mut rows = 0;
    for found in reader.scan(&KeyRange::user(table, user), Direction::Forward) {
        let (key, value) = found?;
        check(key, value)?;
        rows += 1;
    }
    Ok(rows)
}
