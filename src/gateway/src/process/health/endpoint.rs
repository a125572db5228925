//! One endpoint of a service.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_routing::HealthPlan;

use super::window::Window;

/// Reasons why an endpoint receives no calls, as bits of one word: a call only checks that it is zero.
const UNREACHABLE: u8 = 1;
const UNHEALTHY: u8 = 2;
const EJECTED: u8 = 4;

/// How long an unreachable endpoint receives no calls if no task probes it.
const UNREACHABLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The window in which failed calls are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Consecutive failed calls that eject an endpoint.
const CONSECUTIVE_FAILURES_MAX: u32 = 5;
/// The minimum number of calls in the window for a failure rate, and the rate in percent that ejects an endpoint.
const CALLS_MIN: u32 = 20;
const FAILURES_PERCENT: u32 = 25;
/// The duration of the first ejection; each further one is longer by the same amount.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// The time without an ejection after which earlier ejections no longer count.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Connecting failed: nothing was sent.
    Unreachable,
    /// The call failed on the serving side.
    Call,
}

/// The state of an endpoint, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndpointState {
    /// It receives calls.
    Up,
    /// It failed too many calls and receives none for a time.
    Ejected,
    /// It failed its health check.
    Unhealthy,
    /// Connections to it fail.
    Unreachable,
}

impl EndpointState {
    /// The name of the state, for metrics and the API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One endpoint, shared by all data arbiters.
#[derive(Debug)]
pub(crate) struct Endpoint {
    service: String,
    /// The configured address.
    pub(crate) address: String,
    /// The resolved address, if the host is a name.
    pub(crate) ip: Option<IpAddr>,
    flags: AtomicU8,
    succeeded: AtomicU32,
    consecutive_failures: AtomicU32,
    /// After an ejection: a single failed call ejects it again.
    is_on_probation: AtomicBool,
    /// A task probes it until it is reachable.
    is_probed: AtomicBool,
    failures: Mutex<FailureState>,
    pub(crate) unreachable_total: AtomicU64,
    pub(crate) failed_total: AtomicU64,
    pub(crate) ejected_total: AtomicU64,
    pub(crate) checks_failed_total: AtomicU64,
}

/// State that is only needed after failures.
#[derive(Debug)]
struct FailureState {
    window: Window,
    unreachable_until: Option<Instant>,
    ejected_until: Option<Instant>,
    /// Consecutive ejections; determines the duration of the next one.
    ejections: u32,
    /// Calls left on probation after an ejection.
    probation_calls: u32,
    checks_failed: u32,
    /// The current health check.
    check: Option<HealthPlan>,
}

impl Endpoint {
    pub(super) fn new(service: &str, address: &str, ip: Option<IpAddr>) -> Self {
        let failures = FailureState {
            window: Window::default(),
            unreachable_until: None,
            ejected_until: None,
            ejections: 0,
            probation_calls: 0,
            checks_failed: 0,
            check: None,
        };
        Self {
            service: service.to_owned(),
            address: address.to_owned(),
            ip,
            flags: AtomicU8::new(0),
            succeeded: AtomicU32::new(0),
            consecutive_failures: AtomicU32::new(0),
            is_on_probation: AtomicBool::new(false),
            is_probed: AtomicBool::new(false),
            failures: Mutex::new(failures),
            unreachable_total: AtomicU64::new(0),
            failed_total: AtomicU64::new(0),
            ejected_total: AtomicU64::new(0),
            checks_failed_total: AtomicU64::new(0),
        }
    }

    fn failures(&self) -> MutexGuard<'_, FailureState> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current state; ends expired ejections and unreachability.
    pub(crate) fn state(&self, now: Instant) -> EndpointState {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags == 0 {
            return EndpointState::Up;
        }
        let mut failures = self.failures();
        if flags & UNREACHABLE != 0 && failures.unreachable_until.is_some_and(|until| until <= now) {
            self.clear(UNREACHABLE);
        }
        if flags & EJECTED != 0 && failures.ejected_until.is_some_and(|until| until <= now) {
            failures.probation_calls = CONSECUTIVE_FAILURES_MAX;
            failures.window = Window::default();
            self.succeeded.store(0, Ordering::Relaxed);
            self.consecutive_failures.store(0, Ordering::Relaxed);
            self.is_on_probation.store(true, Ordering::Relaxed);
            self.clear(EJECTED);
            tracing::info!(service = %self.service, endpoint = %self, "endpoint is no longer ejected");
        }
        match self.flags.load(Ordering::Relaxed) {
            0 => EndpointState::Up,
            flags if flags & UNREACHABLE != 0 => EndpointState::Unreachable,
            flags if flags & UNHEALTHY != 0 => EndpointState::Unhealthy,
            _ => EndpointState::Ejected,
        }
    }

    fn clear(&self, flag: u8) {
        self.flags.fetch_and(!flag, Ordering::Relaxed);
    }

