//! Request ids that are derived, so that whoever asks again asks under the same one (P-6), and other names that are.

use bytes::Bytes;

use crate::id::{EntryId, RequestId, ShardId, UserId};

fn derive(context: &str, parts: &[&[u8]]) -> RequestId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    RequestId(id)
}

/// Of a client's Idempotency-Key: bound to the user, so that nobody meets another's.
pub fn of_idempotency_key(user: UserId, key: &str) -> RequestId {
    derive("postrider 2026 idempotency key", &[&user.0, key.as_bytes()])
}

/// Of the transfer of a queue entry to one user in another shard.
pub fn of_transfer(source: ShardId, entry: EntryId, user: UserId) -> RequestId {
    derive("postrider 2026 transfer", &[&source.0.to_be_bytes(), &entry.0.to_be_bytes(), &user.0])
}

/// Of handing over what waited in a queue entry to a user of another zone.
pub fn of_crossing(source: ShardId, entry: EntryId, user: UserId) -> RequestId {
    derive("postrider 2026 crossing", &[&source.0.to_be_bytes(), &entry.0.to_be_bytes(), &user.0])
}

/// Of one step of something that was asked for under `whole`.
pub fn of_step(whole: RequestId, step: &str) -> RequestId {
    derive("postrider 2026 step", &[&whole.0, step.as_bytes()])
}

/// The id under which a session's owner sees it: from the hash of its token, and of no use to whoever wants to be taken for it.
pub fn session_id(token_hash: &[u8; 32]) -> [u8; 16] {
    derive("postrider 2026 session id", &[token_hash]).0
}

/// Which password hash something was verified against, without repeating the hash.
pub fn password_digest(password_hash: &str) -> Bytes {
    Bytes::copy_from_slice(&blake3::derive_key("postrider 2026 password hash", password_hash.as_bytes()))
}
