//! How many of something each key may have at once, counted in memory that grows only with what is open.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts what is open of each key.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    max: u32,
    open: Arc<Mutex<HashMap<K, u32>>>,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { max: self.max, open: Arc::clone(&self.open) }
    }
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// `max` of each key.
    pub(crate) fn new(max: u32) -> Self {
        Self { max, open: Arc::default() }
    }

    /// One more; `None` when the key has as many as it may.
    pub(crate) fn take(&self, key: K) -> Option<Held<K>> {
        let mut open = self.open.lock();
        let count = open.entry(key).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Held { key, open: Arc::clone(&self.open) })
    }
}

/// One of a key's; given back when it is dropped.
pub(crate) struct Held<K: Copy + Eq + Hash> {
    key: K,
    open: Arc<Mutex<HashMap<K, u32>>>,
}

impl<K: Copy + Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.open.lock().entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_and_given_back() {
        let shares = Shares::new(2);
        let (first, second) = (shares.take("a").unwrap(), shares.take("a").unwrap());
        assert!(shares.take("a").is_none());
        let other = shares.take("b").unwrap();
        drop(first);
        assert!(shares.take("a").is_some());
        drop((second, other));
        assert!(shares.open.lock().is_empty(), "nothing is kept of what is gone");
    }
}
