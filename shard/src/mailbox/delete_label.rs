//! A label of the user's own goes; its messages stay where they are, without it.
//!
//! One command takes it from at most [`UPDATES_MAX`] messages, and from fewer where lists would have more than
//! [`UPDATE_BYTES_MAX`] written. While more have it the label stays, and the outcome is `LabelDraining`: as with a folder
//! (ADR 023), the proposer gives the command again, under another request id, until it is `Changed`.

use postrider_api::id::{EmailId, LabelId, ModSeq};
use postrider_api::limit::{UPDATE_BYTES_MAX, UPDATES_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, ChangeKind};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::account::Mailbox;
use crate::mailbox::change;
use crate::mailbox::folder::Folders;
use crate::mailbox::label::{self, Labels};
use crate::mailbox::message::{self, Stored, Wanted};
use crate::store::{Direction, Rows};
use crate::turn::{Stop, Turn};
use crate::{Broken, row};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DeleteLabel) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let (user, id) = (mailbox.user, LabelId(command.label_id));
    let (mut folders, mut labels) = (Folders::default(), Labels::default());
    if labels.find(turn.rows, user, id)?.is_none() {
        return Err(label::unknown("label_id", id));
    }
    let mut written = 0;
    for email in labelled(turn, &mailbox, id)? {
        let stored = Stored::need(turn.rows, user, email)?;
        let mut wanted = Wanted::of(&stored.email);
        wanted.labels.retain(|label| *label != id.0);
        written += stored.list_bytes(&wanted);
        message::alter(turn, &mut mailbox, &mut folders, &mut labels, stored, wanted)?;
        if written >= UPDATE_BYTES_MAX {
            break;
        }
    }
    let left = labels.need(turn.rows, user, id)?.clone();
    folders.close(turn.rows, &mailbox);
    labels.close(turn.rows, user);
    let remaining = left.total + left.hidden;
    if remaining == 0 {
        let previous = Some(ModSeq(left.modseq));
        change::of_label(turn, &mut mailbox, ChangeKind::LabelDeleted, &left, previous)?;
        row::delete(turn.rows, Key::Label(user, id));
    }
    let modseq = mailbox.modseq().0;
    mailbox.close(turn);
    Ok(match remaining {
        0 => Made::Changed(pb::Changed { modseq }),
        remaining => Made::LabelDraining(pb::LabelDraining { modseq, remaining }),
    })
}

/// Some of the messages that have the label, wherever they stand.
fn labelled(turn: &Turn<'_, impl Rows>, mailbox: &Mailbox, label: LabelId) -> Result<Vec<EmailId>, Broken> {
    let mut emails = Vec::new();
    for table in [Table::LabelHidden, Table::LabelRead, Table::LabelUnread] {
        let range = KeyRange::label(table, mailbox.user, label);
        for found in turn.rows.scan(&range, Direction::Backward).take(UPDATES_MAX - emails.len()) {
            match Key::decode(found?.0.as_ref())? {
                Key::LabelHidden(_, _, email) | Key::LabelRead(_, _, email) | Key::LabelUnread(_, _, email) => {
                    emails.push(email);
                }
                other => return Err(Broken::corrupt(other, "stands in the range of a label")),
            }
        }
    }
    Ok(emails)
}
