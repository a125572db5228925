//! Permits for concurrent calls, by service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_message::ByteString;
use tokio::sync::Semaphore;

/// The permits of all services.
///
/// Calls of an old generation count in the new one as long as the limit is the same.
#[derive(Debug, Default)]
pub(super) struct Permits(Mutex<BTreeMap<(ByteString, usize), Arc<Semaphore>>>);

impl Permits {
    /// The permits of a service with this limit of concurrent calls.
    pub(super) fn of(&self, service: &ByteString, concurrency: usize) -> Arc<Semaphore> {
        let mut permits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (service.clone(), concurrency);
        Arc::clone(permits.entry(key).or_insert_with(|| Arc::new(Semaphore::new(concurrency))))
    }
}
