//! A moment for each of the latest names, in fixed memory, so that no flood of names makes it grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots of one table: 512 KiB.
const SLOTS: usize = 65_536;
/// 34 years of milliseconds.
const MOMENT_BITS: u32 = 40;
const MOMENT_MAX: u64 = (1 << MOMENT_BITS) - 1;

/// A moment for each of the latest names, which come as hashes under a secret: nobody can choose names that meet another's. Where
/// two names meet in a slot, the later one has it: a flood makes the table forget, it never makes one name pay for another.
pub(crate) struct Moments {
    /// Above [`MOMENT_BITS`] what tells a slot's names apart, below it milliseconds of the monotonic clock.
    slots: Box<[AtomicU64]>,
}

impl Moments {
    pub(crate) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    fn slot(&self, hash: &[u8; 32]) -> (&AtomicU64, u64) {
        let [a, b, c, d, e, ..] = *hash;
        (&self.slots[usize::from(u16::from_be_bytes([a, b]))], u64::from(u32::from_be_bytes([0, c, d, e])))
    }

    /// The name's moment; 0 when it has none any more.
    pub(crate) fn get(&self, hash: &[u8; 32]) -> u64 {
        let (slot, tag) = self.slot(hash);
        moment(slot.load(Ordering::Relaxed), tag)
    }

    /// Writes what `next` makes of the name's moment, unless that is nothing; the moment before, and whether it did.
    pub(crate) fn update(&self, hash: &[u8; 32], next: impl Fn(u64) -> Option<u64>) -> (u64, bool) {
        let (slot, tag) = self.slot(hash);
        let mut held = slot.load(Ordering::Relaxed);
        loop {
            let before = moment(held, tag);
            let Some(next) = next(before) else { return (before, false) };
            let written = tag << MOMENT_BITS | next.min(MOMENT_MAX);
            match slot.compare_exchange_weak(held, written, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return (before, true),
                Err(current) => held = current,
            }
        }
    }
}

fn moment(held: u64, tag: u64) -> u64 {
    if held >> MOMENT_BITS == tag { held & MOMENT_MAX } else { 0 }
}
