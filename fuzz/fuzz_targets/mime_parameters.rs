//! Values with parameters in header fields: any text is read, and what is read says no more than the field.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_mime::parameters;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = parameters(text);
    assert!(read.value.len() <= text.len());
    for name in ["filename", "name", "charset", "boundary", "start", "type"] {
        let value = read.get(name).unwrap_or_default();
        // A byte that is no text in its charset becomes a character of three bytes.
        assert!(value.len() <= 3 * text.len(), "{name} grew to {} bytes", value.len());
        read.name(name);
    }
});
