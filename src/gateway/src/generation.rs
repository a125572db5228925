//! One version of the routes, whole, and the swap to the next.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossdock_message::Limits;
use crossdock_routing::{Plan, ServicePlan};
use tokio::sync::{Semaphore, watch};

use crate::config::ListenerConfig;
use crate::data::Keyed;
use crate::health::ServiceHealth;
use crate::stats::{RouteStats, ServiceStats, Stats};

/// One version of the routes with what its calls share.
pub(crate) struct Generation {
    /// Counts up from 1.
    pub(crate) number: u64,
    pub(crate) plan: Plan,
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) limits: Limits,
    /// One for each service of the plan.
    pub(crate) services: Vec<ServiceShare>,
    /// One for each route of the plan.
    pub(crate) routes: Vec<Arc<RouteStats>>,
    /// One for each route of the plan.
    pub(crate) keyed: Vec<Arc<Keyed>>,
    /// Files besides YAML that it was made of.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// What all data arbiters share of a service.
#[derive(Clone)]
pub(crate) struct ServiceShare {
    pub(crate) plan: Arc<ServicePlan>,
    /// Calls that may still be begun.
    pub(crate) credit: Arc<Semaphore>,
    pub(crate) stats: Arc<ServiceStats>,
    pub(crate) health: Arc<ServiceHealth>,
}

impl Generation {
    pub(crate) fn new(number: u64, plan: Plan, listeners: Vec<ListenerConfig>, limits: Limits, stats: &Stats) -> Self {
        let services = plan.services.iter().map(|service| ServiceShare {
            plan: Arc::clone(service),
            credit: stats.credit(&service.name, service.concurrency),
            stats: stats.service(&service.name),
            health: stats.health.service(service),
        });
        let services = services.collect();
        let routes = plan.routes.iter().map(|route| stats.route(&route.name)).collect();
        let keyed = plan.routes.iter().map(|route| stats.keyed(&route.name)).collect();
        Self { number, plan, listeners, limits, services, routes, keyed, files: BTreeSet::new() }
    }
}

/// What data arbiters look at for each message.
pub(crate) struct Current {
    generation: ArcSwap<Generation>,
    /// Its number, for those who wait for the next.
    published: watch::Sender<u64>,
    draining: AtomicBool,
    next_id: AtomicU64,
}

impl Current {
    pub(crate) fn new(first: Generation) -> Self {
        Self {
            published: watch::Sender::new(first.number),
            generation: ArcSwap::from_pointee(first),
            draining: AtomicBool::new(false),
            next_id: AtomicU64::new(0),
        }
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Generation>> {
        self.generation.load()
    }

    /// The one swap of a reload. Messages in flight keep the generation that they began with.
    pub(crate) fn publish(&self, next: Generation) {
        let number = next.number;
        self.generation.store(Arc::new(next));
        self.published.send_replace(number);
    }

    /// Tells of each version that is published.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Numbers for data arbiters, so that each gives out identities of its own.
    pub(crate) fn next_arbiter(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
