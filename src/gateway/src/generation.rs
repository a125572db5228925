//! Generations: one complete version of the routes, and the swap to the next.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossdock_message::{ByteString, Limits};
use crossdock_ports::{Adapter, LockEngine, PortStatus};
use crossdock_routing::{Plan, ServicePlan};
use tokio::sync::{Semaphore, watch};

use crate::config::ListenerConfig;
use crate::data::{Policy, policies_of};
use crate::error::ApplyError;
use crate::process::health::ServiceHealth;
use crate::process::{FaultLog, ProcessState};
use crate::stats::{RouteStats, ServiceStats, Stats};

/// One version of the routes, with the state that its messages and calls share.
pub(crate) struct Generation {
    /// Starts at 1.
    pub(crate) number: u64,
    pub(crate) plan: Plan,
    pub(crate) listeners: Vec<ListenerConfig>,
    pub(crate) limits: Limits,
    /// One for each service of the plan.
    pub(crate) services: Vec<ServiceShare>,
    /// One for each route of the plan.
    pub(crate) routes: Vec<Arc<RouteShare>>,
    /// The files other than YAML that it was read from.
    pub(crate) files: BTreeSet<PathBuf>,
    /// The engine of locks and sequences.
    pub(crate) locks: Option<Arc<dyn LockEngine>>,
}

/// The state of a route shared by all data arbiters.
pub(crate) struct RouteShare {
    pub(crate) name: ByteString,
    pub(crate) stats: Arc<RouteStats>,
    pub(crate) faults: Arc<FaultLog>,
    /// In the order of execution.
    pub(crate) policies: Vec<Box<dyn Policy>>,
}

/// The state of a service shared by all data arbiters.
#[derive(Clone)]
pub(crate) struct ServiceShare {
    pub(crate) plan: Arc<ServicePlan>,
    /// Permits for concurrent calls.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) stats: Arc<ServiceStats>,
    pub(crate) health: Arc<ServiceHealth>,
}

impl ServiceShare {
    /// The endpoints whose connection is shared by all data arbiters, with its status.
    pub(crate) fn connections(&self, adapters: &[Arc<dyn Adapter>]) -> impl Iterator<Item = (&str, PortStatus)> {
        let spec = &*self.plan.spec;
        let adapter = adapters.iter().find(|adapter| adapter.name() == self.plan.adapter).cloned();
        spec.endpoints().iter().enumerate().filter_map(move |(index, endpoint)| {
            Some((endpoint.as_str(), adapter.as_ref()?.connection_status(spec, index)?))
        })
    }
}

/// Opens the endpoints of services and closes them again, to detect unusable files before the services are in use.
///
/// # Errors
/// The first problem.
pub(crate) fn try_open(services: &[Arc<ServicePlan>], adapters: &[Arc<dyn Adapter>]) -> Result<(), ApplyError> {
    for plan in services {
        let Some(adapter) = adapters.iter().find(|adapter| adapter.name() == plan.adapter) else {
            return Err(ApplyError::UnknownAdapter { service: plan.name.to_string(), adapter: plan.adapter });
        };
        for endpoint in 0..plan.spec.endpoints().len() {
            let opened = adapter.open_outbound(&*plan.spec, endpoint);
            opened.map_err(|source| ApplyError::Service { name: plan.name.to_string(), source })?;
        }
    }
    Ok(())
}

impl Generation {
    pub(crate) fn new(
        number: u64,
        plan: Plan,
        listeners: Vec<ListenerConfig>,
        limits: Limits,
        stats: &Stats,
        process: &ProcessState,
    ) -> Self {
        let services = plan.services.iter().map(|service| ServiceShare {
            plan: Arc::clone(service),
            permits: process.permits(&service.name, service.concurrency),
            stats: stats.service(&service.name),
            health: process.health.service(service),
        });
        let routes = plan.routes.iter().map(|route| {
            let (name, faults) = (route.name.clone(), Arc::clone(&process.faults));
            let stats = stats.route(&name);
            let policies = policies_of(route, &process.route(&name), &stats, process.coordination.as_ref());
            Arc::new(RouteShare { name, stats, faults, policies })
        });
        let (services, routes) = (services.collect(), routes.collect());
        let locks = process.locks.clone();
        Self { number, plan, listeners, limits, services, routes, files: BTreeSet::new(), locks }
    }
}

/// The current generation; data arbiters load it for each message.
pub(crate) struct CurrentGeneration {
    generation: ArcSwap<Generation>,
    /// The number of the generation; receivers wait for the next.
    published: watch::Sender<u64>,
    draining: AtomicBool,
    next_id: AtomicU64,
}

impl CurrentGeneration {
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

    /// Replaces the generation. Messages in flight keep the one that they started with.
    pub(crate) fn publish(&self, next: Generation) {
        let number = next.number;
        self.generation.store(Arc::new(next));
        self.published.send_replace(number);
    }

    /// Notifies of each generation that is published.
    pub(crate) fn published(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns a number for a data arbiter, which makes its message ids unique.
    pub(crate) fn next_arbiter(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
