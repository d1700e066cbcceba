//! How many bytes strangers may bring to the object stores in an hour, by network and by recipient (P-13).
//!
//! What a part of a command carries is bounded by quotas and by the rate of the log. Large files go to the stores first, and so a
//! stranger who sends them to many mailboxes, or to one that throws them away, could fill disks for ever. Counted is what would be
//! stored, before it is stored; text is never refused for it.
//!
//! In the memory of each frontend: a stranger who spreads over frontends gets the limit of each.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::ops::compute::Op;
use moka::sync::Cache;
use postrider_api::env::Clock;
use postrider_api::id::UserId;
use postrider_api::limit::BLOB_BYTES_MIN;

use super::limit::SmtpLimits;
use super::reply::Reply;
use crate::network::Network;

/// What is counted is forgotten at this rate: all of a limit within it.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Networks and recipients that are counted; beyond it those that were heard of least are forgotten.
const COUNTED_MAX: u64 = 100_000;

/// Bytes that came in, forgotten steadily.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    bytes: u64,
    /// On the monotonic clock.
    at: Duration,
}

impl Level {
    /// What of it still counts.
    fn left(self, now: Duration, max: u64) -> u64 {
        let passed = now.saturating_sub(self.at).min(HOUR).as_millis();
        // At most the limit, which fits.
        let forgotten = u64::try_from(u128::from(max) * passed / HOUR.as_millis()).unwrap_or(u64::MAX);
        self.bytes.saturating_sub(forgotten)
    }
}

/// Counts.
pub(super) struct Intake {
    clock: Arc<dyn Clock>,
    network_max: u64,
    recipient_max: u64,
    networks: Cache<Network, Level>,
    recipients: Cache<UserId, Level>,
}

impl Intake {
    pub(super) fn new(clock: Arc<dyn Clock>, limits: &SmtpLimits) -> Arc<Self> {
        let (networks, recipients) = (Cache::new(COUNTED_MAX), Cache::new(COUNTED_MAX));
        Arc::new(Self {
            clock,
            network_max: limits.network_blob_bytes_per_hour_max,
            recipient_max: limits.recipient_blob_bytes_per_hour_max,
            networks,
            recipients,
        })
    }

    /// Whether a message that was announced with so many bytes (0: not announced) may come. Of one that is not known to be large
    /// nothing is said before it is here.
    ///
    /// # Errors
    /// The reply to RCPT.
    pub(super) fn admit(&self, peer: IpAddr, recipient: UserId, size: u64) -> Result<(), Reply> {
        if size < BLOB_BYTES_MIN as u64 {
            return Ok(());
        }
        let network = Network::of(peer);
        let now = self.clock.monotonic();
        if is_full(&self.networks, &network, now, self.network_max) {
            return Err(Reply::NetworkFilesTooMany);
        }
        match is_full(&self.recipients, &recipient, now, self.recipient_max) {
            true => Err(Reply::RecipientFilesTooMany),
            false => Ok(()),
        }
    }

    /// Counts what is about to be stored.
    ///
    /// # Errors
    /// The reply to the message: it is not to be stored.
    pub(super) fn take(
        &self,
        peer: IpAddr,
        recipients: impl Iterator<Item = UserId> + Clone,
        bytes: u64,
    ) -> Result<(), Reply> {
        let (network, now) = (Network::of(peer), self.clock.monotonic());
        if is_full(&self.networks, &network, now, self.network_max) {
            return Err(Reply::NetworkFilesTooMany);
        }
        if recipients.clone().any(|recipient| is_full(&self.recipients, &recipient, now, self.recipient_max)) {
            return Err(Reply::RecipientFilesTooMany);
        }
        add(&self.networks, network, now, self.network_max, bytes);
        recipients.for_each(|recipient| add(&self.recipients, recipient, now, self.recipient_max, bytes));
        Ok(())
    }
}

/// One message may go over the limit, and the next has to wait: so the limit may be smaller than a message.
fn is_full<K: Hash + Eq + Send + Sync + 'static>(levels: &Cache<K, Level>, key: &K, now: Duration, max: u64) -> bool {
    levels.get(key).is_some_and(|level| level.left(now, max) >= max)
}

fn add<K: Hash + Eq + Send + Sync + 'static>(levels: &Cache<K, Level>, key: K, now: Duration, max: u64, bytes: u64) {
    levels.entry(key).and_compute_with(|known| {
        let left = known.map_or(0, |known| known.into_value().left(now, max));
        Op::Put(Level { bytes: left.saturating_add(bytes), at: now })
    });
}

#[cfg(test)]
mod tests {
    use postrider_api::id::{Slot, ZoneId};

    use super::*;

    struct Hands(parking_lot::Mutex<Duration>);

    impl Clock for Hands {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    #[test]
    fn files_are_counted_by_network_and_by_recipient_and_forgotten() {
        let clock = Arc::new(Hands(parking_lot::Mutex::new(Duration::from_secs(1000))));
        let limits = SmtpLimits {
            network_blob_bytes_per_hour_max: 1000,
            recipient_blob_bytes_per_hour_max: 500,
            ..SmtpLimits::default()
        };
        let intake = Intake::new(Arc::clone(&clock) as _, &limits);
        let [here, there]: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let [ada, bob, eve] = [1, 2, 3].map(|n| UserId::new(ZoneId(1), Slot(n), [7; 12]));
        let large = BLOB_BYTES_MIN as u64;
        assert_eq!(intake.take(here, [ada].into_iter(), 600), Ok(()));
        assert_eq!(intake.take(there, [bob, ada].into_iter(), 1), Err(Reply::RecipientFilesTooMany));
        assert_eq!(intake.admit(there, ada, large), Err(Reply::RecipientFilesTooMany));
        assert_eq!(intake.admit(there, ada, large - 1), Ok(()), "text comes in");
        assert_eq!(intake.take(here, [bob].into_iter(), 400), Ok(()));
        assert_eq!(intake.take(here, [eve].into_iter(), 1), Err(Reply::NetworkFilesTooMany));
        assert_eq!(intake.admit(here, eve, large), Err(Reply::NetworkFilesTooMany));
        assert_eq!(intake.take(there, [eve].into_iter(), 1), Ok(()));
        // A quarter of an hour later a quarter of each limit is forgotten.
        *clock.0.lock() += HOUR / 4;
        assert_eq!(intake.take(here, [ada].into_iter(), 1), Ok(()));
        *clock.0.lock() += HOUR;
        assert_eq!(intake.take(here, [ada, bob].into_iter(), 1), Ok(()));
    }
}
