//! Process state that takes part in decisions and outlives generations: a reload changes no order, forgets no key, and gives no service more
//! concurrent calls than its settings allow.
//!
//! Statistics only count; they are in `stats`. The state is keyed by names and limits, and does not depend on plans of routes otherwise.

mod claims;
mod dedup_cache;
mod fault_log;
mod fence;
pub(crate) mod health;
mod key_queues;
mod listeners;
mod partitions;
mod permits;
mod queues;
mod singletons;

use std::collections::BTreeMap;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_embedded::Engine;
use crossdock_message::ByteString;
use crossdock_ports::LockEngine;
use tokio::sync::Semaphore;

pub(crate) use claims::Claims;
pub(crate) use dedup_cache::{DedupCache, DedupEntry, carried_out, key_reused};
pub(crate) use fault_log::{FaultLog, Place};
pub(crate) use fence::{Fence, lost, not_granted};
pub(crate) use key_queues::{KeyLock, KeyQueues, Ticket, predecessor_redelivered};
pub(crate) use listeners::Listeners;
pub(crate) use queues::{Queues, unknown};
pub(crate) use singletons::Singletons;

use crate::external::External;
use health::Registry;
use permits::Permits;

/// The state of the process.
#[derive(Default)]
pub(crate) struct ProcessState {
    /// The cluster, if the instance is a member of one.
    pub(crate) coordination: Option<Engine>,
    /// The engine of locks and sequences: that of the cluster, or another one.
    pub(crate) locks: Option<Arc<dyn LockEngine>>,
    /// Which other one.
    pub(crate) engine_identity: Option<String>,
    /// Entries that one instance of the cluster reads at a time.
    pub(crate) singletons: Singletons,
    /// Endpoints, circuit breakers and host names.
    pub(crate) health: Registry,
    /// The running listeners.
    pub(crate) listeners: Listeners,
    /// The rate-limited log of faults.
    pub(crate) faults: Arc<FaultLog>,
    permits: Permits,
    routes: Mutex<BTreeMap<ByteString, Arc<RouteState>>>,
}

/// The state of one route, by its name.
#[derive(Debug, Default)]
pub(crate) struct RouteState {
    /// Messages that wait for predecessors with the same `order` key.
    pub(crate) order: Arc<KeyQueues>,
    /// Messages that wait for an in-flight duplicate, by `idempotency` key.
    pub(crate) duplicates: Arc<KeyQueues>,
    /// Outcomes of processed messages, by `idempotency` key.
    pub(crate) processed: DedupCache,
    /// Hashes the content of messages; the same for all generations.
    pub(crate) hasher: RandomState,
}

impl ProcessState {
    /// The state of a process that coordinates with other instances, if it is a member of a cluster or has another engine.
    pub(crate) fn new(coordination: Option<Engine>, external: Option<&External>) -> Self {
        let of_cluster = || coordination.clone().map(|engine| Arc::new(engine) as Arc<dyn LockEngine>);
        let locks = external.map(External::locks).or_else(of_cluster);
        let engine_identity = external.map(|external| external.identity.clone());
        Self { coordination, locks, engine_identity, ..Self::default() }
    }

    /// The permits for concurrent calls of a service.
    pub(crate) fn permits(&self, service: &ByteString, concurrency: usize) -> Arc<Semaphore> {
        self.permits.of(service, concurrency)
    }

    /// The state of a route.
    pub(crate) fn route(&self, name: &ByteString) -> Arc<RouteState> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(routes.entry(name.clone()).or_default())
    }

    /// Clears all dedup caches, so that route tests do not affect each other.
    pub(crate) fn forget_processed(&self) {
        for route in self.routes.lock().unwrap_or_else(PoisonError::into_inner).values() {
            route.processed.clear();
        }
    }
}
