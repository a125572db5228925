//! The health of services and their endpoints: which endpoints receive calls, and why others do not.
//!
//! | module | content |
//! | --- | --- |
//! | `current` | the current endpoints of a service: configured addresses, and the resolved addresses of host names |
//! | `endpoint` | the state of one endpoint: unreachable, ejected as an outlier, failing its health check |
//! | `breaker` | the circuit breaker of a service |
//! | `window` | counts recent calls and failures |
//!
//! The state belongs to the process and outlives generations. It performs no I/O: calls and checks report their results and pass the time. A
//! success costs two relaxed atomic operations.

mod breaker;
mod current;
mod endpoint;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_message::{Code, EndpointVerdict, Fault, Origin};
use crossdock_routing::{HealthPlan, ServicePlan};
use crossdock_transport::names::{Name, Names};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::breaker::Breaker;
use self::current::{ConfiguredAddresses, follow};
pub(crate) use self::current::{EndpointSet, KnownEndpoint};
pub(crate) use self::endpoint::{Endpoint, EndpointState, Failure};

/// The number of intervals after which the claim of a checker expires.
const CLAIM_INTERVALS: u32 = 3;

/// The health of one service, shared by all data arbiters.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    current: watch::Receiver<EndpointSet>,
    addresses: Arc<ConfiguredAddresses>,
    pub(crate) breaker: Arc<Breaker>,
    /// The task that runs the active checks, and the time of its last claim.
    checker: Arc<Mutex<Option<(u64, Instant)>>>,
    _following: Option<AbortOnDropHandle<()>>,
}

impl ServiceHealth {
    /// The current endpoints; never empty.
    pub(crate) fn endpoints(&self) -> EndpointSet {
        self.current.borrow().clone()
    }

    /// Reports changed endpoints; closed if they cannot change.
    pub(crate) fn changes(&self) -> watch::Receiver<EndpointSet> {
        self.current.clone()
    }

    /// The host name of a configured address, if its resolved addresses are endpoints.
    pub(crate) fn host_name(&self, address_index: usize) -> Option<&Name> {
        self.addresses.host_name(address_index)
    }

    /// Whether an outlier may be ejected: at least half of the endpoints, and at least one, must remain.
    pub(crate) fn may_eject(&self, now: Instant) -> bool {
        let endpoints = self.endpoints();
        let ejected = endpoints.iter().filter(|known| known.endpoint.state(now) == EndpointState::Ejected).count();
        ejected < endpoints.len() / 2
    }

    /// Whether the task `checker_id` runs the active checks in this interval; only one task of all data arbiters does.
    pub(crate) fn claim_checks(&self, checker_id: u64, every: Duration, now: Instant) -> bool {
        let mut checker = self.checker.lock().unwrap_or_else(PoisonError::into_inner);
        match *checker {
            Some((other, since)) if other != checker_id && now.duration_since(since) < every * CLAIM_INTERVALS => false,
            _ => {
                *checker = Some((checker_id, now));
                true
            }
        }
    }
}

/// What the result of a call implies for the health of its endpoint; `None` if nothing.
pub(crate) fn verdict<T>(result: &Result<T, Fault>) -> Option<Result<(), Failure>> {
    let Err(fault) = result else { return Some(Ok(())) };
    match (fault.endpoint_verdict, fault.code) {
        (EndpointVerdict::None, _) => None,
        (EndpointVerdict::Unreachable, _) => Some(Err(Failure::Unreachable)),
        (EndpointVerdict::Failed, _) => Some(Err(Failure::Call)),
        // The caller's deadline, and a caller that disconnects, imply nothing about the endpoint.
        (EndpointVerdict::ByCode, Code::DeadlineExceeded | Code::Cancelled) => None,
        (EndpointVerdict::ByCode, _) if fault.origin == Origin::Caller => None,
        (EndpointVerdict::ByCode, Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss) => {
            Some(Err(Failure::Call))
        }
        // The endpoint works, and rejected this call.
        (EndpointVerdict::ByCode, _) => Some(Ok(())),
    }
}

/// The health of all services of the process, and the resolver of their host names.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) names: Names,
    endpoints: Arc<current::Endpoints>,
    services: Mutex<BTreeMap<String, Service>>,
}

/// The state of a service as a whole.
#[derive(Debug)]
struct Service {
    breaker: Arc<Breaker>,
    checker: Arc<Mutex<Option<(u64, Instant)>>>,
    /// The plan and the addresses that the current claim applies to.
    checked: (Option<HealthPlan>, Vec<String>),
}

impl Registry {
    /// The health of a service. Results of active checks are discarded if the plan of the checks has changed. State that no generation uses is
    /// removed.
    pub(crate) fn service(&self, plan: &ServicePlan) -> Arc<ServiceHealth> {
        let addresses = Arc::new(ConfiguredAddresses::new(plan, &self.names));
        let changes = addresses.changes();
        self.endpoints.set_check(&plan.name, plan.health.as_ref());
        let (sender, current) = watch::channel(self.endpoints.of(&addresses));
        // Without the resolver thread, the host names themselves stay the endpoints; its failure has been logged.
        let thread = (!changes.is_empty()).then(|| self.names.handle().ok()).flatten();
        let following = thread.map(|thread| {
            let task = follow(Arc::clone(&self.endpoints), Arc::clone(&addresses), changes, sender);
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
            addresses,
            breaker: Arc::clone(&service.breaker),
            checker: Arc::clone(&service.checker),
            _following: following,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossdock_message::Reason;

    #[test]
    fn a_fault_implies_for_its_endpoint_what_it_says_or_else_what_its_code_says() {
        let of = |fault: Fault| verdict::<()>(&Err(fault));
        let fault = |code| Fault::new(code, "TEST", "a fault");
        let unreachable = fault(Code::Unavailable).with_endpoint_verdict(EndpointVerdict::Unreachable);
        assert!(matches!(of(unreachable), Some(Err(Failure::Unreachable))));
        let unroutable = fault(Code::Unavailable).with_endpoint_verdict(EndpointVerdict::None);
        assert!(of(unroutable).is_none());
        let timeout = fault(Code::DeadlineExceeded).with_endpoint_verdict(EndpointVerdict::Failed);
        assert!(matches!(of(timeout), Some(Err(Failure::Call))));
        for (code, expected) in [
            (Code::Unavailable, Some(false)),
            (Code::Internal, Some(false)),
            (Code::NotFound, Some(true)),
            (Code::DeadlineExceeded, None),
            (Code::Cancelled, None),
        ] {
            assert_eq!(of(fault(code)).map(|verdict| verdict.is_ok()), expected, "{code}");
        }
        assert!(of(Fault::caller(Code::Internal, "TEST", "a fault of the caller")).is_none());
        let reported = Fault { reason: Reason::of_service("UNREACHABLE".into()), ..fault(Code::Unavailable) };
        assert!(matches!(of(reported), Some(Err(Failure::Call))), "a service that answers was reached");
    }
}
