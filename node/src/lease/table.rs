//! Who holds which entry of one shard.
//!
//! Invariant: an entry is held by at most one lease at a time, and a lease is named by the leader's term and a number that
//! is never used again: what comes back under an older name is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::id::EntryId;
use postrider_api::pb::Fence;

/// Leases that were settled are remembered this long, so that whoever asks again under the same request id gets through.
const SETTLED: Duration = Duration::from_secs(30);
/// A lease does not lapse while its result is on its way into the log, which takes at most this long.
const SETTLING: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Held {
    counter: u64,
    until: Duration,
    /// The request under which it was settled.
    settled: Option<Bytes>,
}

/// The leases of one shard in one term.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable {
    term: u64,
    counter: u64,
    held: BTreeMap<EntryId, Held>,
}

/// The lease is not the current one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl LeaseTable {
    /// Begins a term: a new leader leases afresh.
    pub(crate) fn enter(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.held.clear();
        }
    }

    /// Drops what has lapsed.
    pub(crate) fn sweep(&mut self, now: Duration) {
        self.held.retain(|_, held| held.until > now);
    }

    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn is_free(&self, entry: EntryId, now: Duration) -> bool {
        self.held.get(&entry).is_none_or(|held| held.settled.is_some() || held.until <= now)
    }

    /// Leases a free entry.
    pub(crate) fn take(&mut self, entry: EntryId, until: Duration) -> Fence {
        self.counter += 1;
        self.held.insert(entry, Held { counter: self.counter, until, settled: None });
        Fence { term: self.term, counter: self.counter }
    }

    /// When the next lease lapses.
    pub(crate) fn next_lapse(&self) -> Option<Duration> {
        self.held.values().filter(|held| held.settled.is_none()).map(|held| held.until).min()
    }

    /// Whether whoever holds `fence` may settle the entry under `request` now.
    pub(crate) fn begin_settling(
        &mut self,
        entry: EntryId,
        fence: Fence,
        request: &Bytes,
        now: Duration,
    ) -> Result<(), Lost> {
        if fence.term != self.term {
            return Err(Lost);
        }
        let held = self.held.get_mut(&entry).filter(|held| held.counter == fence.counter).ok_or(Lost)?;
        match &held.settled {
            Some(settled) if settled == request && !request.is_empty() => Ok(()),
            Some(_) => Err(Lost),
            None if held.until <= now => Err(Lost),
            None => {
                held.until = held.until.max(now + SETTLING);
                Ok(())
            }
        }
    }

    /// The result is in the log.
    pub(crate) fn settled(&mut self, entry: EntryId, fence: Fence, request: Bytes, now: Duration) {
        if let Some(held) = self.held.get_mut(&entry).filter(|held| held.counter == fence.counter) {
            held.settled = Some(request);
            held.until = now + SETTLED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENTRY: EntryId = EntryId(7);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn table() -> LeaseTable {
        let mut table = LeaseTable::default();
        table.enter(3);
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
        table.sweep(at(100));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_new_term_leases_afresh() {
        let mut table = table();
        let fence = table.take(ENTRY, at(10));
        table.enter(4);
        assert!(table.is_free(ENTRY, at(1)));
        assert_eq!(table.begin_settling(ENTRY, fence, &Bytes::new(), at(1)), Err(Lost));
        let again = table.take(ENTRY, at(10));
        assert_eq!(again.term, 4);
        assert!(again.counter > fence.counter, "a number is never used again");
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
                        *held == entry && held_entry.is_some_and(|h| h.counter == fence.counter && h.until > at(now))
                    })
                    .count();
                prop_assert!(holders <= 1);
            }
        }
    }
}
