//! Who holds which entry of one shard.
//!
//! Invariant: an entry is held by at most one lease at a time, and a lease is named by the leader's term and a number that
//! is never used again: what comes back under an older name is refused.
//! Invariant: a lease of an earlier leader is taken over only for an entry that this one has not given to anybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::pb::Fence;

use super::inheritance::Inheritance;
use crate::replicas::Lead;

/// Leases that were settled are remembered this long, so that whoever asks again under the same request id gets through.
const SETTLED: Duration = Duration::from_secs(30);
/// Settled leases that are remembered, the newest: 1,000 a second for all that time, and less long beyond.
const SETTLED_MAX: usize = 30_000;
/// A lease does not lapse while its result is on its way into the log, which takes at most this long.
const SETTLING: Duration = Duration::from_secs(10);

/// A lease's name: the term in which it was given, and its number. Later ones are greater.
type Name = (u64, u64);

fn name(fence: Fence) -> Name {
    (fence.term, fence.counter)
}

#[derive(Debug)]
struct Held {
    name: Name,
    until: Duration,
}

#[derive(Debug)]
struct Settled {
    entry: EntryId,
    /// Under which it was settled.
    request: Bytes,
}

/// The leases of one shard in one term.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    term: u64,
    counter: u64,
    held: BTreeMap<EntryId, Held>,
    /// When what is held lapses; the same leases as in `held`.
    lapses: BTreeSet<(Duration, EntryId)>,
    settled: BTreeMap<Name, Settled>,
    /// When what was settled is forgotten, the oldest first; the same leases as in `settled`.
    forgotten: VecDeque<(Duration, Name)>,
    pub(crate) inheritance: Inheritance,
    /// No entry is due before, and none will be: where to look for due entries, milliseconds of the shard's time.
    due_from_ms: i64,
}

