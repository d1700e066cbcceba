//! One mailbox: every row of it against its messages.
//!
//! A broken row ends what is checked of one message, folder or thread; the rest of the mailbox is looked at all the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use postrider_api::id::{BodyId, EmailId, FolderId, LabelId, ModSeq, ThreadId, Uid, UserId};
use postrider_api::keyword::Keywords;
use postrider_api::limit::{APP_PASSWORDS_MAX, RECOVERY_CODES_MAX};
use postrider_api::pb::{
    AccountRecord, AppPasswordRecord, AttachmentRecord, ChangeKind, ChangeRecord, EmailRecord, FeedbackRecord,
    FolderRecord, LabelRecord, ListRow, ReferencesRecord, SecondFactorRecord, SendingRecord, SessionRecord,
    SuppressionRecord, UidRecord,
};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::label::{self, Shown};
use crate::mailbox::{change, list_row, message, references, threads as mentions};
use crate::sending::suppression;
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

/// What a label's counters should be.
#[derive(Default)]
struct Labelled {
    total: u64,
    unread: u64,
    hidden: u64,
}

/// What the messages of one mailbox add up to.
#[derive(Default)]
struct Tally {
    messages: u64,
    bytes: u64,
    newest_ms: i64,
    /// The newest change of a message that lives.
    modseq_max: u64,
    folders: BTreeMap<FolderId, Counted>,
    labels: BTreeMap<LabelId, Labelled>,
    threads: Threads,
}

pub(crate) fn verify(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    bodies: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let mut tally = Tally::default();
    let mut messages = 0;
    for found in reader.scan(&KeyRange::user(Table::Emails, user), Direction::Forward) {
        let (key, value) = found?;
        messages += 1;
        let Some((Key::Email(_, id), email)) = ledger.note(row::decode_row::<EmailRecord>(key, value))? else {
            continue;
        };
        let added = tally.add(user, id, &email);
        ledger.note(added)?;
        let body = row::id::<BodyId>(Key::Email(user, id), &email.body_id);
        if let Some(body) = ledger.note(body)? {
            bodies.add(body, &email.pieces);
        }
        verify_message(reader, user, id, &email, ledger)?;
    }
    ledger.expect(Table::Emails, messages);
    let folders = verify_folders(reader, user, account, &mut tally, ledger)?;
    let labels = verify_labels(reader, user, account, &mut tally, ledger)?;
    let tombstones = verify_tombstones(reader, user, account, ledger)?;
    // Of a message that does not decode, the change is as good as accounted for.
    ledger.expect(Table::Changes, messages + folders + labels + tombstones);
    threads::verify(reader, user, &tally.threads, ledger)?;
    let sessions = verify_sessions(reader, user, ledger)?;
    verify_app_passwords(reader, user, ledger)?;
    verify_second_factor(reader, user, ledger)?;
    verify_sending(reader, user, ledger)?;
    verify_account(user, account, &tally, sessions, tombstones, ledger);
    Ok(())
}

/// The account's counters against what was counted.
fn verify_account(
    user: UserId,
    account: &AccountRecord,
    tally: &Tally,
    sessions: u64,
    tombstones: u64,
    ledger: &mut Ledger,
) {
    let key = Key::Account(user);
    ledger.compare(key, "user_id", account.user_id.as_ref(), &user.0[..]);
    ledger.compare(key, "sessions", u64::from(account.sessions), sessions);
    ledger.compare(key, "messages", account.messages, tally.messages);
    ledger.compare(key, "used_bytes", account.used_bytes, tally.bytes);
    ledger.compare(key, "tombstones", account.tombstones, tombstones);
    if account.email_ms_last < tally.newest_ms {
        ledger.at(key, "email_ms_last is behind the newest message");
    }
    if account.modseq < tally.modseq_max {
        ledger.at(key, format!("modseq is {}, change {} was made", account.modseq, tally.modseq_max));
    }
    if account.changes_floor > account.modseq {
        ledger.at(key, format!("changes_floor is {}, modseq {}", account.changes_floor, account.modseq));
    }
}

