//! Addresses that bounces come back to: whatever they are, nothing but what was made here is believed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_outgoing::return_path::{ReturnPaths, Srs};
use postrider_outgoing::unsubscribe::UnsubscribeTokens;

const NOW_MS: i64 = 1_790_000_000_000;

fuzz_target!(|data: &[u8]| {
    let Ok(address) = std::str::from_utf8(data) else { return };
    let paths = ReturnPaths::new(&[7; 32]);
    assert!(!matches!(paths.read(address, NOW_MS), Some(Ok(_))), "{address:?} was not made here");
    assert!(UnsubscribeTokens::new(&[7; 32]).read(address).is_none(), "{address:?} was not made here");
    let srs = Srs::new(&[7; 32], "near.example");
    assert!(!matches!(srs.reverse(address, NOW_MS), Some(Ok(_))), "{address:?} was not written here");
    if let Ok(forwarded) = srs.forward(address, NOW_MS)
        && let Some(back) = srs.reverse(&forwarded, NOW_MS)
        && forwarded != address
    {
        assert!(back.is_ok(), "{address:?} does not come back from {forwarded:?}: {back:?}");
    }
});
