//! Response rate limits: who forges the sender's address gets nobody flooded.
//!
//! Answers over UDP are counted by the network that they go to and by what they are, so that a flood of one name does not
//! silence another. Of those beyond the limit, one in [`SLIP`] is sent as an empty truncated answer, which is no larger than the
//! question: whoever is really there asks again over TCP. Who shows a cookie of ours, or asks over TCP, is not counted.
//!
//! The counters are a fixed table of token buckets (GCRA) under a secret hash. Two that meet in one share a limit.

use std::hash::Hasher as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use crate::latency::prefix::Prefix;

/// Answers a second of one kind to one network.
pub const ANSWERS_PER_SECOND: u32 = 50;
/// How many seconds' worth of answers may come at once.
const BURST_S: u64 = 4;
/// Of the answers beyond the limit, one in so many is sent truncated.
pub const SLIP: u64 = 2;
/// Half a MiB.
const BUCKETS: usize = 1 << 16;
/// Who is one network: RFC 8805's neighbours; what one subscriber of IPv6 has.
const NETWORK_BITS_V4: u8 = 24;
const NETWORK_BITS_V6: u8 = 56;

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// An empty one with the truncation bit is sent in its place.
    Slip,
    /// Nothing is.
    Drop,
}

/// What an answer is, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// Of this name.
    Name(&'a [u8]),
    /// That a name of this zone is not there: the names of a flood are all different.
    Nothing(&'a [u8]),
    /// An error.
    Error,
}

/// The limits of one process.
pub struct RateLimits {
    secret: [u8; 16],
    /// Nanoseconds that one answer costs.
    cost: u64,
    /// Each the moment, in nanoseconds on the caller's clock, at which it is full again.
    buckets: Box<[AtomicU64]>,
    slipped: AtomicU64,
}

impl RateLimits {
    /// So many answers a second; 0: as many as anybody likes.
    pub fn new(answers_per_second: u32, secret: [u8; 16]) -> Option<Self> {
        let cost = 1_000_000_000u64.checked_div(answers_per_second.into())?;
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Some(Self { secret, cost, buckets, slipped: AtomicU64::new(0) })
    }

    /// Counts an answer to a client.
    pub(crate) fn count(&self, client: IpAddr, kind: Kind<'_>, now: Duration) -> Verdict {
        let bits = if client.to_canonical().is_ipv4() { NETWORK_BITS_V4 } else { NETWORK_BITS_V6 };
        let network = Prefix::new(client.to_canonical(), bits).address();
        let mut hasher = SipHasher13::new_with_key(&self.secret);
        match network {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        let (tag, name) = match kind {
            Kind::Name(name) => (1, name),
            Kind::Nothing(zone) => (2, zone),
            Kind::Error => (3, &[][..]),
        };
        hasher.write_u8(tag);
        hasher.write(name);
        // The remainder is below the number of buckets.
        let bucket = &self.buckets[(hasher.finish() % BUCKETS as u64) as usize];
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let burst = BURST_S * 1_000_000_000;
        let take = |full_at: u64| {
            let next = full_at.max(now).saturating_add(self.cost);
            (next.saturating_sub(now) <= burst).then_some(next)
        };
        if bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Verdict::Send;
        }
        let slips = self.slipped.fetch_add(1, Ordering::Relaxed).is_multiple_of(SLIP);
        if slips { Verdict::Slip } else { Verdict::Drop }
    }
}

impl std::fmt::Debug for RateLimits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RateLimits").field("cost_ns", &self.cost).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(limits: &RateLimits, client: &str, kind: Kind<'_>, from_s: u64, count: usize) -> usize {
        let client = client.parse().unwrap();
        (0..count).filter(|_| limits.count(client, kind, Duration::from_secs(from_s)) == Verdict::Send).count()
    }

    #[test]
    fn a_flood_is_cut_and_half_of_the_rest_told_to_use_tcp() {
        let limits = RateLimits::new(10, [1; 16]).unwrap();
        let client = "198.51.100.1".parse().unwrap();
        let verdicts: Vec<_> =
            (0..1000).map(|_| limits.count(client, Kind::Name(b"a"), Duration::from_secs(9))).collect();
        let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
        assert_eq!((count(Verdict::Send), count(Verdict::Slip), count(Verdict::Drop)), (40, 480, 480));
        assert_eq!(sent(&limits, "198.51.100.200", Kind::Name(b"a"), 9, 10), 0, "its neighbour is the same network");
        assert_eq!(sent(&limits, "198.51.101.1", Kind::Name(b"a"), 9, 10), 10);
        assert_eq!(sent(&limits, "198.51.100.1", Kind::Name(b"b"), 9, 10), 10, "another name");
        assert_eq!(sent(&limits, "198.51.100.1", Kind::Name(b"a"), 10, 1000), 10, "a second later");
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(RateLimits::new(0, [1; 16]).is_none());
    }
}
