//! Keys and rows of the log, and blocks of a snapshot on its way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_raft::decode_block;
use postrider_raft::log::key::LogKey;
use postrider_raft::log::row::{decode_entry_row, decode_log_id_row, decode_vote_row};

fuzz_target!(|data: &[u8]| {
    if let Ok(key) = LogKey::decode(data) {
        assert_eq!(key.encode(), data, "{key:?} has two encodings");
    }
    // The verdicts do not matter here: that there is one, without a panic, does.
    drop(decode_entry_row(data));
    drop(decode_log_id_row(data));
    drop(decode_vote_row(data));
    drop(decode_block(data));
});
