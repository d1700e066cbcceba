//! Values as Terraform sends them: whatever decodes is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_terraform::protocol::fuzz::drive_values;

fuzz_target!(|data: &[u8]| drive_values(data));