impl Tally {
    fn add(&mut self, user: UserId, id: EmailId, email: &EmailRecord) -> Result<(), Broken> {
        let key = Key::Email(user, id);
        let folder = FolderId(email.folder_id);
        self.messages += 1;
        self.bytes += email.size;
        self.newest_ms = self.newest_ms.max(id.ms());
        self.modseq_max = self.modseq_max.max(email.modseq);
        let counted = self.folders.entry(folder).or_default();
        counted.total += 1;
        let is_read = Keywords(email.keywords).is_read();
        counted.unread += u64::from(!is_read);
        counted.uid_max = counted.uid_max.max(email.uid);
        for id in &email.labels {
            let labelled = self.labels.entry(LabelId(*id)).or_default();
            match label::shown(folder, is_read) {
                Shown::Hidden => labelled.hidden += 1,
                shown => {
                    labelled.total += 1;
                    labelled.unread += u64::from(shown == Shown::Unread);
                }
            }
        }
        let thread: ThreadId = row::id(key, &email.thread_id)?;
        self.threads.add(thread, id, folder, is_read, mentions::mentions_of(key, email)?);
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
    ledger.compare(Key::Email(user, id), "email_id", email.email_id.as_ref(), &id.0[..]);
    if !email.labels.is_sorted_by(|a, b| a < b) {
        ledger.at(Key::Email(user, id), "its labels are not each there once, in order");
    }
    let line = list_row::of(email);
    for place in list_row::places(user, id, &line) {
        expect::<ListRow>(reader, place, &line, ledger)?;
    }
    expect::<UidRecord>(reader, Key::Uid(user, folder, Uid(email.uid)), &message::uid_record(email), ledger)?;
    if let Some(record) = references::of(email) {
        expect::<ReferencesRecord>(reader, Key::References(user, id), &record, ledger)?;
    }
    for (place, part) in message::attachments(&email.parts) {
        let record = message::attachment_record(part);
        expect::<AttachmentRecord>(reader, Key::Attachment(user, id, place), &record, ledger)?;
    }
    let key = Key::Change(user, ModSeq(email.modseq));
    let Some(change) = ledger.note(row::get::<ChangeRecord>(reader, key))? else { return Ok(()) };
    let Some(change) = change else {
        ledger.at(key, "the newest change of a message is missing");
        return Ok(());
    };
    let is_first = change.created_modseq == email.modseq;
    let derived = ChangeRecord {
        kind: if is_first { ChangeKind::MessageCreated } else { ChangeKind::MessageUpdated }.into(),
        email_id: email.email_id.clone(),
        folder_id: email.folder_id,
        thread_id: email.thread_id.clone(),
        keywords: email.keywords,
        labels: email.labels.clone(),
        created_modseq: change.created_modseq,
        ..Default::default()
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
    match ledger.note(row::get::<M>(reader, key))? {
        Some(None) => ledger.at(key, "is missing"),
        // What it says is somebody's mail, and is not repeated.
        Some(Some(stored)) if stored != *derived => ledger.at(key, "differs from the row that it is derived from"),
        // It is right, or was named as broken.
        Some(Some(_)) | None => {}
    }
    Ok(())
}

/// Folders against what stands in them; gives their number.
fn verify_folders(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    tally: &mut Tally,
    ledger: &mut Ledger,
) -> Result<u64, Broken> {
    let none = Counted::default();
    let mut folders = 0;
    let mut counted_in = 0;
    for found in reader.scan(&KeyRange::user(Table::Folders, user), Direction::Forward) {
        let (key, value) = found?;
        folders += 1;
        let folder = ledger.note(row::decode_row::<FolderRecord>(key, value))?;
        let Some((key @ Key::Folder(_, id), folder)) = folder else { continue };
        tally.modseq_max = tally.modseq_max.max(folder.modseq);
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
        match ledger.note(row::get::<ChangeRecord>(reader, key))? {
            Some(Some(change))
                if change.folder_id == id.0
                    && matches!(change.kind(), ChangeKind::FolderCreated | ChangeKind::FolderUpdated) => {}
            Some(Some(_)) => ledger.at(key, format!("is not the newest change of folder {id}")),
            Some(None) => ledger.at(key, format!("the newest change of folder {id} is missing")),
            None => {}
        }
    }
    ledger.expect(Table::Folders, folders);
    let elsewhere = tally.messages - counted_in;
    if elsewhere > 0 {
        ledger.at(Key::Account(user), format!("{elsewhere} messages stand in no folder that can be read"));
    }
    Ok(folders)
}

/// Labels against the messages that have them; gives their number.
fn verify_labels(
    reader: &impl Reader,
    user: UserId,
    account: &AccountRecord,
    tally: &mut Tally,
    ledger: &mut Ledger,
) -> Result<u64, Broken> {
    let mut labels = 0;
    for found in reader.scan(&KeyRange::user(Table::Labels, user), Direction::Forward) {
        let (key, value) = found?;
        labels += 1;
        let label = ledger.note(row::decode_row::<LabelRecord>(key, value))?;
        let Some((key @ Key::Label(_, id), label)) = label else { continue };
        tally.modseq_max = tally.modseq_max.max(label.modseq);
        let labelled = tally.labels.remove(&id).unwrap_or_default();
        ledger.compare(key, "label_id", label.label_id, id.0);
        ledger.compare(key, "total", label.total, labelled.total);
        ledger.compare(key, "unread", label.unread, labelled.unread);
        ledger.compare(key, "hidden", label.hidden, labelled.hidden);
        if id.0 >= account.label_next {
            ledger.at(key, format!("label_next is {}, which does not come after it", account.label_next));
        }
        let key = Key::Change(user, ModSeq(label.modseq));
        match ledger.note(row::get::<ChangeRecord>(reader, key))? {
            Some(Some(change))
                if change.label_id == id.0
                    && matches!(change.kind(), ChangeKind::LabelCreated | ChangeKind::LabelUpdated) => {}
            Some(Some(_)) => ledger.at(key, format!("is not the newest change of label {id}")),
            Some(None) => ledger.at(key, format!("the newest change of label {id} is missing")),
            None => {}
        }
    }
    ledger.expect(Table::Labels, labels);
    for id in tally.labels.keys() {
        ledger.at(Key::Label(user, *id), "messages have it, and it cannot be read");
    }
    Ok(labels)
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
        let key = Key::decode(found?.0.as_ref()).map_err(Broken::from);
        tombstones += 1;
        let Some(Key::Tombstone(_, modseq)) = ledger.note(key)? else { continue };
        let key = Key::Change(user, modseq);
        let is_deletion = |change: &ChangeRecord| change::is_deletion(change.kind());
        let change = ledger.note(row::get::<ChangeRecord>(reader, key))?;
        if change.is_some_and(|change| !change.as_ref().is_some_and(is_deletion)) {
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

/// Application passwords: no more than may be, and of one salt.
fn verify_app_passwords(reader: &impl Reader, user: UserId, ledger: &mut Ledger) -> Result<(), Broken> {
    let mut count = 0;
    let mut salt: Option<Bytes> = None;
    for found in reader.scan(&KeyRange::user(Table::AppPasswords, user), Direction::Forward) {
        let (key, value) = found?;
        count += 1;
        let Some((key, record)) = ledger.note(row::decode_row::<AppPasswordRecord>(key, value))? else { continue };
        let own = record.keys.unwrap_or_default().salt;
        if own != *salt.get_or_insert_with(|| own.clone()) {
            ledger.at(key, "has another salt than those before it");
        }
    }
    ledger.expect(Table::AppPasswords, count);
    if count > APP_PASSWORDS_MAX as u64 {
        ledger.at(Key::Account(user), format!("has {count} application passwords"));
    }
    Ok(())
}

/// A second factor: what is not confirmed has taken nothing, and no more recovery codes than may be.
fn verify_second_factor(reader: &impl Reader, user: UserId, ledger: &mut Ledger) -> Result<(), Broken> {
    let key = Key::SecondFactor(user);
    let stored = ledger.note(row::get::<SecondFactorRecord>(reader, key))?.flatten();
    ledger.expect(Table::SecondFactors, u64::from(reader.get(&key.bytes())?.is_some()));
    let Some(record) = stored else { return Ok(()) };
    if record.sealed_secret.is_empty() {
        ledger.at(key, "has no secret");
    }
    if record.confirmed_ms == 0 && (record.last_step > 0 || !record.recovery_hashes.is_empty()) {
        ledger.at(key, "is not confirmed and was used");
    }
    if record.recovery_hashes.len() > RECOVERY_CODES_MAX {
        ledger.at(key, format!("has {} recovery codes", record.recovery_hashes.len()));
    }
    Ok(())
}

/// What came back, and whom he does not send to, against what is counted of them.
fn verify_sending(reader: &impl Reader, user: UserId, ledger: &mut Ledger) -> Result<(), Broken> {
    let key = Key::Sending(user);
    let stored = ledger.note(row::get::<SendingRecord>(reader, key))?.flatten();
    ledger.expect(Table::Sending, u64::from(reader.get(&key.bytes())?.is_some()));
    let sending = stored.unwrap_or_default();
    let (mut rows, mut suppressions) = (0, 0);
    for found in reader.scan(&KeyRange::user(Table::Feedback, user), Direction::Forward) {
        let (key, value) = found?;
        rows += 1;
        let Some((key @ Key::Feedback(_, sequence), record)) =
            ledger.note(row::decode_row::<FeedbackRecord>(key, value))?
        else {
            continue;
        };
        ledger.compare(key, "sequence", record.sequence, sequence);
        if sequence > sending.feedback_last {
            ledger.at(key, format!("is later than the newest, {}", sending.feedback_last));
        }
    }
    for found in reader.scan(&KeyRange::user(Table::Suppressions, user), Direction::Forward) {
        let (key, value) = found?;
        suppressions += 1;
        let Some((key, record)) = ledger.note(row::decode_row::<SuppressionRecord>(key, value))? else { continue };
        ledger.compare(key, "address", suppression::key(user, &record.address), key);
    }
    ledger.expect(Table::Feedback, rows);
    ledger.expect(Table::Suppressions, suppressions);
    ledger.compare(key, "feedback_rows", u64::from(sending.feedback_rows), rows);
    ledger.compare(key, "suppressions", u64::from(sending.suppressions), suppressions);
    Ok(())
}

/// The number of sessions.
fn verify_sessions(reader: &impl Reader, user: UserId, ledger: &mut Ledger) -> Result<u64, Broken> {
    let mut sessions = 0;
    for found in reader.scan(&KeyRange::user(Table::Sessions, user), Direction::Forward) {
        let (key, value) = found?;
        sessions += 1;
        ledger.note(row::decode_row::<SessionRecord>(key, value))?;
    }
    ledger.expect(Table::Sessions, sessions);
    Ok(sessions)
}
