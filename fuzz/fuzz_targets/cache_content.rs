//! What a frontend takes from a cache that others can write: a seal that it did not make, and contents of another build.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_frontend::cache::fuzz_content;

fuzz_target!(|bytes: &[u8]| fuzz_content(bytes));
