//! A whole SMTP session on arbitrary bytes, cut into reads at arbitrary places.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_frontend::smtp::fuzz::drive;

fuzz_target!(|data: &[u8]| {
    // The first byte is the length of each read, so that a boundary can fall anywhere, in CRLF.CRLF above all.
    let Some((step, bytes)) = data.split_first() else { return };
    let split = drive(bytes.chunks(usize::from(*step).max(1)));
    let whole = drive([bytes]);
    // How the network cut the bytes must not change what was said or accepted.
    assert_eq!(split.accepted, whole.accepted);
    assert_eq!(split.said, whole.said);
});
