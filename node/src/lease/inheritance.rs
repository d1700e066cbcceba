//! What an earlier leader of a shard may have leased for the outside (ADR 116).
//!
//! Hosts outside cannot be asked whether they have a message. So whoever has one on its way there goes on under the lease that it has
//! when the leader changes, and nobody else is given the entry meanwhile: every lease that an earlier leader gave is over by the end.
//! What goes between shards is leased afresh at once; nobody gets that twice.
//!
//! Invariant: leases are given, and prolonged, behind a barrier. So an earlier leader gave none after this one began.

use std::time::Duration;

use postrider_api::id::EntryId;
use postrider_api::limit::{CANCEL_MARGIN_MS, LEASE_INHERITED_MS};
use postrider_shard::queue::Made;

use crate::replicas::Lead;

/// Of one lead.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    /// When it is over, on the node's clock.
    until: Duration,
    /// Entries that were made later are this leader's own, milliseconds of the shard's time.
    made_ms_max: i64,
    /// Everything due up to here was seen, and could not be leased.
    passed: Option<(i64, EntryId)>,
}

impl Inheritance {
    pub(crate) fn of(lead: Lead) -> Self {
        Self {
            until: lead.since + Duration::from_millis(LEASE_INHERITED_MS),
            // An earlier leader's clock may have been ahead.
            made_ms_max: lead.since_ms.saturating_add(CANCEL_MARGIN_MS),
            passed: None,
        }
    }

    /// When it is over, if it is not yet.
    pub(crate) fn until(&self, now: Duration) -> Option<Duration> {
        (now < self.until).then_some(self.until)
    }

    /// Whether somebody may have the entry by a lease of an earlier leader.
    pub(crate) fn has(&self, entry: &Made, now: Duration) -> bool {
        now < self.until && entry.for_outside && entry.at_ms <= self.made_ms_max
    }

    /// Where a look begins that need not see again what earlier ones have seen.
    pub(crate) fn passed(&self, now: Duration) -> Option<(i64, EntryId)> {
        self.passed.filter(|_| now < self.until)
    }

    /// A look at the shard's time `now_ms` has seen that nothing up to here can be leased. Nothing comes to stand there later: what is made or
    /// put off is due then at the earliest.
    pub(crate) fn pass(&mut self, due_ms: i64, entry: EntryId, now_ms: i64) {
        self.passed = Some(if due_ms < now_ms { (due_ms, entry) } else { (now_ms, EntryId(0)) });
    }

    /// Something can be leased that could not be.
    pub(crate) fn look_again(&mut self) {
        self.passed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_an_earlier_leader_may_have_leased_for_the_outside_is_inherited_until_no_such_lease_is_left() {
        let inheritance = Inheritance::of(Lead { term: 2, since: at(100), since_ms: 50_000 });
        let old = Made { at_ms: 50_000, for_outside: true, bytes: 0 };
        assert!(inheritance.has(&old, at(100)));
        assert!(inheritance.has(&old, at(131)));
        assert!(!inheritance.has(&old, at(132)));
        assert_eq!((inheritance.until(at(131)), inheritance.until(at(132))), (Some(at(132)), None));
        assert!(!inheritance.has(&Made { for_outside: false, ..old }, at(100)), "between shards nobody gets it twice");
        assert!(inheritance.has(&Made { at_ms: 52_000, ..old }, at(100)), "the clocks of two leaders differ");
        assert!(!inheritance.has(&Made { at_ms: 52_001, ..old }, at(100)));
    }

    #[test]
    fn what_may_still_come_is_not_passed() {
        let mut inheritance = Inheritance::of(Lead { term: 2, since: at(100), since_ms: 50_000 });
        inheritance.pass(40_000, EntryId(7), 45_000);
        assert_eq!(inheritance.passed(at(101)), Some((40_000, EntryId(7))));
        inheritance.pass(45_000, EntryId(9), 45_000);
        assert_eq!(inheritance.passed(at(101)), Some((45_000, EntryId(0))), "others may be put off until then");
        assert_eq!(inheritance.passed(at(132)), None);
        inheritance.look_again();
        assert_eq!(inheritance.passed(at(101)), None);
    }
}
