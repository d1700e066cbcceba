//! What waits for a destination outside, over all shards.

use postrider_api::pb;

/// A destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationSummary {
    /// A domain, or `via HOST` where an operator has named one.
    pub destination: String,
    /// Entries, recipients and bytes that wait.
    pub entries: u64,
    /// See there.
    pub recipients: u64,
    /// See there.
    pub bytes: u64,
    /// The shard of the oldest entry, and its number.
    pub oldest: (u32, u64),
    /// Since when that waits, milliseconds.
    pub oldest_ms: i64,
    /// An operator holds who is tried first.
    pub held: bool,
    /// When it is tried next, milliseconds; the largest number there is: not by itself.
    pub next_ms: i64,
    /// How often the oldest was tried.
    pub attempts: u32,
    /// Others wait behind it until the destination takes mail.
    pub in_line: bool,
    /// Why the oldest waits.
    pub why: String,
    /// What the destination said last.
    pub reply: String,
    /// When it said that.
    pub reply_ms: i64,
}

impl DestinationSummary {
    /// Of what one shard says.
    pub fn of(shard: u32, found: pb::Destination) -> Self {
        let count = found.count.unwrap_or_default();
        Self {
            destination: count.destination,
            entries: count.entries,
            recipients: count.recipients,
            bytes: count.bytes,
            oldest: (shard, found.entry),
            oldest_ms: found.created_ms,
            held: found.held,
            next_ms: found.due_ms,
            attempts: found.attempts,
            in_line: found.in_line,
            why: found.reason,
            reply: count.reply,
            reply_ms: count.reply_ms,
        }
    }

    /// The same destination in another shard: the oldest entry of both says why, the first attempt of both is the next.
    pub fn add(&mut self, other: Self) {
        let (entries, recipients, bytes) =
            (self.entries + other.entries, self.recipients + other.recipients, self.bytes + other.bytes);
        let in_line = self.in_line || other.in_line;
        let (held, next_ms) = match other.next_ms < self.next_ms {
            true => (other.held, other.next_ms),
            false => (self.held, self.next_ms),
        };
        let (reply, reply_ms) = match other.reply_ms > self.reply_ms {
            true => (other.reply.clone(), other.reply_ms),
            false => (self.reply.clone(), self.reply_ms),
        };
        if other.oldest_ms < self.oldest_ms {
            *self = other;
        }
        (self.entries, self.recipients, self.bytes, self.in_line) = (entries, recipients, bytes, in_line);
        (self.held, self.next_ms, self.reply, self.reply_ms) = (held, next_ms, reply, reply_ms);
    }
}

/// Whether a recipient who waits is sent to a destination.
pub fn is_for(pending: &pb::PendingRecipient, destination: &str) -> bool {
    let domain = pending.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    let is_outside = pending.user_id.is_empty();
    is_outside
        && match destination.strip_prefix("via ") {
            Some(host) => pending.route == host,
            None => pending.route.is_empty() && domain == destination,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entries: u64, created_ms: i64, due_ms: i64, reply: (&str, i64)) -> pb::Destination {
        let count = pb::DestinationRecord {
            destination: "far.example".to_owned(),
            entries,
            bytes: 10 * entries,
            recipients: 2 * entries,
            reply: reply.0.to_owned(),
            reply_ms: reply.1,
        };
        let reason = format!("since {created_ms}");
        pb::Destination { count: Some(count), entry: 7, created_ms, due_ms, reason, ..Default::default() }
    }

    #[test]
    fn shards_are_summed_up_and_the_oldest_says_why() {
        let mut summary = DestinationSummary::of(1000, found(3, 200, 900, ("421 now", 50)));
        summary.add(DestinationSummary::of(1001, found(4, 100, 950, ("450 before", 40))));
        assert_eq!((summary.entries, summary.recipients, summary.bytes), (7, 14, 70));
        assert_eq!((summary.oldest, summary.why.as_str()), ((1001, 7), "since 100"));
        assert_eq!((summary.next_ms, summary.reply.as_str()), (900, "421 now"));
    }

    #[test]
    fn a_route_is_a_destination_of_its_own() {
        let pending = |address: &str, route: &str| pb::PendingRecipient {
            address: address.to_owned(),
            route: route.to_owned(),
            ..Default::default()
        };
        assert!(is_for(&pending("x@far.example", ""), "far.example"));
        assert!(!is_for(&pending("x@far.example", "mx.near"), "far.example"));
        assert!(is_for(&pending("x@far.example", "mx.near"), "via mx.near"));
        let ours = pb::PendingRecipient { user_id: vec![1; 16].into(), ..pending("x@far.example", "") };
        assert!(!is_for(&ours, "far.example"));
    }
}
