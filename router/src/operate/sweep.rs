//! How far a sweep of the object stores is, and whether it found everything.

use postrider_api::pb::{SweepPhase, SweepTally};

/// Hashes are spread evenly: their beginning tells how far it is, percent.
pub fn percent(cursor: &[u8]) -> u64 {
    let start = cursor.first_chunk::<2>().map_or(0, |start| u64::from(u16::from_be_bytes(*start)));
    start * 100 / 65_536
}

/// What a sweep is doing.
pub fn phase(phase: SweepPhase) -> &'static str {
    match phase {
        SweepPhase::Unspecified | SweepPhase::Ended => "ended",
        SweepPhase::Comparing => "comparing",
        SweepPhase::Condemning => "condemning",
        SweepPhase::Deleting => "deleting",
        SweepPhase::Pardoning => "pardoning",
    }
}

/// Whether everything that mailboxes refer to is where it should be.
pub fn is_whole(tally: &SweepTally) -> bool {
    tally.lost == 0 && tally.restored == tally.missing + tally.damaged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is() {
        assert_eq!(percent(&[]), 0);
        assert_eq!(percent(&[0x80; 32]), 50);
        assert_eq!(percent(&[0xff; 32]), 99);
    }

    #[test]
    fn what_was_lost_or_not_restored_is_not_whole() {
        assert!(is_whole(&SweepTally { missing: 2, damaged: 1, restored: 3, ..SweepTally::default() }));
        assert!(!is_whole(&SweepTally { missing: 2, restored: 1, ..SweepTally::default() }));
        assert!(!is_whole(&SweepTally { lost: 1, ..SweepTally::default() }));
    }
}
