//! When an application password was last used, for its owner to see which of them he still needs.

use postrider_api::id::AppPasswordId;
use postrider_api::limit::APP_PASSWORD_USE_MS;
use postrider_api::pb;
use postrider_api::pb::AppPasswordRecord;
use postrider_api::pb::outcome::Result as Made;

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, id};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UseAppPassword) -> Result<Made, Stop> {
    let used: AppPasswordId = id(&command.app_password_id, "app_password_id")?;
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let key = Key::AppPassword(mailbox.user, used);
    // It may have been revoked since.
    let record = row::get::<AppPasswordRecord>(turn.rows, key)?;
    if let Some(record) = record.filter(|record| turn.now - record.last_used_ms >= APP_PASSWORD_USE_MS) {
        row::put(turn.rows, key, &AppPasswordRecord { last_used_ms: turn.now, ..record });
    }
    Ok(Made::Done(pb::Done {}))
}
