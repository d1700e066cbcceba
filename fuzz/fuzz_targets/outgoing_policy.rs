//! What domains publish of themselves: MTA-STS records and policies, names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_outgoing::dns::Domain;
use postrider_outgoing::mta_sts::{Policy, record_id};
use postrider_outgoing::route::Route;
use postrider_outgoing::smtp::{check_path, shape, stuffed};

fuzz_target!(|data: &[u8]| {
    if shape(data).is_ok() {
        let sent = stuffed(data).collect::<Vec<_>>().concat();
        assert!(!sent.starts_with(b".\r\n") && !sent.windows(5).any(|window| window == b"\r\n.\r\n"));
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(domain) = text.parse::<Domain>() {
        assert_eq!(domain.as_str().parse(), Ok(domain.clone()), "a domain is its own form");
        if let Ok(policy) = Policy::parse(text) {
            policy.allows(&domain);
        }
    }
    Policy::parse(text).ok();
    record_id(&[text.to_owned()]);
    text.parse::<Route>().ok();
    if check_path(text).is_ok() {
        assert!(!text.contains(['\r', '\n', '>']) || text.starts_with('"'));
        assert!(!text.contains(char::is_control));
    }
});
