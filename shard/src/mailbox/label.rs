//! Labels of the user's own, and their counters.
//!
//! A label is to its messages what a folder is, but that a message has any number of them, up to
//! [`postrider_api::limit::MESSAGE_LABELS_MAX`]. Its list shows them in whatever folder they stand except Trash and Junk: what was
//! deleted or is spam is looked for there. Such a message keeps its labels, in an index of its own, and is listed again when it
//! comes back.

use std::collections::BTreeMap;

use postrider_api::id::{FolderId, LabelId, ModSeq, UserId};
use postrider_api::pb::{LabelRecord, LabelState, ListRow, Refusal};

use crate::key::{Key, KeyRange, Table};
use crate::mailbox::folder::{JUNK, TRASH};
use crate::mailbox::{list_row, name};
use crate::store::{Direction, Reader, Rows};
use crate::turn::{Stop, malformed, refuse};
use crate::{Broken, row};

/// The first id of a user's labels.
pub(crate) const FIRST: LabelId = LabelId(1);
/// The largest colour: `0xRRGGBB`.
const COLOR_MAX: u32 = 0xff_ff_ff;

/// Where a label's lists have a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Unread,
    Read,
    /// In Trash or Junk.
    Hidden,
}

/// Where the lists of its labels have a message.
pub(crate) fn shown(folder: FolderId, is_read: bool) -> Shown {
    match folder {
        TRASH | JUNK => Shown::Hidden,
        _ if is_read => Shown::Read,
        _ => Shown::Unread,
    }
}

/// The same of the message of a line.
pub(crate) fn shown_of(line: &ListRow) -> Shown {
    shown(FolderId(line.folder_id), list_row::is_read(line))
}

/// The user's labels, by id; at most `LABELS_MAX`.
pub(crate) fn all(reader: &impl Reader, user: UserId) -> Result<Vec<LabelRecord>, Broken> {
    let mut labels = Vec::new();
    for found in reader.scan(&KeyRange::user(Table::Labels, user), Direction::Forward) {
        let (key, value) = found?;
        labels.push(row::decode_row::<LabelRecord>(key, value)?.1);
    }
    Ok(labels)
}

/// Refuses a name that another label has, however it is written.
pub(crate) fn check_free(labels: &[LabelRecord], name: &str, except: Option<LabelId>) -> Result<(), Stop> {
    let is_taken = |label: &LabelRecord| Some(LabelId(label.label_id)) != except && name::is_same(&label.name, name);
    if labels.iter().any(is_taken) {
        return Err(refuse(Refusal::LabelExists, "name: another label has this name"));
    }
    Ok(())
}

/// Refuses what is no colour.
pub(crate) fn check_color(color: u32) -> Result<u32, Stop> {
    match color {
        0..=COLOR_MAX => Ok(color),
        _ => Err(malformed("color: has more than 24 bits")),
    }
}

/// What whoever made or changed a label is told.
pub(crate) fn state(label: LabelRecord, modseq: ModSeq) -> LabelState {
    let LabelRecord { label_id, name, color, total, unread, .. } = label;
    LabelState { label_id, modseq: modseq.0, name, color, total, unread }
}

/// A refusal of a label that is not there.
pub(crate) fn unknown(field: &str, id: LabelId) -> Stop {
    refuse(Refusal::UnknownLabel, format!("{field}: there is no label {id}"))
}

/// Labels that a command has read, written back when it ends.
#[derive(Default)]
pub(crate) struct Labels {
    open: BTreeMap<LabelId, LabelRecord>,
}

impl Labels {
    /// `None` when the user has no such label.
    pub(crate) fn find(
        &mut self,
        rows: &impl Rows,
        user: UserId,
        id: LabelId,
    ) -> Result<Option<&mut LabelRecord>, Broken> {
        if let std::collections::btree_map::Entry::Vacant(slot) = self.open.entry(id) {
            match row::get::<LabelRecord>(rows, Key::Label(user, id))? {
                Some(label) => slot.insert(label),
                None => return Ok(None),
            };
        }
        Ok(self.open.get_mut(&id))
    }

    /// A label that a message has.
    pub(crate) fn need(&mut self, rows: &impl Rows, user: UserId, id: LabelId) -> Result<&mut LabelRecord, Broken> {
        self.find(rows, user, id)?.ok_or_else(|| Broken::missing(Key::Label(user, id)))
    }

    /// Counts a message in each of its labels.
    pub(crate) fn count_in(&mut self, rows: &impl Rows, user: UserId, line: &ListRow) -> Result<(), Broken> {
        for id in &line.labels {
            let label = self.need(rows, user, LabelId(*id))?;
            match shown_of(line) {
                Shown::Hidden => label.hidden += 1,
                shown => {
                    label.total += 1;
                    label.unread += u64::from(shown == Shown::Unread);
                }
            }
        }
        Ok(())
    }

    /// Uncounts a message in each of its labels.
    pub(crate) fn count_out(&mut self, rows: &impl Rows, user: UserId, line: &ListRow) -> Result<(), Broken> {
        for id in &line.labels {
            let id = LabelId(*id);
            let label = self.need(rows, user, id)?;
            let below = || Broken::corrupt(Key::Label(user, id), "a counter would fall below zero");
            match shown_of(line) {
                Shown::Hidden => label.hidden = label.hidden.checked_sub(1).ok_or_else(below)?,
                shown => {
                    label.total = label.total.checked_sub(1).ok_or_else(below)?;
                    let unread = u64::from(shown == Shown::Unread);
                    label.unread = label.unread.checked_sub(unread).ok_or_else(below)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the counters back.
    pub(crate) fn close(self, rows: &mut impl Rows, user: UserId) {
        for (id, label) in self.open {
            row::put(rows, Key::Label(user, id), &label);
        }
    }
}