    /// Sets a flag; returns whether it was not set before.
    fn set(&self, flag: u8) -> bool {
        self.flags.fetch_or(flag, Ordering::Relaxed) & flag == 0
    }

    /// Records a successful call.
    pub(crate) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        if self.consecutive_failures.load(Ordering::Relaxed) != 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
        if self.is_on_probation.load(Ordering::Relaxed) {
            let mut failures = self.failures();
            failures.probation_calls = failures.probation_calls.saturating_sub(1);
            self.is_on_probation.store(failures.probation_calls > 0, Ordering::Relaxed);
        }
        if self.flags.load(Ordering::Relaxed) & UNREACHABLE != 0 {
            self.reached();
        }
    }

    /// Records a failed call. `may_eject` returns whether enough other endpoints remain.
    pub(crate) fn failed(&self, now: Instant, may_eject: impl FnOnce() -> bool) {
        self.failed_total.fetch_add(1, Ordering::Relaxed);
        let consecutive_failures = self.consecutive_failures.fetch_add(1, Ordering::Relaxed) + 1;
        let is_outlier = {
            let mut failures = self.failures();
            failures.window.advance(&self.succeeded, now, WINDOW);
            failures.window.record_failure();
            let is_frequent = failures.window.exceeds(&self.succeeded, CALLS_MIN, FAILURES_PERCENT);
            consecutive_failures >= CONSECUTIVE_FAILURES_MAX || is_frequent || failures.probation_calls > 0
        };
        if is_outlier && self.flags.load(Ordering::Relaxed) & EJECTED == 0 && may_eject() {
            self.eject(now);
        }
    }

    fn eject(&self, now: Instant) {
        let mut failures = self.failures();
        let is_forgiven = failures.ejected_until.is_some_and(|until| now.duration_since(until) >= FORGIVEN_AFTER);
        failures.ejections = if is_forgiven { 1 } else { failures.ejections + 1 };
        let time = EJECTION.saturating_mul(failures.ejections).min(EJECTION_MAX);
        failures.ejected_until = Some(now + time);
        failures.probation_calls = 0;
        self.is_on_probation.store(false, Ordering::Relaxed);
        let (failed, _) = failures.window.counts(&self.succeeded);
        drop(failures);
        if self.set(EJECTED) {
            self.ejected_total.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(service = %self.service, endpoint = %self, ?time, failed, "endpoint is ejected as an outlier");
        }
    }

    /// Records a failed connection. Returns whether the caller must probe the endpoint until it is reachable.
    pub(crate) fn unreachable(&self, problem: &str, now: Instant) -> bool {
        self.unreachable_total.fetch_add(1, Ordering::Relaxed);
        self.failures().unreachable_until = Some(now + UNREACHABLE_TIMEOUT);
        if self.set(UNREACHABLE) {
            tracing::warn!(service = %self.service, endpoint = %self, problem, "endpoint is unreachable");
        }
        !self.is_probed.swap(true, Ordering::AcqRel)
    }

    /// Records a successful connection.
    pub(crate) fn reached(&self) {
        if self.flags.fetch_and(!UNREACHABLE, Ordering::Relaxed) & UNREACHABLE != 0 {
            tracing::info!(service = %self.service, endpoint = %self, "endpoint is reachable again");
        }
    }

    /// Records that the probing task has ended.
    pub(crate) fn probe_ended(&self) {
        self.is_probed.store(false, Ordering::Release);
    }

    /// Sets the health check. Discards the results of a different one.
    pub(super) fn set_check(&self, check: Option<&HealthPlan>) {
        let mut failures = self.failures();
        if failures.check.as_ref() != check {
            failures.check = check.cloned();
            failures.checks_failed = 0;
            self.clear(UNHEALTHY);
        }
    }

