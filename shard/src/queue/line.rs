//! Lines: who waits for the same thing waits in order, and only the first tries.
//!
//! A mailbox that is too full, a shard that does not answer and a destination outside that takes nothing would each have all of their entries tried again and again,
//! beside those that could be delivered. Instead the oldest entry of a line is tried; the others are parked, which takes them
//! out of `queue_by_due`. When something has got through, or the first has left for another reason, the next ones wake.
//!
//! Invariant: the first entry of a line is not parked, so something of each line is always due ([`Line::wake`] is called by
//! whatever takes an entry out of one).

use postrider_api::id::{EntryId, ShardId, UserId};
use postrider_api::pb::{LineRecord, PendingRecipient, QueueLine};

use crate::key::{Key, KeyRange, NameHash, Table, name_hash};
use crate::queue::entry::OpenEntry;
use crate::queue::who;
use crate::store::{Direction, Reader, Rows};
use crate::turn::Turn;
use crate::{Broken, row};

/// Entries of a line that may be under way at once after something got through: what waits behind a mailbox or a shard that
/// works again leaves as fast as these are settled.
const AWAKE_MAX: usize = 16;
/// The same of a destination outside, which is further away: how many of them are sent at once is the workers' to say.
const DESTINATION_AWAKE_MAX: usize = 64;

/// What a recipient waits for together with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Line {
    /// Room in this mailbox.
    Mailbox(UserId),
    /// This shard.
    Shard(ShardId),
    /// This destination outside, by the hash of its name.
    Destination(NameHash),
}

impl Line {
    /// The line in which a recipient of the row under `key` waits.
    pub(crate) fn of(key: Key, pending: &PendingRecipient) -> Result<Option<Self>, Broken> {
        Ok(match QueueLine::try_from(pending.line) {
            Ok(QueueLine::None) => None,
            Ok(QueueLine::Mailbox) => Some(Self::Mailbox(row::id(key, &pending.user_id)?)),
            Ok(QueueLine::Shard) => Some(Self::Shard(ShardId(pending.line_shard))),
            Ok(QueueLine::Destination) => match who::destination(key, pending)? {
                Some(destination) => Some(Self::to(&destination)),
                None => return Err(Broken::corrupt(key, "line: a user waits for no destination outside")),
            },
            Err(unknown) => return Err(Broken::corrupt(key, format!("line: {unknown}"))),
        })
    }

    /// The line of those who wait for a destination outside.
    pub(crate) fn to(destination: &str) -> Self {
        Self::Destination(name_hash(destination))
    }

    /// Sets the line in a recipient's record.
    pub(crate) fn set(line: Option<Self>, pending: &mut PendingRecipient) {
        let (kind, shard) = match line {
            None => (QueueLine::None, 0),
            Some(Self::Mailbox(_)) => (QueueLine::Mailbox, 0),
            Some(Self::Shard(shard)) => (QueueLine::Shard, shard.0),
            // Which is said by his address, or his route.
            Some(Self::Destination(_)) => (QueueLine::Destination, 0),
        };
        pending.line = kind.into();
        pending.line_shard = shard;
        pending.parked = false;
    }

    pub(crate) fn key(self, entry: EntryId) -> Key {
        match self {
            Self::Mailbox(user) => Key::MailboxLine(user, entry),
            Self::Shard(shard) => Key::ShardLine(shard, entry),
            Self::Destination(hash) => Key::DestinationLine(hash, entry),
        }
    }

    fn range(self) -> KeyRange {
        match self {
            Self::Mailbox(user) => KeyRange::user(Table::MailboxLines, user),
            Self::Shard(shard) => KeyRange::shard_line(shard),
            Self::Destination(hash) => KeyRange::destination_line(hash),
        }
    }

    fn awake_max(self) -> usize {
        match self {
            Self::Mailbox(_) | Self::Shard(_) => AWAKE_MAX,
            Self::Destination(_) => DESTINATION_AWAKE_MAX,
        }
    }

    /// Whether an entry older than this one stands in the line.
    pub(crate) fn has_older(self, reader: &impl Reader, entry: EntryId) -> Result<bool, Broken> {
        Ok(first(reader, self)?.is_some_and(|first| first < entry))
    }

    /// Lets the first entries of the line be tried now.
    pub(crate) fn wake(self, turn: &mut Turn<'_, impl Rows>) -> Result<(), Broken> {
        let mut parked = Vec::new();
        for found in turn.rows.scan(&self.range(), Direction::Forward).take(self.awake_max()) {
            let (key, value) = found?;
            let (key, record) = row::decode_row::<LineRecord>(key, value)?;
            if record.parked {
                parked.push(place(key.bytes().as_ref())?.1);
            }
        }
        for entry in parked {
            OpenEntry::need(turn.rows, entry)?.wake(turn, self)?;
        }
        Ok(())
    }
}

/// The entry that stands first in a line.
pub(crate) fn first(reader: &impl Reader, line: Line) -> Result<Option<EntryId>, Broken> {
    match reader.scan(&line.range(), Direction::Forward).next() {
        Some(found) => Ok(Some(place(found?.0.as_ref())?.1)),
        None => Ok(None),
    }
}

/// The line and the entry of a key of one of the three tables.
pub(crate) fn place(key: &[u8]) -> Result<(Line, EntryId), Broken> {
    match Key::decode(key)? {
        Key::MailboxLine(user, entry) => Ok((Line::Mailbox(user), entry)),
        Key::ShardLine(shard, entry) => Ok((Line::Shard(shard), entry)),
        Key::DestinationLine(hash, entry) => Ok((Line::Destination(hash), entry)),
        other => Err(Broken::corrupt(other, "stands in the range of a line")),
    }
}
