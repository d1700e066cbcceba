//! Votes of many groups in one frame, and their answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_raft::wire::fuzz_ballots;

fuzz_target!(|data: &[u8]| fuzz_ballots(data));
