//! The receiving side of the queue: messages in transit to mailboxes of other shards, or of this one when they are too full.
//!
//! Leases are not here: they live in the leader's memory. An entry refers to its body like a mailbox message does; its row
//! repeats the message without the text. It stands in `queue_by_due` under the time when it is tried next, and goes with
//! its last recipient.

pub(crate) mod enqueue;
pub(crate) mod read;
pub(crate) mod settle;

pub use read::entry;

/// Why a recipient waits whose mailbox is in another shard.
pub(crate) const REASON_ELSEWHERE: &str = "the mailbox is in another shard";
/// Why a recipient waits whose mailbox is in this shard.
pub(crate) const REASON_OVER_QUOTA: &str = "the mailbox is over its quota";
