//! Recipients outside of a leased entry, and what the shard is told of them.
//!
//! What a shard hands out and takes back (ADR 110), which whoever sends to the outside has to keep:
//! - A recipient without a `user_id` is one outside, named by his address byte for byte. He is in a lease when he is due: alone, or with
//!   others of the entry.
//! - `parked`: an older entry is tried for his destination. He is not to be tried; what is due is to tell his sender. Older than
//!   `OUTGOING_AGE_MS_MAX` since `since_ms` he is settled FAILED, older than `DELAY_WARNING_MS` and not `delay_reported` WAITS, both
//!   with `reported` and a report in the Settle; otherwise WAITS.
//! - Age is the lease's time less `since_ms`, never `created_ms`: what is sent later, or again, has waited since then only.
//! - `destination`: nobody of that domain, or of his `route`, would have got through; all of its mail waits behind one. What was said to him
//!   alone (4yz at RCPT) is without, and he has a time of his own. `retry_ms` 0 has the shard choose it by his attempts.
//! - A Settle with a report needs 16 bytes of entropy, and its blobs pinned under its request. It is filed only if somebody whom it tells
//!   of still waits for the sender `sender_user_id`; else whoever is FAILED goes to the error queue.
//! - Whoever is not mentioned and was due is due again after the Settle's `retry_ms`.

use postrider_api::limit::OUTGOING_RETRY_MS_MIN;
use postrider_api::pb::{PendingRecipient, RecipientResult, Settlement};

/// This worker reaches nobody outside: who is there waits, for one that does.
pub(super) fn put_off(pending: &PendingRecipient) -> RecipientResult {
    let settlement = if pending.parked { Settlement::Waits } else { Settlement::Held };
    RecipientResult {
        address: pending.address.clone(),
        settlement: settlement.into(),
        reason: "no worker sends to the outside".to_owned(),
        retry_ms: OUTGOING_RETRY_MS_MIN,
        ..RecipientResult::default()
    }
}
