//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections, in all and by address.
pub struct Gate {
    all: AtomicUsize,
    all_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    by_address_max: usize,
}

impl Gate {
    /// So many in all, and so many from one address.
    #[must_use]
    pub fn new(all_max: usize, by_address_max: usize) -> Self {
        Self { all: AtomicUsize::new(0), all_max, by_address: Mutex::new(HashMap::new()), by_address_max }
    }

    /// A place for one more connection, given back when it is dropped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.get(&address).copied().unwrap_or(0);
        if count >= self.by_address_max || self.all.load(Ordering::Relaxed) >= self.all_max {
            return None;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        by_address.insert(address, count + 1);
        Some(Place { gate: Arc::clone(self), address })
    }
}

/// A connection's place in the count.
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.all.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.gate.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}
