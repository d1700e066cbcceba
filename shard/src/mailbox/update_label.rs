//! A label of the user's own gets another name or colour.

use postrider_api::id::{LabelId, ModSeq};
use postrider_api::limit::LABEL_NAME_BYTES_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind, LabelRecord};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{change, label, name};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UpdateLabel) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let id = LabelId(command.label_id);
    let key = Key::Label(mailbox.user, id);
    let stored: LabelRecord = row::get(turn.rows, key)?.ok_or_else(|| label::unknown("label_id", id))?;
    let mut record = stored.clone();
    if let Some(name) = &command.name {
        let name = name::check(name, LABEL_NAME_BYTES_MAX)?;
        label::check_free(&label::all(turn.rows, mailbox.user)?, name, Some(id))?;
        name.clone_into(&mut record.name);
    }
    if let Some(color) = command.color {
        record.color = label::check_color(color)?;
    }
    if record != stored {
        let previous = Some(ModSeq(record.modseq));
        record.modseq = change::of_label(turn, &mut mailbox, ChangeKind::LabelUpdated, &record, previous)?.0;
        row::put(turn.rows, key, &record);
    }
    let modseq = mailbox.modseq();
    mailbox.close(turn);
    Ok(Made::LabelState(label::state(record, modseq)))
}