/// The lease is not the current one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl LeaseTable {
    /// Begins a term: a new leader leases afresh, but for what it inherits.
    pub(crate) fn enter(&mut self, lead: Lead) {
        if self.term != lead.term {
            let inheritance = Inheritance::of(lead);
            *self = Self { term: lead.term, counter: self.counter, inheritance, ..Self::default() };
        }
    }

    /// Drops what has lapsed, and forgets what was settled long ago.
    pub(crate) fn sweep(&mut self, now: Duration) {
        while let Some((until, entry)) = self.lapses.first().copied().filter(|(until, _)| *until <= now) {
            self.lapses.remove(&(until, entry));
            self.held.remove(&entry);
            self.inheritance.look_again();
        }
        while let Some((_, name)) = self.forgotten.front().copied().filter(|(until, _)| *until <= now) {
            self.forgotten.pop_front();
            self.settled.remove(&name);
        }
    }

    /// Leases that are out. What was settled is not.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_free(&self, entry: EntryId, now: Duration) -> bool {
        self.held.get(&entry).is_none_or(|held| held.until <= now)
    }

    /// Leases a free entry.
    pub(crate) fn take(&mut self, entry: EntryId, until: Duration) -> Fence {
        self.counter += 1;
        let fence = Fence { term: self.term, counter: self.counter };
        self.hold(entry, name(fence), until);
        fence
    }

    fn hold(&mut self, entry: EntryId, name: Name, until: Duration) {
        if let Some(former) = self.held.insert(entry, Held { name, until }) {
            self.lapses.remove(&(former.until, entry));
        }
        self.lapses.insert((until, entry));
    }

    /// Whether the lease is one of an earlier leader.
    pub(crate) fn is_older(&self, fence: Fence) -> bool {
        fence.term < self.term
    }

    /// Takes over the lease of an earlier leader, of an entry that [`Inheritance::has`]. Of two the later one counts: the earlier had lapsed
    /// when it was given.
    pub(crate) fn inherit(&mut self, entry: EntryId, fence: Fence, now: Duration, until: Duration) -> Result<(), Lost> {
        let lease = name(fence);
        let is_settled = self.settled.contains_key(&lease);
        let is_later = self.held.get(&entry).is_none_or(|held| held.until <= now || held.name < lease);
        if is_settled || !is_later || !self.is_older(fence) {
            return Err(Lost);
        }
        self.hold(entry, lease, until);
        Ok(())
    }

    /// Whether something was settled under the lease.
    pub(crate) fn is_settled(&self, fence: Fence) -> bool {
        self.settled.contains_key(&name(fence))
    }

    /// Whether it is this lease that holds the entry.
    pub(crate) fn is_held(&self, entry: EntryId, fence: Fence) -> bool {
        self.held.get(&entry).is_some_and(|held| held.name == name(fence))
    }

    /// Has a lease that has not lapsed last until `until`, if that is later than it does.
    pub(crate) fn prolong(&mut self, entry: EntryId, fence: Fence, now: Duration, until: Duration) -> Result<(), Lost> {
        let is_current = |held: &&mut Held| held.name == name(fence) && held.until > now;
        let held = self.held.get_mut(&entry).filter(is_current).ok_or(Lost)?;
        self.lapses.remove(&(held.until, entry));
        held.until = held.until.max(until);
        self.lapses.insert((held.until, entry));
        Ok(())
    }

    /// When the next lease lapses.
    pub(crate) fn next_lapse(&self) -> Option<Duration> {
        self.lapses.first().map(|(until, _)| *until)
    }

    /// Where due entries begin.
    pub(crate) fn due_from_ms(&self) -> i64 {
        self.due_from_ms
    }

    /// A look has found the first entry due at `first_ms`, or none, at the shard's time `now_ms`. What is made later is due
    /// then or later, and what is put off too: the shard's time never goes back.
    pub(crate) fn looked(&mut self, first_ms: Option<i64>, now_ms: i64) {
        self.due_from_ms = first_ms.map_or(now_ms, |first_ms| first_ms.min(now_ms));
    }

    /// Whether whoever holds `fence` may settle the entry under `request` now.
    pub(crate) fn begin_settling(
        &mut self,
        entry: EntryId,
        fence: Fence,
        request: &Bytes,
        now: Duration,
    ) -> Result<(), Lost> {
        if let Some(settled) = self.settled.get(&name(fence)) {
            let is_repeated = settled.entry == entry && settled.request == request && !request.is_empty();
            return if is_repeated { Ok(()) } else { Err(Lost) };
        }
        let held = self.held.get_mut(&entry).filter(|held| held.name == name(fence)).ok_or(Lost)?;
        if held.until <= now {
            return Err(Lost);
        }
        self.lapses.remove(&(held.until, entry));
        held.until = held.until.max(now + SETTLING);
        self.lapses.insert((held.until, entry));
        Ok(())
    }

    /// The result is in the log.
    pub(crate) fn settled(&mut self, entry: EntryId, fence: Fence, request: Bytes, now: Duration) {
        let lease = name(fence);
        if self.settled.contains_key(&lease) {
            return;
        }
        if self.is_held(entry, fence)
            && let Some(held) = self.held.remove(&entry)
        {
            self.lapses.remove(&(held.until, entry));
        }
        self.settled.insert(lease, Settled { entry, request });
        self.forgotten.push_back((now + SETTLED, lease));
        while self.forgotten.len() > SETTLED_MAX
            && let Some((_, oldest)) = self.forgotten.pop_front()
        {
            self.settled.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENTRY: EntryId = EntryId(7);

    #[test]
    fn a_lease_is_prolonged_by_whoever_holds_it_and_not_once_it_has_lapsed() {
        let mut table = LeaseTable::default();
        table.enter(lead(1));
        let fence = table.take(ENTRY, at(10));
        assert_eq!(table.prolong(ENTRY, Fence { counter: fence.counter + 1, ..fence }, at(5), at(20)), Err(Lost));
        assert_eq!(table.prolong(ENTRY, fence, at(5), at(20)), Ok(()));
        // It is never made shorter.
        assert_eq!(table.prolong(ENTRY, fence, at(6), at(7)), Ok(()));
        assert!(!table.is_free(ENTRY, at(19)));
        assert_eq!(table.next_lapse(), Some(at(20)));
        assert_eq!(table.prolong(ENTRY, fence, at(20), at(30)), Err(Lost));
        table.enter(lead(2));
        assert_eq!(table.prolong(ENTRY, fence, at(1), at(30)), Err(Lost));
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lead(term: u64) -> Lead {
        Lead { term, since: at(0), since_ms: 0 }
    }

    fn table() -> LeaseTable {
        let mut table = LeaseTable::default();
        table.enter(lead(3));
        table
    }

    #[test]
    fn a_lapsed_lease_is_given_out_again_and_its_old_holder_is_refused() {
        let mut table = table();
        let request = Bytes::from_static(b"one");
        let first = table.take(ENTRY, at(10));
        assert!(!table.is_free(ENTRY, at(9)));
        assert!(table.is_free(ENTRY, at(10)));
        assert_eq!(table.begin_settling(ENTRY, first, &request, at(10)), Err(Lost));
        let second = table.take(ENTRY, at(20));
        assert_ne!(first, second);
        assert_eq!(table.begin_settling(ENTRY, first, &request, at(11)), Err(Lost));
        assert_eq!(table.begin_settling(ENTRY, second, &request, at(11)), Ok(()));
        assert_eq!(table.next_lapse(), Some(at(21)));
    }

    #[test]
    fn a_settled_lease_lets_its_own_repetition_through_and_the_entry_go() {
        let mut table = table();
        let (request, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        let fence = table.take(ENTRY, at(10));
        table.begin_settling(ENTRY, fence, &request, at(1)).unwrap();
        table.settled(ENTRY, fence, request.clone(), at(2));
        assert_eq!(table.begin_settling(ENTRY, fence, &request, at(3)), Ok(()));
        assert_eq!(table.begin_settling(ENTRY, fence, &other, at(3)), Err(Lost));
        assert!(table.is_free(ENTRY, at(3)), "deferred entries may be due again at once");
        assert_eq!(table.next_lapse(), None);
        let again = table.take(ENTRY, at(20));
        assert_eq!(table.begin_settling(ENTRY, fence, &request, at(3)), Ok(()), "whoever has the entry now");
        assert_eq!(table.begin_settling(EntryId(8), fence, &request, at(3)), Err(Lost), "another entry");
        assert_eq!(table.begin_settling(ENTRY, again, &other, at(3)), Ok(()));
        table.sweep(at(32));
        assert_eq!(table.begin_settling(ENTRY, fence, &request, at(32)), Err(Lost), "forgotten");
    }

    #[test]
    fn what_was_settled_is_remembered_within_bounds_and_holds_no_place() {
        let mut table = table();
        let request = Bytes::from_static(b"one");
        let fences: Vec<_> = (0..SETTLED_MAX as u64 + 1)
            .map(|entry| {
                let fence = table.take(EntryId(entry), at(10));
                table.begin_settling(EntryId(entry), fence, &request, at(1)).unwrap();
                table.settled(EntryId(entry), fence, request.clone(), at(1));
                fence
            })
            .collect();
        assert_eq!(table.len(), 0);
        assert_eq!(table.settled.len(), SETTLED_MAX);
        assert_eq!(table.begin_settling(EntryId(0), fences[0], &request, at(2)), Err(Lost), "the oldest went");
        assert_eq!(table.begin_settling(EntryId(1), fences[1], &request, at(2)), Ok(()));
        table.sweep(at(31));
        assert!(table.settled.is_empty() && table.forgotten.is_empty() && table.lapses.is_empty());
    }

    #[test]
    fn a_new_term_leases_afresh() {
        let mut table = table();
        let fence = table.take(ENTRY, at(10));
        table.enter(lead(4));
        assert!(table.is_free(ENTRY, at(1)));
        assert_eq!(table.begin_settling(ENTRY, fence, &Bytes::new(), at(1)), Err(Lost));
        let again = table.take(ENTRY, at(10));
        assert_eq!(again.term, 4);
        table.looked(Some(70), 90);
        assert_eq!(table.due_from_ms(), 70);
        table.looked(None, 95);
        assert_eq!(table.due_from_ms(), 95);
        table.enter(lead(5));
        assert_eq!(table.due_from_ms(), 0, "who led in between may have seen another time");
        assert!(again.counter > fence.counter, "a number is never used again");
    }

    #[test]
    fn a_lease_of_an_earlier_leader_is_taken_over_by_the_last_who_has_it_and_settled_once() {
        let mut old = table();
        let (lapsed, current) = (old.take(ENTRY, at(1)), old.take(ENTRY, at(30)));
        let mut table = LeaseTable::default();
        table.enter(lead(4));
        assert!(table.is_older(lapsed) && !table.is_older(Fence { term: 4, counter: 1 }));
        assert_eq!(table.inherit(ENTRY, lapsed, at(2), at(32)), Ok(()));
        assert_eq!(table.inherit(ENTRY, current, at(3), at(32)), Ok(()), "it was given when the other had lapsed");
        assert_eq!(table.inherit(ENTRY, lapsed, at(3), at(32)), Err(Lost));
        assert_eq!(table.prolong(ENTRY, lapsed, at(3), at(40)), Err(Lost));
        assert_eq!(table.prolong(ENTRY, current, at(3), at(40)), Ok(()));
        assert!(!table.is_free(ENTRY, at(39)));
        let (request, other) = (Bytes::from_static(b"one"), Bytes::from_static(b"two"));
        assert_eq!(table.begin_settling(ENTRY, lapsed, &request, at(4)), Err(Lost));
        assert_eq!(table.begin_settling(ENTRY, current, &request, at(4)), Ok(()));
        table.settled(ENTRY, current, request.clone(), at(4));
        assert!(table.is_free(ENTRY, at(4)));
        assert_eq!(table.begin_settling(ENTRY, current, &request, at(5)), Ok(()), "asked again");
        assert_eq!(table.begin_settling(ENTRY, current, &other, at(5)), Err(Lost));
        assert_eq!(table.inherit(ENTRY, current, at(5), at(32)), Err(Lost));
        // What this leader has given is nobody's else.
        let own = table.take(ENTRY, at(60));
        assert_eq!(table.inherit(ENTRY, lapsed, at(6), at(32)), Err(Lost));
        assert_eq!(table.inherit(ENTRY, own, at(6), at(32)), Err(Lost), "there is nothing to take over");
        assert_eq!(table.prolong(ENTRY, own, at(6), at(70)), Ok(()));
    }

    proptest! {
        /// However leases are taken and time passes, at most one fence of an entry may settle at any moment.
        #[test]
        fn one_holder_at_a_time(steps in proptest::collection::vec((0u64..3, 0u64..5, 1u64..8), 1..60)) {
            let mut table = table();
            let mut now = 0;
            let mut fences: Vec<(EntryId, Fence)> = Vec::new();
            for (entry, wait, lease) in steps {
                now += wait;
                let entry = EntryId(entry);
                if table.is_free(entry, at(now)) {
                    fences.push((entry, table.take(entry, at(now + lease))));
                }
                let holders = fences
                    .iter()
                    .filter(|(held, fence)| {
                        let held_entry = table.held.get(held);
                        *held == entry && held_entry.is_some_and(|h| h.name == name(*fence) && h.until > at(now))
                    })
                    .count();
                prop_assert!(holders <= 1);
            }
        }

        /// However entries come, are put off and go, none is ever due before where the next look begins.
        #[test]
        fn no_entry_is_looked_past(steps in proptest::collection::vec((0u8..4, 0i64..9, 0usize..8), 1..80)) {
            let mut table = table();
            let mut now_ms = 100;
            let mut due: Vec<i64> = Vec::new();
            for (step, ms, which) in steps {
                now_ms += ms / 3;
                match step {
                    0 => due.push(now_ms),
                    // As `Settle` does: never before the shard's time.
                    1 if !due.is_empty() => {
                        let at = which % due.len();
                        due[at] = (now_ms + 3 - ms).max(now_ms);
                    }
                    2 if !due.is_empty() => drop(due.swap_remove(which % due.len())),
                    _ => {
                        let first = due.iter().copied().filter(|ms| *ms >= table.due_from_ms()).min();
                        table.looked(first, now_ms);
                    }
                }
                prop_assert!(due.iter().all(|ms| *ms >= table.due_from_ms()));
            }
        }
    }
}
