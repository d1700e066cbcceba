//! What stands in front of a connection or a request: PROXY headers, and what proxies write in fields.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_frontend::proxy::header::{FIXED_BYTES, REST_BYTES_MAX, parse, read};
use postrider_frontend::rest::fuzz_forwarded;

fuzz_target!(|data: &[u8]| {
    let parsed = parse(data);
    let mut stream = data;
    let read = futures::executor::block_on(read(&mut stream));
    match (parsed, read) {
        (Ok((header, length)), Ok(read)) => {
            assert_eq!(header, read);
            assert!(length <= FIXED_BYTES + REST_BYTES_MAX);
            assert_eq!(stream.len(), data.len() - length, "exactly the header is read");
        }
        (Err(_), Err(_)) => {}
        (parsed, read) => panic!("{parsed:?} but {read:?}"),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        fuzz_forwarded(text);
    }
});
