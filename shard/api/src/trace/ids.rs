//! Numbers for traces and spans. They have to differ, and need not be secret: one state a thread, seeded by the system, costs no system
//! call each.

use std::cell::Cell;

use super::context::TraceId;
use crate::env::{SystemEntropy, random};

thread_local! {
    static STATE: Cell<u64> = Cell::new(u64::from_ne_bytes(random(&SystemEntropy)));
}

/// SplitMix64 (Steele, Lea and Flood, 2014): each state once in 2^64.
fn next() -> u64 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

pub(super) fn span() -> u64 {
    next().max(1)
}

/// The trace's lower half is what is looked at when it is sampled.
pub(super) fn trace() -> TraceId {
    let mut id = [0; 16];
    let (high, low) = id.split_at_mut(8);
    high.copy_from_slice(&span().to_be_bytes());
    low.copy_from_slice(&next().to_be_bytes());
    TraceId(id)
}

/// What a rate of sampling is compared with: the same in every process.
pub(super) fn lot(trace: &TraceId) -> u64 {
    trace.0.iter().skip(8).fold(0, |lot, byte| (lot << 8) | u64::from(*byte))
}
