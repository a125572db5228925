//! State of the whole process that decides something and outlives generations: a reload changes no order, forgets no key, and gives no
//! service more concurrent calls than its settings allow.
//!
//! Statistics only count and live in `stats`; nothing here depends on routes' plans beyond the names and limits that it is keyed by.

mod dedup_cache;
mod fault_log;
pub(crate) mod health;
mod key_queues;
mod permits;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_message::ByteString;
use tokio::sync::Semaphore;

pub(crate) use dedup_cache::{DedupCache, DedupEntry};
pub(crate) use fault_log::{FaultLog, Place};
pub(crate) use key_queues::{KeyLock, KeyQueues, Ticket, predecessor_redelivered};

use health::Registry;
use permits::Permits;

/// The state of the process.
#[derive(Debug, Default)]
pub(crate) struct ProcessState {
    /// Endpoints, circuit breakers and host names.
    pub(crate) health: Registry,
    /// The log of faults, whose lines per second are limited.
    pub(crate) faults: Arc<FaultLog>,
    permits: Permits,
    routes: Mutex<BTreeMap<ByteString, Arc<RouteState>>>,
}

/// The state of one route, by its name.
#[derive(Debug, Default)]
pub(crate) struct RouteState {
    /// Messages that wait for their predecessors of the same `order` key.
    pub(crate) order: Arc<KeyQueues>,
    /// Messages that wait for an in-flight duplicate, by `idempotency` key.
    pub(crate) duplicates: Arc<KeyQueues>,
    /// Outcomes of messages that were processed, by `idempotency` key.
    pub(crate) processed: DedupCache,
    /// Hashes the content of messages; the same for all generations.
    pub(crate) hasher: RandomState,
}

impl ProcessState {
    /// The permits for concurrent calls of a service.
    pub(crate) fn permits(&self, service: &ByteString, concurrency: usize) -> Arc<Semaphore> {
        self.permits.of(service, concurrency)
    }

    /// The state of a route.
    pub(crate) fn route(&self, name: &ByteString) -> Arc<RouteState> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(name.clone()).or_default())
    }

    /// Forgets the outcomes of all messages, for tests of routes that must not see one another's.
    pub(crate) fn forget_processed(&self) {
        for route in self.routes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            route.processed.clear();
        }
    }
}
