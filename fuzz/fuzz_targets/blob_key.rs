//! Object keys to paths and back: no key leaves its bucket's directory, and no two share a file.
#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;
use postrider_blob::server::key::{decode_name, key_of_path, path_of_key};

fuzz_target!(|data: &[u8]| {
    drop(decode_name(data));
    let Ok(key) = std::str::from_utf8(data) else { return };
    let Ok(path) = path_of_key(key) else { return };
    assert!(path.components().all(|component| matches!(component, Component::Normal(_))), "{key:?} gives {path:?}");
    assert_eq!(key_of_path(&path).as_deref(), Ok(key), "{path:?}");
});
