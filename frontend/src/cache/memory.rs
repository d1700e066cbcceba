//! Values in this process, bounded by their bytes: what a frontend has where its region has no Redis.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use moka::Expiry;
use moka::sync::Cache;

use crate::cache::Values;
use crate::cache::limit::ENTRY_BYTES;
use crate::cache::name::Key;

/// Values of this process; those that are asked for least go first.
pub(crate) struct Memory(Cache<Key, Entry>);

#[derive(Clone)]
struct Entry {
    value: Bytes,
    lifetime: Duration,
}

struct Lifetimes;

impl Expiry<Key, Entry> for Lifetimes {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.lifetime)
    }

    fn expire_after_update(&self, _: &Key, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(entry.lifetime)
    }
}

impl Memory {
    /// At most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let weight = |_: &Key, entry: &Entry| u32::try_from(entry.value.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
        Self(Cache::builder().max_capacity(bytes_max).weigher(weight).expire_after(Lifetimes).build())
    }
}

#[async_trait]
impl Values for Memory {
    async fn get(&self, key: &Key) -> Option<Bytes> {
        self.0.get(key).map(|entry| entry.value)
    }

    async fn put(&self, key: &Key, value: Bytes, lifetime: Duration) {
        self.0.insert(*key, Entry { value, lifetime });
    }

    async fn remove(&self, key: &Key) {
        self.0.invalidate(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_bounded_and_values_expire() {
        let memory = Memory::new(100 * 1024);
        let key = |n: u8| Key([n; 16]);
        for n in 0..200 {
            memory.put(&key(n), Bytes::from(vec![n; 10 * 1024]), Duration::from_secs(60)).await;
        }
        memory.0.run_pending_tasks();
        assert!(memory.0.weighted_size() <= 100 * 1024, "{}", memory.0.weighted_size());
        memory.put(&key(201), Bytes::from_static(b"x"), Duration::from_secs(60)).await;
        assert_eq!(memory.get(&key(201)).await.as_deref(), Some(&b"x"[..]));
        memory.remove(&key(201)).await;
        assert_eq!(memory.get(&key(201)).await, None);
        memory.put(&key(202), Bytes::from_static(b"x"), Duration::ZERO).await;
        assert_eq!(memory.get(&key(202)).await, None);
    }
}
