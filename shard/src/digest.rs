//! P-12: one number for everything that a shard holds.

use crate::Broken;
use crate::key::KeyRange;
use crate::store::{Direction, Reader};

/// blake3-256 over every row, in key order. Two replicas that have applied the same log prefix have the same digest,
/// wherever their rows lie on disk. Rows are read one by one: memory does not grow with the shard.
///
/// # Errors
/// When the store cannot be read.
pub fn digest(reader: &impl Reader) -> Result<[u8; 32], Broken> {
    let mut hasher = blake3::Hasher::new_derive_key("postrider 2026 shard digest");
    for row in reader.scan(&KeyRange::all(), Direction::Forward) {
        let (key, value) = row?;
        for part in [key.as_ref(), value.as_ref()] {
            // With the length before it: no two sets of rows give the same bytes.
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    Ok(*hasher.finalize().as_bytes())
}
