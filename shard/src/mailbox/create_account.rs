//! A mailbox is made, with the folders that every mailbox has.

use postrider_api::id::ModSeq;
use postrider_api::limit::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountRecord, ChangeKind, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{change, folder, label};
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, malformed, refuse};

/// A PHC string of argon2id with generous parameters, bytes.
pub(crate) const PASSWORD_HASH_BYTES_MAX: usize = 512;
/// A region's name, bytes.
const REGION_BYTES_MAX: usize = 64;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CreateAccount) -> Result<Made, Stop> {
    let user = id(&command.user_id, "user_id")?;
    check_text("address", &command.address, ADDRESS_BYTES_MAX, false)?;
    check_text("name", &command.name, NAME_BYTES_MAX, true)?;
    check_text("password_hash", &command.password_hash, PASSWORD_HASH_BYTES_MAX, false)?;
    check_text("home_region", &command.home_region, REGION_BYTES_MAX, true)?;
    if Mailbox::open(turn, user)?.is_some() || Mailbox::is_deleted(turn, user)? {
        return Err(refuse(Refusal::AccountExists, format!("user {user} has a mailbox already")));
    }
    let account = AccountRecord {
        user_id: user.to_bytes(),
        address: command.address.clone(),
        name: command.name.clone(),
        password_hash: command.password_hash.clone(),
        home_region: command.home_region.clone(),
        quota_bytes: command.quota_bytes,
        folder_next: folder::OWN_FIRST.0,
        label_next: label::FIRST.0,
        created_ms: turn.now,
        ..Default::default()
    };
    let mut mailbox = Mailbox::create(user, account);
    tail::push(turn, Object::Account(user), Verb::Created, ModSeq(0));
    for (id, name, role) in folder::MADE_WITH_ACCOUNT {
        let mut record = folder::empty(id, name, role);
        record.modseq = change::of_folder(turn, &mut mailbox, ChangeKind::FolderCreated, &record, None)?.0;
        row::put(turn.rows, Key::Folder(user, id), &record);
    }
    turn.state.users += 1;
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(Made::Changed(pb::Changed { modseq }))
}

/// Refuses a text that is too long, or empty where one is needed.
pub(crate) fn check_text(field: &str, text: &str, bytes_max: usize, may_be_empty: bool) -> Result<(), Stop> {
    if text.is_empty() && !may_be_empty {
        return Err(malformed(format!("{field}: is missing")));
    }
    if text.len() > bytes_max {
        return Err(malformed(format!("{field}: at most {bytes_max} bytes")));
    }
    Ok(())
}
