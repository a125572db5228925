//! How many connections there may be.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::descriptors::{self, Descriptor};

/// From one logged refusal to the next.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Counts connections, in all and by address.
pub struct Gate {
    all: AtomicUsize,
    all_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    by_address_max: usize,
    /// When a refusal was logged last.
    refusals: Mutex<Option<Instant>>,
}

impl Gate {
    /// So many in all, and so many from one address.
    #[must_use]
    pub fn new(all_max: usize, by_address_max: usize) -> Self {
        let refusals = Mutex::new(None);
        Self { all: AtomicUsize::new(0), all_max, by_address: Mutex::new(HashMap::new()), by_address_max, refusals }
    }

    /// With the limits that a listener's settings give, or with those that the process has room for: all of its places for callers, and half
    /// of them for one address.
    #[must_use]
    pub fn of_settings(all_max: Option<usize>, by_address_max: Option<usize>) -> Self {
        let all_max = all_max.unwrap_or_else(descriptors::callers_max);
        Self::new(all_max, by_address_max.unwrap_or_else(|| all_max.div_ceil(2)))
    }

    /// A place for one more connection, released on drop. If the process has none left, a few callers wait briefly until idle connections
    /// are closed. Cancel safe.
    pub async fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let descriptor = match Descriptor::take() {
            Some(descriptor) => Some(descriptor),
            None => Descriptor::wait().await,
        };
        let place = descriptor.and_then(|descriptor| self.place(address, descriptor));
        if place.is_none() {
            self.refused();
        }
        place
    }

    /// Counts a refusal, and logs one now and then.
    fn refused(&self) {
        let total = descriptors::count_refused();
        let mut logged = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            *logged = Some(now);
            let (open, max) = (descriptors::callers(), descriptors::callers_max());
            tracing::warn!(total, open, max, listener_max = self.all_max, "connection refused: no place for it");
        }
    }

    fn place(self: &Arc<Self>, address: IpAddr, descriptor: Descriptor) -> Option<Place> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.get(&address).copied().unwrap_or(0);
        if count >= self.by_address_max || self.all.load(Ordering::Relaxed) >= self.all_max {
            return None;
        }
        self.all.fetch_add(1, Ordering::Relaxed);
        by_address.insert(address, count + 1);
        Some(Place { gate: Arc::clone(self), address, _descriptor: descriptor })
    }
}

/// A connection's place in the count.
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
    _descriptor: Descriptor,
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
