//! Recipients for whom as much mail waits as may.
//!
//! Only the shard that would keep an entry knows, and it says so at the end of a message, where SMTP has one reply for all
//! recipients. So the first message that meets a full queue is refused as a whole, for now; its sender brings it again, and is
//! then told at RCPT which of the recipients it is about: the others get it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::Clock;
use postrider_api::id::UserId;

use super::limit::{CONGESTED, CONGESTED_RECIPIENTS_MAX};

/// Who was found to have too much waiting, and when, on the monotonic clock.
pub(super) struct Congestion {
    clock: Arc<dyn Clock>,
    found: moka::sync::Cache<UserId, Duration>,
}

impl Congestion {
    /// Nobody.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, found: moka::sync::Cache::new(CONGESTED_RECIPIENTS_MAX) }
    }

    /// A shard has named these users. What is no user id was no user's of ours.
    pub(super) fn found(&self, users: &[Bytes]) {
        for user in users.iter().filter_map(|user| UserId::try_from(user).ok()) {
            self.found.insert(user, self.clock.monotonic());
        }
    }

    /// Whether the user was named a short time ago.
    pub(super) fn is_at(&self, user: UserId) -> bool {
        let now = self.clock.monotonic();
        self.found.get(&user).is_some_and(|found| now.saturating_sub(found) < CONGESTED)
    }
}
