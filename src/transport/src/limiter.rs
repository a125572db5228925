//! Limits on inbound connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::descriptors::{self, Descriptor};

/// Minimum time between two logged refusals.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Limits the connections of a listener, in total and per client address.
pub struct ConnectionLimiter {
    open: AtomicUsize,
    open_max: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    by_address_max: usize,
    /// When a refusal was last logged.
    last_logged: Mutex<Option<Instant>>,
}

impl ConnectionLimiter {
    /// Allows `open_max` connections in total and `by_address_max` per client address.
    #[must_use]
    pub fn new(open_max: usize, by_address_max: usize) -> Self {
        let last_logged = Mutex::new(None);
        Self {
            open: AtomicUsize::new(0),
            open_max,
            by_address: Mutex::new(HashMap::new()),
            by_address_max,
            last_logged,
        }
    }

    /// Takes the limits from a listener's settings. The total defaults to the limit of the process, the limit per address to half of the total.
    #[must_use]
    pub fn from_settings(open_max: Option<usize>, by_address_max: Option<usize>) -> Self {
        let open_max = open_max.unwrap_or_else(descriptors::callers_max);
        Self::new(open_max, by_address_max.unwrap_or_else(|| open_max.div_ceil(2)))
    }

    /// A permit for one more connection, released on drop; `None` if a limit is reached. At the limit of the process, a few connections wait
    /// briefly until idle ones are closed. Cancel safe.
    pub async fn acquire(self: &Arc<Self>, address: IpAddr) -> Option<Permit> {
        let descriptor = match Descriptor::acquire() {
            Some(descriptor) => Some(descriptor),
            None => Descriptor::wait().await,
        };
        let permit = descriptor.and_then(|descriptor| self.permit(address, descriptor));
        if permit.is_none() {
            self.record_refusal();
        }
        permit
    }

    fn record_refusal(&self) {
        let total = descriptors::count_refused();
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last_logged.is_none_or(|last| now.duration_since(last) >= LOG_INTERVAL) {
            *last_logged = Some(now);
            let (open, max) = (descriptors::callers(), descriptors::callers_max());
            tracing::warn!(total, open, max, listener_max = self.open_max, "connection refused: limit reached");
        }
    }

    fn permit(self: &Arc<Self>, address: IpAddr, descriptor: Descriptor) -> Option<Permit> {
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.get(&address).copied().unwrap_or(0);
        if count >= self.by_address_max || self.open.load(Ordering::Relaxed) >= self.open_max {
            return None;
        }
        self.open.fetch_add(1, Ordering::Relaxed);
        by_address.insert(address, count + 1);
        Some(Permit { limiter: Arc::clone(self), address, _descriptor: descriptor })
    }
}

/// Permission for one open connection; dropping it frees the slot.
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
    _descriptor: Descriptor,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limiter.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.limiter.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}
