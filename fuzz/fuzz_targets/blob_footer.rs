//! The footer of an object's file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_blob::server::fuzz_footer;

fuzz_target!(|data: &[u8]| fuzz_footer(data));
