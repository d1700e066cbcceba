//! An entry while a command works on it: whatever is derived from its recipients is brought up to date in one place, when it
//! is closed: when it is due, the lines that they stand in, the counts, its sender's outbox, and who wakes behind those that have gone.
//!
//! Invariant: whoever waits has a time at which he is looked at, or stands parked in a line whose first has one, or is held by an operator.

use postrider_api::id::{EntryId, ModSeq, UserId};
use postrider_api::limit::{DELAY_WARNING_MS, OUTGOING_AGE_MS_MAX};
use postrider_api::notify::Notify;
use postrider_api::pb::{LineRecord, NewMessage, PendingRecipient, QueueRecord};

use crate::key::Key;
use crate::queue::count::Counted;
use crate::queue::destination::{self, Tally};
use crate::queue::line::Line;
use crate::queue::who::{self, Who};
use crate::store::{Reader, Rows};
use crate::tail::{self, Object, Verb};
use crate::turn::Turn;
use crate::{Broken, row};

/// `due_ms` of whoever is looked at when something else happens, and of an entry in which all are: it has no row in `queue_by_due`.
pub(crate) const NEVER_DUE_MS: i64 = i64::MAX;

/// An open entry. [`OpenEntry::close`] writes it back; dropping it instead forgets what was changed.
#[must_use]
pub(crate) struct OpenEntry {
    pub(crate) id: EntryId,
    pub(crate) record: QueueRecord,
    /// As it was when it was opened; `None`: it did not stand in the queue.
    was: Option<Standing>,
}

/// What stands elsewhere because of an entry.
struct Standing {
    users: Vec<UserId>,
    destinations: Tally,
    lines: Vec<Line>,
    /// In whose outbox it is.
    sender: Option<UserId>,
    due_ms: i64,
}

impl Standing {
    fn of(id: EntryId, record: &QueueRecord) -> Result<Self, Broken> {
        let key = Key::Queue(id);
        let is_empty = record.pending.is_empty();
        Ok(Self {
            users: users(id, &record.pending)?,
            destinations: destination::tally(id, &record.pending)?,
            lines: lines(id, &record.pending)?,
            sender: if is_empty { None } else { sender(key, record)? },
            due_ms: if is_empty { NEVER_DUE_MS } else { record.due_ms },
        })
    }
}

impl OpenEntry {
    /// `None` when nobody waits under this number.
    pub(crate) fn open(reader: &impl Reader, id: EntryId) -> Result<Option<Self>, Broken> {
        let Some(record) = row::get::<QueueRecord>(reader, Key::Queue(id))? else { return Ok(None) };
        Ok(Some(Self { id, was: Some(Standing::of(id, &record)?), record }))
    }

    /// The entry that another row names.
    pub(crate) fn need(reader: &impl Reader, id: EntryId) -> Result<Self, Broken> {
        Self::open(reader, id)?.ok_or_else(|| Broken::missing(Key::Queue(id)))
    }

    /// An entry that does not stand in the queue yet.
    pub(crate) fn create(id: EntryId, record: QueueRecord) -> Self {
        Self { id, record, was: None }
    }

    fn bytes(&self) -> u64 {
        self.record.message.as_ref().map_or(0, message_bytes)
    }

