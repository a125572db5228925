//! What several listeners and services share while one of them uses it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crossdock_ports::AdapterError;

/// Values by key. A value is dropped with its last user.
#[derive(Debug)]
pub(crate) struct SharedByKey<K, V>(Mutex<HashMap<K, Weak<V>>>);

impl<K, V> Default for SharedByKey<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V> SharedByKey<K, V> {
    /// The value of a key; opened if nobody uses it.
    ///
    /// # Errors
    /// Those of `open`.
    pub(crate) fn get_or_open(
        &self,
        key: K,
        open: impl FnOnce() -> Result<Arc<V>, AdapterError>,
    ) -> Result<Arc<V>, AdapterError> {
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.retain(|_, value| value.strong_count() > 0);
        if let Some(value) = values.get(&key).and_then(Weak::upgrade) {
            return Ok(value);
        }
        let value = open()?;
        values.insert(key, Arc::downgrade(&value));
        Ok(value)
    }

    /// The value of a key; `None` if nobody uses it.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key)?.upgrade()
    }
}
