//! What is known of services and their endpoints: which get calls, and why the others get none.
//!
//! | module | holds |
//! | --- | --- |
//! | `endpoint` | one endpoint: unreachable, ejected as an outlier, failing its health check |
//! | `breaker` | one service: the circuit breaker |
//!
//! State is of the process and outlives generations. It decides and performs nothing: calls and checks tell it what they saw, and the
//! time. A success costs two relaxed atomic operations.

mod breaker;
mod endpoint;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_message::{Code, Fault, Origin};

pub(crate) use self::breaker::Breaker;
pub(crate) use self::endpoint::{Endpoint, Failure, Standing};

/// A checker that has not renewed its claim for so many intervals has ended.
const CLAIM_INTERVALS: u32 = 3;

/// What all data arbiters know of one service.
#[derive(Debug)]
pub(crate) struct ServiceHealth {
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
    pub(crate) breaker: Arc<Breaker>,
    /// Who runs the active checks, and since when nobody else may.
    checker: Arc<Mutex<Option<(u64, Instant)>>>,
}

impl ServiceHealth {
    /// Whether an outlier may be ejected: at least half of the endpoints stay, and at least one.
    pub(crate) fn may_eject(&self, now: Instant) -> bool {
        let ejected = self.endpoints.iter().filter(|endpoint| endpoint.standing(now) == Standing::Ejected).count();
        ejected < self.endpoints.len() / 2
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

/// What a fault says of the endpoint that it came from; nothing where the endpoint did its work.
pub(crate) fn failure_of(fault: &Fault) -> Option<Failure> {
    if fault.origin == Origin::Caller {
        return None;
    }
    match fault.code {
        Code::Unavailable if fault.reason == "UNREACHABLE" => Some(Failure::Unreachable),
        // Time that the caller did not give says nothing of the endpoint.
        Code::DeadlineExceeded if fault.reason == "SERVICE_TIMEOUT" => Some(Failure::Call),
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss => Some(Failure::Call),
        _ => None,
    }
}

/// The health of all services of the process.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    endpoints: Mutex<BTreeMap<(String, String), Arc<Endpoint>>>,
    services: Mutex<BTreeMap<String, (Arc<Breaker>, Arc<Mutex<Option<(u64, Instant)>>>)>>,
}

impl Registry {
    /// The health of a service with these endpoints. What no generation uses any more is forgotten.
    pub(crate) fn service(&self, name: &str, endpoints: &[String]) -> Arc<ServiceHealth> {
        let mut known = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(service, _), endpoint| service == name || Arc::strong_count(endpoint) > 1);
        let endpoint = |address: &String| {
            let key = (name.to_owned(), address.clone());
            Arc::clone(known.entry(key).or_insert_with(|| Arc::new(Endpoint::new(name, address))))
        };
        let endpoints = endpoints.iter().map(endpoint).collect();
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let (breaker, checker) =
            services.entry(name.to_owned()).or_insert_with(|| (Arc::new(Breaker::new(name)), Arc::default()));
        Arc::new(ServiceHealth { endpoints, breaker: Arc::clone(breaker), checker: Arc::clone(checker) })
    }
}
