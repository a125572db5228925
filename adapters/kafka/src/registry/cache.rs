//! Values that are expensive to get, each of which is got once at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

/// The most entries. The one that was used longest ago makes room.
const ENTRIES_MAX: usize = 1_000;

/// The values that were used last.
pub(super) struct Cache<K, V>(Mutex<Entries<K, V>>);

struct Entries<K, V> {
    by_key: HashMap<K, (Entry<V>, u64)>,
    uses: u64,
}

/// Its lock is held while the value is being got, so that others wait for it instead of getting it, too.
pub(super) type Entry<V> = Arc<AsyncMutex<Option<V>>>;

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: HashMap::new(), uses: 0 }))
    }
}

impl<K: Clone + Eq + Hash, V> Cache<K, V> {
    /// The entry of a key; a new one is empty.
    pub(super) fn entry(&self, key: K) -> Entry<V> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let used = entries.uses;
        if let Some((entry, last)) = entries.by_key.get_mut(&key) {
            *last = used;
            return Arc::clone(entry);
        }
        if entries.by_key.len() >= ENTRIES_MAX {
            let oldest = entries.by_key.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| entries.by_key.remove(&oldest));
        }
        let entry = Entry::default();
        entries.by_key.insert(key, (Arc::clone(&entry), used));
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_was_used_longest_ago_makes_room() {
        let cache: Cache<usize, usize> = Cache::default();
        for key in 0..ENTRIES_MAX {
            *cache.entry(key).try_lock().expect("free") = Some(key);
        }
        assert_eq!(*cache.entry(0).try_lock().expect("free"), Some(0));
        *cache.entry(ENTRIES_MAX).try_lock().expect("free") = Some(0);
        assert_eq!(*cache.entry(0).try_lock().expect("free"), Some(0), "it was used again");
        assert_eq!(*cache.entry(1).try_lock().expect("free"), None);
        assert_eq!(cache.0.lock().expect("free").by_key.len(), ENTRIES_MAX);
    }
}