    /// Writes the entry, due when the first of its recipients is; without recipients it goes. `answered`: lines of which somebody has
    /// just got through.
    pub(crate) fn close(mut self, turn: &mut Turn<'_, impl Rows>, answered: &[Line]) -> Result<(), Broken> {
        self.stand_in_line(turn)?;
        let was = self.was.take();
        let now = Standing::of(self.id, &self.record)?;
        let lines = was.as_ref().map_or(&[][..], |was| &was.lines);
        let left: Vec<Line> = lines.iter().copied().filter(|line| !now.lines.contains(line)).collect();
        for line in &left {
            row::delete(turn.rows, line.key(self.id));
        }
        self.count(turn, was.as_ref(), &now)?;
        self.show(turn, was.as_ref(), &now);
        let was_due_ms = was.as_ref().map_or(NEVER_DUE_MS, |was| was.due_ms);
        if self.record.pending.is_empty() {
            delete_due(turn, was_due_ms, self.id);
            row::delete(turn.rows, Key::Queue(self.id));
        } else {
            self.put(turn, was_due_ms);
        }
        let verb = match (was.is_none(), self.record.pending.is_empty()) {
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

    /// No entry becomes due before now: whoever leases looks no further back.
    fn put(&mut self, turn: &mut Turn<'_, impl Rows>, was_due_ms: i64) {
        let first_ms = self.record.pending.iter().map(|pending| pending.due_ms).min().unwrap_or(NEVER_DUE_MS);
        let due_ms = if first_ms == was_due_ms { first_ms } else { first_ms.max(turn.now) };
        for pending in &mut self.record.pending {
            pending.due_ms = pending.due_ms.max(due_ms);
        }
        self.record.due_ms = due_ms;
        row::put(turn.rows, Key::Queue(self.id), &self.record);
        if due_ms != was_due_ms {
            delete_due(turn, was_due_ms, self.id);
        }
        if due_ms != NEVER_DUE_MS {
            row::put_empty(turn.rows, Key::QueueDue(due_ms, self.id));
            turn.queue_due = Some(turn.queue_due.map_or(due_ms, |first_ms| first_ms.min(due_ms)));
        }
    }

    /// Takes the entry's places in the lines of its recipients, behind older entries parked.
    fn stand_in_line(&mut self, turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
        for line in lines(self.id, &self.record.pending)? {
            let parked = line.has_older(turn.rows, self.id)?;
            row::put(turn.rows, line.key(self.id), &LineRecord { parked });
            self.set_parked(turn.now, line, parked)?;
        }
        Ok(())
    }

    /// Whoever is parked now is looked at only when his sender is to be told of it; whoever is not any more, now.
    fn set_parked(&mut self, now: i64, line: Line, parked: bool) -> Result<(), Broken> {
        for place in 0..self.record.pending.len() {
            let pending = &self.record.pending[place];
            if Line::of(Key::Queue(self.id), pending)? != Some(line) || pending.parked == parked {
                continue;
            }
            let due_ms = if parked { told_ms(&self.record, pending) } else { now };
            let pending = &mut self.record.pending[place];
            (pending.parked, pending.due_ms) = (parked, due_ms);
        }
        Ok(())
    }

    fn count(&self, turn: &mut Turn<'_, impl Rows>, was: Option<&Standing>, now: &Standing) -> Result<(), Broken> {
        let bytes = self.bytes();
        let waited = was.map_or(&[][..], |was| &was.users);
        for user in now.users.iter().filter(|user| !waited.contains(user)) {
            Counted::Recipient(*user).add(turn.rows, bytes)?;
        }
        for user in waited.iter().filter(|user| !now.users.contains(user)) {
            Counted::Recipient(*user).remove(turn.rows, bytes)?;
        }
        let nowhere = Tally::new();
        let sent_to = was.map_or(&nowhere, |was| &was.destinations);
        destination::recount(turn.rows, self.id, bytes, sent_to, &now.destinations)?;
        let sender = Counted::Sender(&self.record.mail_from);
        match (was.is_none(), self.record.pending.is_empty()) {
            (true, false) => {
                sender.add(turn.rows, bytes)?;
                turn.state.queue_entries += 1;
            }
            (false, true) => {
                sender.remove(turn.rows, bytes)?;
                let entries = turn.state.queue_entries.checked_sub(1);
                turn.state.queue_entries =
                    entries.ok_or_else(|| Broken::corrupt(Key::Shard, "queue_entries would fall below zero"))?;
            }
            (true, true) | (false, false) => {}
        }
        Ok(())
    }

    /// The entry is in its sender's outbox for as long as somebody waits in it.
    fn show(&self, turn: &mut Turn<'_, impl Rows>, was: Option<&Standing>, now: &Standing) {
        let before = was.and_then(|was| was.sender);
        if before != now.sender {
            if let Some(user) = before {
                row::delete(turn.rows, Key::Outbox(user, self.id));
            }
            if let Some(user) = now.sender {
                row::put_empty(turn.rows, Key::Outbox(user, self.id));
            }
        }
    }

    /// Has those who wait in `line` tried now.
    pub(crate) fn wake(mut self, turn: &mut Turn<'_, impl Rows>, line: Line) -> Result<(), Broken> {
        self.set_parked(turn.now, line, false)?;
        row::put(turn.rows, line.key(self.id), &LineRecord { parked: false });
        let was_due_ms = self.record.due_ms;
        self.put(turn, was_due_ms);
        tail::push(turn, Object::QueueEntry(self.id), Verb::Updated, ModSeq(0));
        Ok(())
    }
}

fn delete_due(turn: &mut Turn<'_, impl Rows>, due_ms: i64, id: EntryId) {
    if due_ms != NEVER_DUE_MS {
        row::delete(turn.rows, Key::QueueDue(due_ms, id));
    }
}

/// When somebody who is parked is looked at all the same: his sender is to be told that he waits, and later that he was given up. For
/// a user nobody is told so.
pub(crate) fn told_ms(record: &QueueRecord, pending: &PendingRecipient) -> i64 {
    if !who::is_remote(pending) {
        return NEVER_DUE_MS;
    }
    let is_warned =
        pending.delay_reported || record.sender_user_id.is_empty() || !Notify(pending.notify).tells(Notify::DELAY);
    pending.since_ms.saturating_add(if is_warned { OUTGOING_AGE_MS_MAX } else { DELAY_WARNING_MS })
}

/// What an entry's message counts for.
pub(crate) fn message_bytes(message: &NewMessage) -> u64 {
    message.size
}

/// The user who sent it, if one did and is still there.
pub(crate) fn sender(key: Key, record: &QueueRecord) -> Result<Option<UserId>, Broken> {
    match record.sender_user_id.is_empty() {
        true => Ok(None),
        false => row::id(key, &record.sender_user_id).map(Some),
    }
}

fn users(id: EntryId, pending: &[PendingRecipient]) -> Result<Vec<UserId>, Broken> {
    let who = pending.iter().map(|pending| Who::of_pending(Key::Queue(id), pending));
    who.filter_map(|who| who.map(|who| who.user()).transpose()).collect()
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
