//! A label of the user's own.

use postrider_api::id::LabelId;
use postrider_api::limit::{LABEL_NAME_BYTES_MAX, LABELS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind, LabelRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{change, label, name};
use crate::row;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CreateLabel) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let name = name::check(&command.name, LABEL_NAME_BYTES_MAX)?;
    let color = label::check_color(command.color)?;
    let labels = label::all(turn.rows, mailbox.user)?;
    if labels.len() >= LABELS_MAX {
        return Err(refuse(Refusal::LabelsTooMany, format!("a mailbox has at most {LABELS_MAX} labels")));
    }
    label::check_free(&labels, name, None)?;
    let id = LabelId(mailbox.account.label_next);
    mailbox.account.label_next += 1;
    let mut record = LabelRecord { label_id: id.0, name: name.to_owned(), color, ..Default::default() };
    record.modseq = change::of_label(turn, &mut mailbox, ChangeKind::LabelCreated, &record, None)?.0;
    row::put(turn.rows, Key::Label(mailbox.user, id), &record);
    let modseq = mailbox.modseq();
    mailbox.close(turn);
    Ok(Made::LabelState(label::state(record, modseq)))
}
