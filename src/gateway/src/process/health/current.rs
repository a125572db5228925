//! The current endpoints of a service.
//!
//! A configured address is one endpoint, unless its host is a name: then each resolved address is an endpoint. Until the name is resolved, the
//! name itself is the endpoint: connecting resolves it with the resolver of the operating system, which may know names that no name server
//! knows.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_routing::{HealthPlan, ServicePlan};
use crossdock_transport::names::{Addresses, Name, Names};
use futures_util::future::select_all;
use tokio::sync::watch;

use super::Endpoint;

/// An endpoint, and the index of its configured address.
#[derive(Debug, Clone)]
pub(crate) struct KnownEndpoint {
    pub(crate) address_index: usize,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// The endpoints of a service.
pub(crate) type EndpointSet = Arc<[KnownEndpoint]>;

/// The configured addresses of a service, each with its host name if it is resolved.
#[derive(Debug)]
pub(super) struct ConfiguredAddresses {
    service: String,
    addresses: Vec<(String, Option<Arc<Name>>)>,
}

impl ConfiguredAddresses {
    pub(super) fn new(plan: &ServicePlan, names: &Names) -> Self {
        let resolved = |(index, address): (usize, &String)| {
            let name = plan.spec.host_name(index).and_then(|host| {
                let started = names.name(host);
                started.inspect_err(|problem| tracing::error!(host, %problem, "failed to start name lookups")).ok()
            });
            (address.clone(), name)
        };
        let addresses = plan.spec.endpoints().iter().enumerate().map(resolved).collect();
        Self { service: plan.name.to_string(), addresses }
    }

    pub(super) fn host_name(&self, index: usize) -> Option<&Name> {
        self.addresses.get(index)?.1.as_deref()
    }

    pub(super) fn changes(&self) -> Vec<watch::Receiver<Addresses>> {
        self.addresses.iter().filter_map(|(_, name)| Some(name.as_ref()?.subscribe())).collect()
    }
}

/// Identifies an endpoint: service, configured address, and resolved address.
type Key = (String, String, Option<IpAddr>);

/// All endpoints of the process.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    endpoints: BTreeMap<Key, Arc<Endpoint>>,
    /// The health check of each service.
    checks: BTreeMap<String, HealthPlan>,
}

impl Endpoints {
    /// Sets the health check of the endpoints of a service, including those added later.
    pub(super) fn set_check(&self, service: &str, check: Option<&HealthPlan>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { endpoints, checks } = &mut *state;
        // Remove services without endpoints. Services are created one by one, so no other service is waiting for its first endpoints.
        checks.retain(|known, _| endpoints.keys().any(|(of, ..)| of == known));
        match check {
            Some(check) => drop(checks.insert(service.to_owned(), check.clone())),
            None => drop(checks.remove(service)),
        }
        for (_, endpoint) in endpoints.iter().filter(|((of, ..), _)| of == service) {
            endpoint.set_check(check);
        }
    }

    /// The current endpoints of a service. Removes endpoints that are no longer used.
    pub(super) fn of(&self, configured: &ConfiguredAddresses) -> EndpointSet {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { endpoints, checks } = &mut *state;
        let mut current = Vec::new();
        for (address_index, (address, name)) in configured.addresses.iter().enumerate() {
            let resolved = name.as_ref().map(|name| name.addresses().list).unwrap_or_default();
            let ips: Vec<Option<IpAddr>> =
                if resolved.is_empty() { vec![None] } else { resolved.iter().copied().map(Some).collect() };
            for ip in ips {
                let key = (configured.service.clone(), address.clone(), ip);
                let endpoint = endpoints.entry(key).or_insert_with(|| {
                    let endpoint = Endpoint::new(&configured.service, address, ip);
                    endpoint.set_check(checks.get(&configured.service));
                    Arc::new(endpoint)
                });
                current.push(KnownEndpoint { address_index, endpoint: Arc::clone(endpoint) });
            }
        }
        endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        current.into()
    }
}

/// Updates the endpoints of a service when its host names resolve to other addresses.
pub(super) async fn follow(
    endpoints: Arc<Endpoints>,
    addresses: Arc<ConfiguredAddresses>,
    mut changes: Vec<watch::Receiver<Addresses>>,
    current: watch::Sender<EndpointSet>,
) {
    loop {
        let any_change = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
        // `addresses` holds the names, so no channel is closed.
        let _ = any_change.await;
        current.send_if_modified(|current| {
            let next = endpoints.of(&addresses);
            let is_same = |(old, new): (&KnownEndpoint, &KnownEndpoint)| Arc::ptr_eq(&old.endpoint, &new.endpoint);
            let is_changed = current.len() != next.len() || !current.iter().zip(&*next).all(is_same);
            *current = next;
            is_changed
        });
    }
}
