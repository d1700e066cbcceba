//! Where a call or a command stands in a trace: as text in metadata, as bytes in messages.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_api::trace::Context;

fuzz_target!(|data: &[u8]| {
    if let Some(context) = Context::from_bytes(data) {
        assert_eq!(Context::from_bytes(&context.to_bytes()), Some(context));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Some(context) = Context::parse(text)
    {
        // What newer versions say besides is not gone on with.
        assert_eq!(Context::parse(&context.traceparent()), Some(context));
        assert_eq!(Context::from_bytes(&context.to_bytes()), Some(context));
    }
});
