//! The queue: messages in transit to mailboxes of other shards, or of this one when they are too full or the sender wants it later, and
//! to the world outside.
//!
//! Leases are not here: they live in the leader's memory. An entry refers to its body like a mailbox message does; its row
//! repeats the message without the text. It stands in `queue_by_due` under the time when the first of its recipients is looked at next,
//! and goes with the last who waits in it. Those who wait for the same thing stand in a line of which only the first is tried ([`line`]).
//!
//! Invariant (P-1, P-6): whoever leaves an entry was delivered to, or his sender has a report of it in the same apply ([`report`]), or
//! he stands in the error queue ([`failed`]) with the message, or has deleted his account; or the sender has taken it back before
//! anybody was tried ([`cancel`]).
//! When an entry is tried again and when it is given up is decided here, by the shard's own time: a worker says how long to
//! wait, and what it has learnt.

pub(crate) mod cancel;
pub(crate) mod count;
pub(crate) mod destination;
pub(crate) mod drop_recipient;
pub(crate) mod enqueue;
pub(crate) mod entry;
pub(crate) mod failed;
pub(crate) mod line;
pub(crate) mod manage;
pub(crate) mod outbox;
pub(crate) mod read;
pub(crate) mod report;
pub(crate) mod settle;
pub(crate) mod who;

use postrider_api::id::BodyId;
use postrider_api::pb::NewMessage;

use crate::key::Key;
use crate::{Broken, row};

pub use read::{Made, entry as leased_entry, made};

/// The body that the row under `key` refers to.
pub(crate) fn body_of(key: Key, message: Option<&NewMessage>) -> Result<BodyId, Broken> {
    let body = message.and_then(|message| message.body.as_ref());
    row::id(key, &body.ok_or_else(|| Broken::corrupt(key, "has no body"))?.body_id)
}
