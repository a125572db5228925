//! The endpoints that a service has now.
//!
//! An address in the settings is one endpoint, unless its host is a name: then each of the name's addresses is one. Until the name's first
//! answer, and where there never is one, the name itself is the endpoint: making a connection resolves it as the operating system does, which
//! may know names that no name server does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crossdock_routing::{HealthPlan, ServicePlan};
use crossdock_transport::names::{Addresses, Name, Names};
use futures_util::future::select_all;
use tokio::sync::watch;

use super::Endpoint;

/// An endpoint, and the place of its address in the settings.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) place: usize,
    pub(crate) endpoint: Arc<Endpoint>,
}

/// The endpoints of a service.
pub(crate) type EndpointSet = Arc<[Known]>;

/// The addresses of a service as the settings have them, each with its host's name where that is followed.
#[derive(Debug)]
pub(super) struct Places {
    service: String,
    places: Vec<(String, Option<Arc<Name>>)>,
}

impl Places {
    pub(super) fn new(plan: &ServicePlan, names: &Names) -> Self {
        let place = |(place, address): (usize, &String)| {
            let name = plan.spec.host_name(place).and_then(|host| {
                let started = names.name(host);
                started.inspect_err(|problem| tracing::error!(host, %problem, "name cannot be looked up")).ok()
            });
            (address.clone(), name)
        };
        let places = plan.spec.endpoints().iter().enumerate().map(place).collect();
        Self { service: plan.name.to_string(), places }
    }

    pub(super) fn name(&self, place: usize) -> Option<&Name> {
        self.places.get(place)?.1.as_deref()
    }

    pub(super) fn changes(&self) -> Vec<watch::Receiver<Addresses>> {
        self.places.iter().filter_map(|(_, name)| Some(name.as_ref()?.subscribe())).collect()
    }
}

/// What identifies an endpoint: its service, its address in the settings, and the address of its host's name.
type Key = (String, String, Option<IpAddr>);

/// All endpoints of the process.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    endpoints: BTreeMap<Key, Arc<Endpoint>>,
    /// How the endpoints of each service are checked.
    checks: BTreeMap<String, HealthPlan>,
}

impl Endpoints {
    /// How the endpoints of a service are checked from now on, also those that come later.
    pub(super) fn check(&self, service: &str, check: Option<&HealthPlan>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { endpoints, checks } = &mut *state;
        // Those of services that are gone. Services are made one after the other: no other one is without endpoints yet.
        checks.retain(|known, _| endpoints.keys().any(|(of, ..)| of == known));
        match check {
            Some(check) => drop(checks.insert(service.to_owned(), check.clone())),
            None => drop(checks.remove(service)),
        }
        for (_, endpoint) in endpoints.iter().filter(|((of, ..), _)| of == service) {
            endpoint.checked_by(check);
        }
    }

    /// The endpoints of now. What nobody uses any more is forgotten.
    pub(super) fn of(&self, places: &Places) -> EndpointSet {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { endpoints, checks } = &mut *state;
        let mut current = Vec::new();
        for (place, (address, name)) in places.places.iter().enumerate() {
            let found = name.as_ref().map(|name| name.addresses().list).unwrap_or_default();
            let each: Vec<Option<IpAddr>> =
                if found.is_empty() { vec![None] } else { found.iter().copied().map(Some).collect() };
            for ip in each {
                let key = (places.service.clone(), address.clone(), ip);
                let endpoint = endpoints.entry(key).or_insert_with(|| {
                    let endpoint = Endpoint::new(&places.service, address, ip);
                    endpoint.checked_by(checks.get(&places.service));
                    Arc::new(endpoint)
                });
                current.push(Known { place, endpoint: Arc::clone(endpoint) });
            }
        }
        endpoints.retain(|_, endpoint| Arc::strong_count(endpoint) > 1);
        current.into()
    }
}

/// Keeps the endpoints of a service those that the names of its hosts have.
pub(super) async fn follow(
    endpoints: Arc<Endpoints>,
    places: Arc<Places>,
    mut changes: Vec<watch::Receiver<Addresses>>,
    current: watch::Sender<EndpointSet>,
) {
    loop {
        let any = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
        // The places hold the names: none of them ends.
        let _ = any.await;
        current.send_if_modified(|current| {
            let next = endpoints.of(&places);
            let is_same = |(one, other): (&Known, &Known)| Arc::ptr_eq(&one.endpoint, &other.endpoint);
            let is_changed = current.len() != next.len() || !current.iter().zip(&*next).all(is_same);
            *current = next;
            is_changed
        });
    }
}
