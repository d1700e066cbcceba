//! An entry while a command works on it: whatever is derived from its recipients is brought up to date in one place, when it
//! is closed: when it is due, the lines that they stand in, the counts, and who wakes behind those that have gone.

use postrider_api::id::{EntryId, ModSeq, UserId};
use postrider_api::pb::{LineRecord, NewMessage, PendingRecipient, QueueRecord};

use crate::key::Key;
use crate::queue::count::Counted;
use crate::queue::line::Line;
use crate::store::{Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::Turn;
use crate::{Broken, row};

/// `due_ms` of an entry in which everybody is parked: it has no row in `queue_by_due`.
pub(crate) const NEVER_DUE_MS: i64 = i64::MAX;

/// An open entry. [`OpenEntry::close`] writes it back; dropping it instead forgets what was changed.
#[must_use]
pub(crate) struct OpenEntry {
    pub(crate) id: EntryId,
    pub(crate) record: QueueRecord,
    /// Who waited, and in which lines, when it was opened.
    waited: Vec<UserId>,
    lines: Vec<Line>,
    was_due_ms: i64,
}

impl OpenEntry {
    /// `None` when nobody waits under this number.
    pub(crate) fn open(reader: &impl Reader, id: EntryId) -> Result<Option<Self>, Broken> {
        let Some(record) = row::get::<QueueRecord>(reader, Key::Queue(id))? else { return Ok(None) };
        let (waited, lines) = (users(id, &record.pending)?, lines(id, &record.pending)?);
        Ok(Some(Self { id, waited, lines, was_due_ms: record.due_ms, record }))
    }

    /// The entry that another row names.
    pub(crate) fn need(reader: &impl Reader, id: EntryId) -> Result<Self, Broken> {
        Self::open(reader, id)?.ok_or_else(|| Broken::missing(Key::Queue(id)))
    }

    /// An entry that does not stand in the queue yet.
    pub(crate) fn create(id: EntryId, record: QueueRecord) -> Self {
        Self { id, record, waited: Vec::new(), lines: Vec::new(), was_due_ms: NEVER_DUE_MS }
    }

    fn bytes(&self) -> u64 {
        self.record.message.as_ref().map_or(0, message_bytes)
    }

    /// Writes the entry, due at `due_ms` for those who are not parked; without recipients it goes. `answered`: lines of which
    /// somebody has just got through.
    pub(crate) fn close(
        mut self,
        turn: &mut Turn<'_, impl Rows>,
        due_ms: i64,
        answered: &[Line],
    ) -> Result<(), Broken> {
        let is_new = self.waited.is_empty();
        let left = self.stand_in_line(turn)?;
        self.count(turn, is_new)?;
        if self.was_due_ms != NEVER_DUE_MS {
            row::delete(turn.rows, Key::QueueDue(self.was_due_ms, self.id));
        }
        if self.record.pending.is_empty() {
            row::delete(turn.rows, Key::Queue(self.id));
        } else {
            let is_parked = self.record.pending.iter().all(|pending| pending.parked);
            self.put(turn, if is_parked { NEVER_DUE_MS } else { due_ms });
        }
        let verb = match (is_new, self.record.pending.is_empty()) {
            (true, false) => Some(Verb::Created),
            (false, false) => Some(Verb::Updated),
            (false, true) => Some(Verb::Deleted),
            // It was never written.
            (true, true) => None,
        };
        if let Some(verb) = verb {
            tail::push(turn, Object::QueueEntry(self.id), verb, ModSeq(0));
        }
        for line in left.iter().chain(answered.iter().filter(|line| !left.contains(line))) {
            line.wake(turn)?;
        }
        Ok(())
    }

    fn put(&mut self, turn: &mut Turn<'_, impl Rows>, due_ms: i64) {
        self.record.due_ms = due_ms;
        row::put(turn.rows, Key::Queue(self.id), &self.record);
        if due_ms != NEVER_DUE_MS {
            row::put_empty(turn.rows, Key::QueueDue(due_ms, self.id));
            turn.queue_due = Some(due_ms);
        }
    }

    /// Takes the entry's places in the lines of its recipients, behind older entries parked, and gives up those that it no
    /// longer needs, which are returned.
    fn stand_in_line(&mut self, turn: &mut Turn<'_, impl Rows>) -> Result<Vec<Line>, Broken> {
        let now = lines(self.id, &self.record.pending)?;
        for line in &now {
            let parked = line.has_older(turn.rows, self.id)?;
            row::put(turn.rows, line.key(self.id), &LineRecord { parked });
            self.set_parked(*line, parked)?;
        }
        let left: Vec<Line> = self.lines.iter().copied().filter(|line| !now.contains(line)).collect();
        for line in &left {
            row::delete(turn.rows, line.key(self.id));
        }
        Ok(left)
    }

    fn set_parked(&mut self, line: Line, parked: bool) -> Result<(), Broken> {
        for pending in &mut self.record.pending {
            if Line::of(Key::Queue(self.id), pending)? == Some(line) {
                pending.parked = parked;
            }
        }
        Ok(())
    }

    fn count(&self, turn: &mut Turn<'_, impl Rows>, is_new: bool) -> Result<(), Broken> {
        let bytes = self.bytes();
        let wait = users(self.id, &self.record.pending)?;
        for user in wait.iter().filter(|user| !self.waited.contains(user)) {
            Counted::Recipient(*user).add(turn.rows, bytes)?;
        }
        for user in self.waited.iter().filter(|user| !wait.contains(user)) {
            Counted::Recipient(*user).remove(turn.rows, bytes)?;
        }
        let sender = Counted::Sender(&self.record.mail_from);
        if is_new && !wait.is_empty() {
            sender.add(turn.rows, bytes)?;
            turn.state.queue_entries += 1;
        }
        if !is_new && wait.is_empty() {
            sender.remove(turn.rows, bytes)?;
            let entries = turn.state.queue_entries.checked_sub(1);
            turn.state.queue_entries =
                entries.ok_or_else(|| Broken::corrupt(Key::Shard, "queue_entries would fall below zero"))?;
        }
        Ok(())
    }

    /// Has those who wait in `line` tried now.
    pub(crate) fn wake(mut self, turn: &mut Turn<'_, impl Rows>, line: Line) -> Result<(), Broken> {
        self.set_parked(line, false)?;
        row::put(turn.rows, line.key(self.id), &LineRecord { parked: false });
        if self.was_due_ms != NEVER_DUE_MS {
            row::delete(turn.rows, Key::QueueDue(self.was_due_ms, self.id));
        }
        let due_ms = self.was_due_ms.min(turn.now);
        self.put(turn, due_ms);
        tail::push(turn, Object::QueueEntry(self.id), Verb::Updated, ModSeq(0));
        Ok(())
    }
}

/// What an entry's message counts for.
pub(crate) fn message_bytes(message: &NewMessage) -> u64 {
    message.size
}

fn users(id: EntryId, pending: &[PendingRecipient]) -> Result<Vec<UserId>, Broken> {
    pending.iter().map(|pending| row::id(Key::Queue(id), &pending.user_id)).collect()
}

/// The lines of these recipients, each once.
pub(crate) fn lines(id: EntryId, pending: &[PendingRecipient]) -> Result<Vec<Line>, Broken> {
    let mut lines = Vec::new();
    for pending in pending {
        if let Some(line) = Line::of(Key::Queue(id), pending)?
            && !lines.contains(&line)
        {
            lines.push(line);
        }
    }
    Ok(lines)
}
