//! When a session was last used, for its owner to see which of them he still knows.

use postrider_api::limit::SESSION_USE_MS;
use postrider_api::pb;
use postrider_api::pb::SessionRecord;
use postrider_api::pb::outcome::Result as Made;

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::session::token_hash;
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UseSession) -> Result<Made, Stop> {
    let hash = token_hash(&command.token_hash)?;
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let key = Key::Session(mailbox.user, hash);
    // It may have been ended since.
    let record = row::get::<SessionRecord>(turn.rows, key)?;
    let last_ms = |record: &SessionRecord| record.last_used_ms.max(record.created_ms);
    if let Some(record) = record.filter(|record| turn.now - last_ms(record) >= SESSION_USE_MS) {
        row::put(turn.rows, key, &SessionRecord { last_used_ms: turn.now, ..record });
    }
    Ok(Made::Done(pb::Done {}))
}
