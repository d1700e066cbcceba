//! Messages between hosts, and the row that says how far a group was applied.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_raft::wire::fuzz_wire;

fuzz_target!(|data: &[u8]| fuzz_wire(data));