    /// Records the result of an active check; `plan.failures` consecutive failures mark the endpoint unhealthy. Results of a replaced plan are
    /// ignored.
    pub(crate) fn record_check(&self, plan: &HealthPlan, result: Result<(), &str>) {
        if self.failures().check.as_ref() != Some(plan) {
            return;
        }
        match result {
            Ok(()) => {
                self.failures().checks_failed = 0;
                self.reached();
                if self.flags.fetch_and(!UNHEALTHY, Ordering::Relaxed) & UNHEALTHY != 0 {
                    tracing::info!(service = %self.service, endpoint = %self, "endpoint passes its health check again");
                }
            }
            Err(problem) => {
                self.checks_failed_total.fetch_add(1, Ordering::Relaxed);
                let failed = {
                    let mut failures = self.failures();
                    failures.checks_failed = failures.checks_failed.saturating_add(1);
                    failures.checks_failed
                };
                if failed >= plan.failures && self.set(UNHEALTHY) {
                    tracing::warn!(service = %self.service, endpoint = %self, problem, failed, "endpoint fails its health check");
                }
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => f.write_str(&self.address),
            Some(ip) => write!(f, "{} ({ip})", self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> (Endpoint, Instant) {
        (Endpoint::new("s", "http://127.0.0.1:1", None), Instant::now())
    }

    #[test]
    fn an_unreachable_endpoint_receives_calls_once_reached_or_after_a_timeout() {
        let (endpoint, now) = endpoint();
        assert!(endpoint.unreachable("refused", now), "the first caller must probe it");
        assert!(!endpoint.unreachable("refused", now));
        assert_eq!(endpoint.state(now), EndpointState::Unreachable);
        endpoint.reached();
        assert_eq!(endpoint.state(now), EndpointState::Up);
        endpoint.unreachable("refused", now);
        assert_eq!(endpoint.state(now + UNREACHABLE_TIMEOUT / 2), EndpointState::Unreachable);
        assert_eq!(endpoint.state(now + UNREACHABLE_TIMEOUT), EndpointState::Up);
    }

    #[test]
    fn consecutive_failures_eject_and_a_success_resets_them() {
        let (endpoint, now) = endpoint();
        for _ in 1..CONSECUTIVE_FAILURES_MAX {
            endpoint.failed(now, || true);
        }
        endpoint.succeeded();
        for _ in 1..CONSECUTIVE_FAILURES_MAX {
            endpoint.failed(now, || true);
        }
        assert_eq!(endpoint.state(now), EndpointState::Up);
        endpoint.failed(now, || true);
        assert_eq!(endpoint.state(now), EndpointState::Ejected);
    }

    #[test]
    fn a_failure_rate_ejects_only_within_the_window() {
        let (endpoint, now) = endpoint();
        let mixed = |at: Instant| {
            for number in 0..=CALLS_MIN {
                if number % 2 == 0 { endpoint.failed(at, || true) } else { endpoint.succeeded() }
            }
        };
        // Failures before the window do not count.
        (1..CONSECUTIVE_FAILURES_MAX).for_each(|_| endpoint.failed(now, || true));
        endpoint.succeeded();
        assert_eq!(endpoint.state(now), EndpointState::Up);
        mixed(now + WINDOW);
        assert_eq!(endpoint.state(now + WINDOW), EndpointState::Ejected);
    }

    #[test]
    fn ejections_grow_until_forgiven_and_one_failure_on_probation_ejects() {
        let (endpoint, mut now) = endpoint();
        let eject = |now| (0..CONSECUTIVE_FAILURES_MAX).for_each(|_| endpoint.failed(now, || true));
        eject(now);
        for ejection in 1..4 {
            assert_eq!(endpoint.state(now + EJECTION * ejection / 2), EndpointState::Ejected, "ejection {ejection}");
            now += EJECTION * ejection;
            assert_eq!(endpoint.state(now), EndpointState::Up);
            endpoint.failed(now, || true);
            assert_eq!(endpoint.state(now), EndpointState::Ejected, "one failure after ejection {ejection}");
        }
        now += EJECTION * 4;
        assert_eq!(endpoint.state(now), EndpointState::Up);
        // Enough successes end the probation: a single failure no longer ejects.
        (0..CONSECUTIVE_FAILURES_MAX).for_each(|_| endpoint.succeeded());
        endpoint.failed(now, || true);
        assert_eq!(endpoint.state(now), EndpointState::Up);
        now += FORGIVEN_AFTER;
        eject(now);
        assert_eq!(endpoint.state(now + EJECTION), EndpointState::Up);
    }

    #[test]
    fn an_endpoint_is_not_ejected_if_too_few_would_remain() {
        let (endpoint, now) = endpoint();
        (0..100).for_each(|_| endpoint.failed(now, || false));
        assert_eq!(endpoint.state(now), EndpointState::Up);
    }

    #[test]
    fn only_consecutive_failed_checks_mark_an_endpoint_unhealthy() {
        let (endpoint, now) = endpoint();
        let second = Duration::from_secs(1);
        let plan = HealthPlan { target: None, every: second, timeout: second, failures: 2 };
        let replaced = HealthPlan { failures: 1, ..plan.clone() };
        endpoint.set_check(Some(&replaced));
        endpoint.set_check(Some(&plan));
        endpoint.record_check(&plan, Err("503"));
        endpoint.record_check(&plan, Ok(()));
        endpoint.record_check(&plan, Err("503"));
        endpoint.record_check(&replaced, Err("503"));
        assert_eq!(endpoint.state(now), EndpointState::Up);
        endpoint.record_check(&plan, Err("503"));
        assert_eq!(endpoint.state(now), EndpointState::Unhealthy);
        endpoint.record_check(&replaced, Ok(()));
        assert_eq!(endpoint.state(now), EndpointState::Unhealthy);
        endpoint.record_check(&plan, Ok(()));
        assert_eq!(endpoint.state(now), EndpointState::Up);
        endpoint.set_check(None);
        endpoint.record_check(&plan, Err("503"));
        endpoint.record_check(&plan, Err("503"));
        assert_eq!(endpoint.state(now), EndpointState::Up);
    }
}
