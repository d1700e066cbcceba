//! What is left of accounts: of one that is being deleted whatever has not gone yet, of one that was deleted nothing.

use postrider_api::id::{BodyId, UserId};
use postrider_api::pb::{AccountRecord, AccountState, DeletedRecord, DeletionRecord, EmailRecord};

use crate::key::{Key, KeyRange, Table};
use crate::store::{Direction, Reader};
use crate::verify::bodies::References;
use crate::verify::ledger::Ledger;
use crate::{Broken, row};

/// Names every user who has rows and no account, in each table that is keyed by user. One look-up a user and table.
pub(crate) fn verify(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    for table in Table::ALL.iter().filter(|table| table.is_of_mailbox()) {
        let mut range = KeyRange::table(*table);
        while let Some(found) = reader.scan(&range, Direction::Forward).next() {
            let key = found?.0;
            // What does not decode was named when the rows were counted, and there is no way on behind it.
            let Ok(decoded) = Key::decode(key.as_ref()) else { break };
            let Some(user) = decoded.user() else { break };
            if reader.get(&Key::Account(user).bytes())?.is_none() {
                ledger.at(decoded, format!("belongs to user {user}, who has no account"));
            }
            match KeyRange::user(*table, user).end {
                Some(next) if range.end.is_none_or(|end| next < end) => range.start = next,
                _ => break,
            }
        }
    }
    verify_deletions(reader, ledger)
}

/// What says that an account is being deleted, and that one was, against the accounts.
fn verify_deletions(reader: &impl Reader, ledger: &mut Ledger) -> Result<(), Broken> {
    let account = |user: UserId| row::get::<AccountRecord>(reader, Key::Account(user));
    for found in reader.scan(&KeyRange::table(Table::Deletions), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::Deletions, 1);
        let deletion = ledger.note(row::decode_row::<DeletionRecord>(key, value))?;
        let Some((key @ Key::Deletion(user), _)) = deletion else { continue };
        let account = ledger.note(account(user))?;
        if account.is_some_and(|account| account.is_none_or(|account| account.state() != AccountState::Deleting)) {
            ledger.at(key, "names an account that is not being deleted");
        }
    }
    for found in reader.scan(&KeyRange::table(Table::DeletedUsers), Direction::Forward) {
        let (key, value) = found?;
        ledger.expect(Table::DeletedUsers, 1);
        let deleted = ledger.note(row::decode_row::<DeletedRecord>(key, value))?;
        let Some((key @ Key::DeletedUser(user), _)) = deleted else { continue };
        if reader.get(&Key::Account(user).bytes())?.is_some() {
            ledger.at(key, "names an account that is there");
        }
    }
    Ok(())
}

/// An account that is being deleted: its counters and indexes count no longer, its references to what others share do.
pub(crate) fn verify_leftovers(
    reader: &impl Reader,
    user: UserId,
    references: &mut References,
    ledger: &mut Ledger,
) -> Result<(), Broken> {
    let key = Key::Deletion(user);
    if reader.get(&key.bytes())?.is_none() {
        ledger.at(key, "is missing: nobody would go on with the deletion");
    }
    // The queue accounts for an outbox, and what was sent for itself.
    let elsewhere = [Table::Outbox, Table::SentMessages];
    let tables = Table::ALL.iter().filter(|table| table.is_of_mailbox() && !elsewhere.contains(table));
    for table in tables {
        for found in reader.scan(&KeyRange::user(*table, user), Direction::Forward) {
            let (key, value) = found?;
            ledger.expect(*table, 1);
            if *table != Table::Emails {
                continue;
            }
            let email = row::decode_row::<EmailRecord>(key, value)
                .and_then(|(key, email)| Ok((row::id::<BodyId>(key, &email.body_id)?, email.pieces)));
            if let Some((body, pieces)) = ledger.note(email)? {
                references.add(body, &pieces);
            }
        }
    }
    Ok(())
}
