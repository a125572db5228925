//! What is known of services and their endpoints: which get calls, and why the others get none.
//!
//! | module | holds |
//! | --- | --- |
//! | `current` | the endpoints that a service has now: addresses of its settings, and those of host names |
//! | `endpoint` | one endpoint: unreachable, ejected as an outlier, failing its health check |
//! | `breaker` | one service: the circuit breaker |
//! | `window` | calls of the last while, and how many failed |
//!
//! State is of the process and outlives generations. It decides and performs nothing: calls and checks tell it what they saw, and the
//! time. A success costs two relaxed atomic operations.

mod breaker;
mod current;
mod endpoint;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_message::{Code, Fault, Origin};
use crossdock_routing::{HealthPlan, ServicePlan};
use crossdock_transport::names::{Name, Names};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::breaker::Breaker;
pub(crate) use self::current::{EndpointSet, Known};
use self::current::{Places, follow};
pub(crate) use self::endpoint::{Endpoint, Failure, Standing};

/// A checker that has not renewed its claim for so many intervals has ended.
const CLAIM_INTERVALS: u32 = 3;

/// What all data arbiters know of one service.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    current: watch::Receiver<EndpointSet>,
    places: Arc<Places>,
    pub(crate) breaker: Arc<Breaker>,
    /// Who runs the active checks, and since when nobody else may.
    checker: Arc<Mutex<Option<(u64, Instant)>>>,
    _following: Option<AbortOnDropHandle<()>>,
}

impl ServiceHealth {
    /// The endpoints of now; never empty.
    pub(crate) fn endpoints(&self) -> EndpointSet {
        self.current.borrow().clone()
    }

    /// Tells of other endpoints; ends where they stay the same.
    pub(crate) fn changes(&self) -> watch::Receiver<EndpointSet> {
        self.current.clone()
    }

    /// The name whose addresses are endpoints, of the place with that number in the settings.
    pub(crate) fn name(&self, place: usize) -> Option<&Name> {
        self.places.name(place)
    }

    /// Whether an outlier may be ejected: at least half of the endpoints stay, and at least one.
    pub(crate) fn may_eject(&self, now: Instant) -> bool {
        let endpoints = self.endpoints();
        let ejected = endpoints.iter().filter(|known| known.endpoint.standing(now) == Standing::Ejected).count();
        ejected < endpoints.len() / 2
    }

    /// Whether `who` runs the active checks in this interval: one of all data arbiters does.
    pub(crate) fn claim_checks(&self, who: u64, every: Duration, now: Instant) -> bool {
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        match *checker {
            Some((other, since)) if other != who && now.duration_since(since) < every * CLAIM_INTERVALS => false,
            _ => {
                *checker = Some((who, now));
                true
            }
        }
    }
}

/// Reasons of faults with which an endpoint did its work: where a message goes, and whether somebody is there, is not its doing.
const NOT_ITS_DOING: [&str; 4] = ["UNROUTABLE", "NO_EXCHANGE", "LOCKED", "BREAKER_OPEN"];

/// What the result of a call says of the endpoint that it came from; nothing where it says neither good nor bad.
pub(crate) fn verdict<T>(result: &Result<T, Fault>) -> Option<Result<(), Failure>> {
    let Err(fault) = result else { return Some(Ok(())) };
    match fault.code {
        // Time that the caller did not give, and a caller who left, say nothing of the endpoint.
        Code::DeadlineExceeded if fault.reason != "SERVICE_TIMEOUT" => None,
        Code::Cancelled => None,
        _ if fault.origin == Origin::Caller || NOT_ITS_DOING.contains(&&*fault.reason) => None,
        Code::Unavailable if fault.reason == "UNREACHABLE" => Some(Err(Failure::Unreachable)),
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss | Code::DeadlineExceeded => {
            Some(Err(Failure::Call))
        }
        // It answered, and refused for a reason of the call.
        _ => Some(Ok(())),
    }
}

/// The health of all services of the process, and the addresses of their hosts.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) names: Names,
    endpoints: Arc<current::Endpoints>,
    services: Mutex<BTreeMap<String, Service>>,
}

/// What is of a service and not of one of its endpoints.
#[derive(Debug)]
struct Service {
    breaker: Arc<Breaker>,
    checker: Arc<Mutex<Option<(u64, Instant)>>>,
    /// The plan and the addresses that the current claim is for.
    checked: (Option<HealthPlan>, Vec<String>),
}

impl Registry {
    /// The health of a service; what an earlier generation's checks said does not hold where they were others. What no generation uses any
    /// more is forgotten.
    pub(crate) fn service(&self, plan: &ServicePlan) -> Arc<ServiceHealth> {
        let places = Arc::new(Places::new(plan, &self.names));
        let changes = places.changes();
        self.endpoints.check(&plan.name, plan.health.as_ref());
        let (sender, current) = watch::channel(self.endpoints.of(&places));
        // Where there is no thread for lookups, the names themselves are the endpoints: that was logged.
        let thread = (!changes.is_empty()).then(|| self.names.handle().ok()).flatten();
        let following = thread.map(|thread| {
            let task = follow(Arc::clone(&self.endpoints), Arc::clone(&places), changes, sender);
            AbortOnDropHandle::new(thread.spawn(task))
        });
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.retain(|service, known| *service == *plan.name || Arc::strong_count(&known.breaker) > 1);
        let checked = (plan.health.clone(), plan.spec.endpoints().to_vec());
        let service = services.entry(plan.name.to_string()).or_insert_with(|| Service {
            breaker: Arc::new(Breaker::new(&plan.name)),
            checker: Arc::default(),
            checked: checked.clone(),
        });
        if service.checked != checked {
            (service.checker, service.checked) = (Arc::default(), checked);
        }
        Arc::new(ServiceHealth {
            current,
            places,
            breaker: Arc::clone(&service.breaker),
            checker: Arc::clone(&service.checker),
            _following: following,
        })
    }
}
