//! Counters, and the formulas that use them.
//!
//! - throughput = finished requests / length of the window;
//! - latency = request + processing + response: from the receipt of the message to the first call, within calls, and the rest;
//! - capacity = concurrent calls that the services of the route allow / mean processing time (Little's law);
//! - availability = 1 − requests that failed on the server side / requests.

mod histogram;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossdock_message::Code;

pub(crate) use histogram::{BOUNDS_US, Histogram};

/// Counters of one route.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    pub(crate) started: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    /// By the number of the code.
    pub(crate) failed: [AtomicU64; 17],
    pub(crate) request_ns: AtomicU64,
    pub(crate) processing_ns: AtomicU64,
    pub(crate) response_ns: AtomicU64,
    pub(crate) latency: Histogram,
    /// Messages that were answered like an earlier one with the same `idempotency` key.
    pub(crate) duplicates: AtomicU64,
    /// Messages whose `idempotency` key the cluster could not remember.
    pub(crate) forgotten: AtomicU64,
    window: Mutex<Window>,
}

/// Counters of one service.
#[derive(Debug, Default)]
pub(crate) struct ServiceStats {
    pub(crate) calls: AtomicU64,
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: [AtomicU64; 17],
    pub(crate) retries: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) taps_failed: AtomicU64,
    /// Endpoints skipped within a call because they were unreachable.
    pub(crate) skipped: AtomicU64,
    /// Calls rejected by the circuit breaker.
    pub(crate) broken: AtomicU64,
    pub(crate) in_flight: AtomicI64,
    pub(crate) latency: Histogram,
}

/// The durations of the phases of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Phases {
    pub(crate) request: Duration,
    pub(crate) processing: Duration,
    pub(crate) response: Duration,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Whether the server side is responsible for a failure, rather than the caller.
pub(crate) fn is_server_side(code: Code) -> bool {
    matches!(
        code,
        Code::Internal
            | Code::Unknown
            | Code::DataLoss
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
    )
}

impl RouteStats {
    pub(crate) fn begin(&self) {
        add(&self.started, 1);
    }

    pub(crate) fn finish(&self, failed: Option<Code>, phases: Phases) {
        match failed {
            None => add(&self.succeeded, 1),
            Some(code) => add(&self.failed[code as usize], 1),
        }
        add(&self.request_ns, nanos(phases.request));
        add(&self.processing_ns, nanos(phases.processing));
        add(&self.response_ns, nanos(phases.response));
        self.latency.record(phases.request + phases.processing + phases.response);
    }

    pub(crate) fn finished(&self) -> u64 {
        get(&self.succeeded) + self.failed.iter().map(get).sum::<u64>()
    }

    pub(crate) fn server_side_failures(&self) -> u64 {
        Code::ALL.into_iter().filter(|code| is_server_side(*code)).map(|code| get(&self.failed[code as usize])).sum()
    }
}

impl ServiceStats {
    pub(crate) fn begin(&self) {
        add(&self.calls, 1);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn finish(&self, failed: Option<Code>, time: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        match failed {
            None => add(&self.succeeded, 1),
            Some(code) => add(&self.failed[code as usize], 1),
        }
        self.latency.record(time);
    }

    pub(crate) fn count(&self, counter: impl FnOnce(&Self) -> &AtomicU64) {
        add(counter(self), 1);
    }
}

/// Samples of the last minute, one every [`WINDOW_STEP`].
#[derive(Debug, Default)]
struct Window {
    samples: std::collections::VecDeque<(Instant, u64)>,
}

/// How often rates are sampled.
pub(crate) const WINDOW_STEP: Duration = Duration::from_secs(5);
const WINDOW_LEN: usize = 12;

impl RouteStats {
    fn sample(&self, now: Instant) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.samples.push_back((now, self.finished()));
        if window.samples.len() > WINDOW_LEN + 1 {
            window.samples.pop_front();
        }
    }

    /// Finished requests per second over the last minute, or since the start if that is shorter.
    pub(crate) fn throughput(&self, started: Instant, now: Instant) -> f64 {
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, finished_before) = window.samples.front().copied().unwrap_or((started, 0));
        let elapsed = now.saturating_duration_since(since).as_secs_f64();
        if elapsed <= 0.0 { 0.0 } else { (self.finished() - finished_before) as f64 / elapsed }
    }
}

/// All counters of the process; they outlive generations.
pub(crate) struct Stats {
    pub(crate) started: Instant,
    routes: Mutex<BTreeMap<String, Arc<RouteStats>>>,
    services: Mutex<BTreeMap<String, Arc<ServiceStats>>>,
    pub(crate) reloads: AtomicU64,
    pub(crate) reloads_failed: AtomicU64,
    pub(crate) unmatched: AtomicU64,
    /// Requests that were refused before a route was found, unmatched ones included.
    pub(crate) refused: AtomicU64,
}

fn get_or_insert<T: Default>(map: &Mutex<BTreeMap<String, Arc<T>>>, name: &str) -> Arc<T> {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(map.entry(name.to_owned()).or_default())
}

fn all<T>(map: &Mutex<BTreeMap<String, Arc<T>>>) -> Vec<(String, Arc<T>)> {
    let map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.iter().map(|(name, stats)| (name.clone(), Arc::clone(stats))).collect()
}

impl Stats {
    pub(crate) fn new(started: Instant) -> Arc<Self> {
        Arc::new(Self {
            started,
            routes: Mutex::default(),
            services: Mutex::default(),
            reloads: AtomicU64::new(0),
            reloads_failed: AtomicU64::new(0),
            unmatched: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    pub(crate) fn route(&self, name: &str) -> Arc<RouteStats> {
        get_or_insert(&self.routes, name)
    }

    /// All routes by name.
    pub(crate) fn routes(&self) -> Vec<(String, Arc<RouteStats>)> {
        all(&self.routes)
    }

    /// All services by name.
    pub(crate) fn services(&self) -> Vec<(String, Arc<ServiceStats>)> {
        all(&self.services)
    }

    pub(crate) fn service(&self, name: &str) -> Arc<ServiceStats> {
        get_or_insert(&self.services, name)
    }

    /// Samples the rates; must be called every [`WINDOW_STEP`].
    pub(crate) fn sample(&self, now: Instant) {
        for (_, route) in all(&self.routes) {
            route.sample(now);
        }
    }
}
