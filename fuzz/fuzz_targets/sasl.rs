//! What a client sends to log in: base64 lines, PLAIN and SCRAM messages, and the AUTH exchange of a whole session.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_frontend::sasl::fuzz_sasl;
use postrider_frontend::smtp::fuzz::drive_submission;

fuzz_target!(|data: &[u8]| {
    fuzz_sasl(data);
    let Some((step, bytes)) = data.split_first() else { return };
    let split = drive_submission(bytes.chunks(usize::from(*step).max(1)));
    let whole = drive_submission([bytes]);
    assert_eq!(split.accepted, whole.accepted);
    assert_eq!(split.said, whole.said);
});
