//! Records, items and rows of the log, and blocks of a snapshot on its way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_raft::decode_block;
use postrider_raft::log::row::{decode_entry_row, decode_log_id_row, decode_vote_row};
use postrider_raft::log::segment::{read_payload, read_record};

fuzz_target!(|data: &[u8]| {
    // The verdicts do not matter here: that there is one, without a panic, does.
    drop(read_payload(data));
    read_record(data);
    drop(decode_entry_row(data));
    drop(decode_log_id_row(data));
    drop(decode_vote_row(data));
    drop(decode_block(data));
});
