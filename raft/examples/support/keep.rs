//! A state that keeps everything.

use std::sync::Arc;

use bytes::Bytes;
use postrider_raft::{Committed, GroupId, Machine, MachineError, MachineFactory, state_prefix};
use rocksdb::{DB, WriteBatch};

/// Keeps every command under its index: what a mailbox does with a body.
pub(crate) struct Keep {
    group: GroupId,
}

impl Machine for Keep {
    fn apply(&self, _: &DB, batch: &mut WriteBatch, commands: &[Committed]) -> Result<Vec<Bytes>, MachineError> {
        for command in commands {
            let mut key = state_prefix(self.group).to_vec();
            key.extend_from_slice(&command.index.to_be_bytes());
            batch.put(key, &command.payload);
        }
        Ok(vec![Bytes::new(); commands.len()])
    }

    fn applied(&self, _: u64) {}

    fn restored(&self, _: u64) {}
}

/// [`Keep`] for every group.
pub(crate) struct KeepAll;

impl MachineFactory for KeepAll {
    fn machine(&self, group: GroupId) -> Arc<dyn Machine> {
        Arc::new(Keep { group })
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u64, bytes: usize) -> Bytes {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        noise.extend_from_slice(&word.to_le_bytes());
    }
    noise.truncate(bytes);
    noise.into()
}
