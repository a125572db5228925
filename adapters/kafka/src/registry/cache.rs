//! Values that are expensive to get, each of which is got once at a time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

/// The most entries. The one that was used longest ago makes room.
const ENTRIES_MAX: usize = 1_000;
/// The most bytes that all values were made of. What a value takes is some ten times as much.
const LEN_MAX: usize = 16 << 20;

/// The values that were used last.
pub(super) struct Cache<K, V>(Mutex<Entries<K, V>>);

struct Entries<K, V> {
    by_key: HashMap<K, Kept<V>>,
    uses: u64,
    /// The sum of [`Kept::len`].
    len: usize,
}

struct Kept<V> {
    entry: Entry<V>,
    /// When it was used last, as a number of uses.
    used: u64,
    len: usize,
}

/// Its lock is held while the value is being got, so that others wait for it instead of getting it, too.
pub(super) type Entry<V> = Arc<AsyncMutex<Option<V>>>;

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries { by_key: HashMap::new(), uses: 0, len: 0 }))
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// The value of a key, if it is there; the entry is not there, or locked, while it is being got.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = entries.uses + 1;
        let kept = entries.by_key.get_mut(key)?;
        let value = kept.entry.try_lock().ok()?.clone();
        (kept.used, entries.uses) = (used, used);
        value
    }

    /// Removes the entry of a key.
    pub(super) fn remove(&self, key: &K) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = entries.by_key.remove(key);
        entries.len -= removed.map_or(0, |kept| kept.len);
    }

    /// The entry of a key; a new one is empty.
    pub(super) fn entry(&self, key: &K) -> Entry<V> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let used = entries.uses;
        if let Some(kept) = entries.by_key.get_mut(key) {
            kept.used = used;
            return Arc::clone(&kept.entry);
        }
        if entries.by_key.len() >= ENTRIES_MAX {
            entries.remove_oldest();
        }
        let entry = Entry::default();
        entries.by_key.insert(key.clone(), Kept { entry: Arc::clone(&entry), used, len: 0 });
        entry
    }

    /// A value was made of this many bytes; others make room for it.
    pub(super) fn charge(&self, key: &K, len: usize) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = entries.by_key.get_mut(key) else { return };
        let before = std::mem::replace(&mut kept.len, len);
        entries.len = entries.len - before + len;
        while entries.len > LEN_MAX && entries.by_key.len() > 1 {
            entries.remove_oldest();
        }
    }
}

impl<K: Clone + Eq + Hash, V> Entries<K, V> {
    fn remove_oldest(&mut self) {
        let oldest = self.by_key.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
        let removed = oldest.and_then(|oldest| self.by_key.remove(&oldest));
        self.len -= removed.map_or(0, |kept| kept.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_was_used_longest_ago_makes_room() {
        let cache: Cache<usize, usize> = Cache::default();
        for key in 0..ENTRIES_MAX {
            *cache.entry(&key).try_lock().expect("free") = Some(key);
        }
        assert_eq!(*cache.entry(&0).try_lock().expect("free"), Some(0));
        *cache.entry(&ENTRIES_MAX).try_lock().expect("free") = Some(0);
        assert_eq!(*cache.entry(&0).try_lock().expect("free"), Some(0), "it was used again");
        assert_eq!(*cache.entry(&1).try_lock().expect("free"), None);
        assert_eq!(cache.0.lock().expect("free").by_key.len(), ENTRIES_MAX);
    }

    #[test]
    fn values_make_room_for_a_large_one() {
        let cache: Cache<usize, ()> = Cache::default();
        for key in 0..4 {
            cache.entry(&key);
            cache.charge(&key, LEN_MAX / 4);
        }
        let kept = || {
            let entries = cache.0.lock().expect("free");
            let mut keys: Vec<usize> = entries.by_key.keys().copied().collect();
            keys.sort_unstable();
            (keys, entries.len)
        };
        assert_eq!(kept(), (vec![0, 1, 2, 3], LEN_MAX));
        cache.entry(&0);
        cache.charge(&0, LEN_MAX / 2);
        assert_eq!(kept(), (vec![0, 2, 3], LEN_MAX));
        cache.charge(&3, 2 * LEN_MAX);
        assert_eq!(kept().0, [0], "it is used longest ago itself");
        cache.charge(&0, 2 * LEN_MAX);
        assert_eq!(kept(), (vec![0], 2 * LEN_MAX), "one value always fits");
    }
}
