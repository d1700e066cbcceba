//! What waits for whom, and from whom (P-13): so that a mailbox which takes nothing more, or one sender, cannot grow a queue
//! without end.

use postrider_api::id::UserId;
use postrider_api::limit::{
    QUEUE_ENTRIES_MAX, QUEUE_RECIPIENT_BYTES_MAX, QUEUE_RECIPIENT_ENTRIES_MAX, QUEUE_SENDER_BYTES_MAX,
    QUEUE_SENDER_ENTRIES_MAX,
};
use postrider_api::pb::{self, QueueCount, Refusal};

use crate::key::{Key, name_hash};
use crate::queue::destination;
use crate::queue::enqueue::Waiting;
use crate::queue::who::Who;
use crate::store::{Reader, Rows};
use crate::turn::{Stop, Turn, refuse};
use crate::{Broken, row};

/// Whose entries are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted<'a> {
    Recipient(UserId),
    /// By reverse-path.
    Sender(&'a str),
}

impl Counted<'_> {
    /// `None` for the null reverse-path, which is everybody's.
    pub(crate) fn key(self) -> Option<Key> {
        match self {
            Self::Recipient(user) => Some(Key::QueueRecipient(user)),
            Self::Sender("") => None,
            Self::Sender(sender) => Some(Key::QueueSender(name_hash(sender))),
        }
    }

    /// An entry with a message of so many bytes more.
    pub(crate) fn add(self, rows: &mut impl Rows, bytes: u64) -> Result<(), Broken> {
        let Some(key) = self.key() else { return Ok(()) };
        let count: QueueCount = row::get(rows, key)?.unwrap_or_default();
        row::put(rows, key, &QueueCount { entries: count.entries + 1, bytes: count.bytes + bytes });
        Ok(())
    }

    /// An entry less. The row goes with the last.
    pub(crate) fn remove(self, rows: &mut impl Rows, bytes: u64) -> Result<(), Broken> {
        let Some(key) = self.key() else { return Ok(()) };
        let count: QueueCount = row::need(rows, key)?;
        let (Some(entries), Some(bytes)) = (count.entries.checked_sub(1), count.bytes.checked_sub(bytes)) else {
            return Err(Broken::corrupt(key, "would fall below zero"));
        };
        match entries {
            0 => row::delete(rows, key),
            entries => row::put(rows, key, &QueueCount { entries, bytes }),
        }
        Ok(())
    }

    /// Whether one more entry is too many. One always fits, whatever its size.
    fn is_full(self, reader: &impl Reader, bytes: u64) -> Result<bool, Broken> {
        let (entries_max, bytes_max) = match self {
            Self::Recipient(_) => (QUEUE_RECIPIENT_ENTRIES_MAX, QUEUE_RECIPIENT_BYTES_MAX),
            Self::Sender(_) => (QUEUE_SENDER_ENTRIES_MAX, QUEUE_SENDER_BYTES_MAX),
        };
        let Some(key) = self.key() else { return Ok(false) };
        let count: Option<QueueCount> = row::get(reader, key)?;
        Ok(count.is_some_and(|count| count.entries >= entries_max || count.bytes.saturating_add(bytes) > bytes_max))
    }
}

/// Whether as much waits for the recipient as may.
pub(crate) fn is_full_for(reader: &impl Reader, user: UserId, bytes: u64) -> Result<bool, Broken> {
    Counted::Recipient(user).is_full(reader, bytes)
}

/// Refuses an entry of `sender` for these recipients if it is too much for one of them, for a destination, for the sender or for the
/// queue. Before anything is written.
pub(crate) fn check(turn: &Turn<'_, impl Rows>, sender: &str, waiting: &[Waiting], bytes: u64) -> Result<(), Stop> {
    let mut full = Vec::new();
    let mut checked: Vec<&str> = Vec::new();
    for waiting in waiting {
        match &waiting.who {
            Who::User(user) if is_full_for(turn.rows, *user, bytes)? => full.push(user.to_bytes()),
            Who::User(_) => {}
            // One of its recipients speaks for a domain.
            Who::Remote(remote) if checked.contains(&remote.domain()) => {}
            Who::Remote(remote) if destination::is_full(turn.rows, remote.domain())? => {
                let detail = format!("recipients: as much mail for {} waits as may", remote.domain());
                return Err(refuse(Refusal::QueueFull, detail));
            }
            Who::Remote(remote) => checked.push(remote.domain()),
        }
    }
    if !full.is_empty() {
        let detail = "recipients: as much mail waits for one of them as may".to_owned();
        return Err(Stop::Refused(pb::Refused { refusal: Refusal::QueueFull.into(), detail, users: full }));
    }
    let any = !waiting.is_empty();
    if any && Counted::Sender(sender).is_full(turn.rows, bytes)? {
        return Err(refuse(Refusal::QueueFull, "mail_from: as much mail of this sender waits as may"));
    }
    if any && turn.state.queue_entries >= QUEUE_ENTRIES_MAX {
        return Err(refuse(Refusal::QueueFull, format!("the shard's queue has {QUEUE_ENTRIES_MAX} entries")));
    }
    Ok(())
}
