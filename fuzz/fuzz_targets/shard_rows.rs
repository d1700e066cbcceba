//! Every key and every record decoder of the shard's tables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_shard::row::{fuzz_key, fuzz_record};

fuzz_target!(|data: &[u8]| {
    fuzz_key(data);
    fuzz_record(data);
});
