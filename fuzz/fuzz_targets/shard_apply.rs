//! Any sequence of commands that decodes: apply refuses or carries out, never breaks an invariant, and the counters add up.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, command::Op};
use postrider_shard::format::VERSION_MAX;
use postrider_shard::store::{MemoryStore, Txn};
use postrider_shard::{apply, verify};
use prost::Message;

fuzz_target!(|data: &[u8]| {
    let Some((kind, mut rest)) = data.split_first() else { return };
    let shard = [ShardId::PLACEMENT, ShardId::DIRECTORY_FIRST, ShardId::MAILBOX_FIRST][usize::from(*kind) % 3];
    let mut store = MemoryStore::new();
    let mut index = 0;
    while let Ok(command) = pb::Command::decode_length_delimited(&mut rest) {
        index += 1;
        // Whoever proposes keeps out of the log what stops a replica (P-12): a command without an op, unless it says that it
        // needs more than the shard has, and the rise to a version that this build does not know.
        let is_newer = |op: &Op| matches!(op, Op::RaiseVersion(raise) if raise.version > VERSION_MAX);
        if command.requires <= VERSION_MAX && command.op.as_ref().is_none_or(is_newer) {
            continue;
        }
        let mut txn = Txn::new(&store);
        apply(shard, &mut txn, index, &command).expect("a command from outside breaks no invariant");
        let writes = txn.into_writes();
        store.write(writes);
        if rest.is_empty() {
            break;
        }
    }
    let verified = verify(&store).expect("the rows that apply wrote can be read");
    assert!(verified.differences.is_empty(), "{:?}", verified.differences);
});
