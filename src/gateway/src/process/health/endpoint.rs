//! One endpoint of a service.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_routing::HealthPlan;

use super::window::Window;

/// Why an endpoint gets no calls, as bits of one word: zero is all that a call has to look at.
const UNREACHABLE: u8 = 1;
const UNHEALTHY: u8 = 2;
const EJECTED: u8 = 4;

/// How long an unreachable endpoint gets no calls where nothing probes it.
const UNREACHABLE_TIME: Duration = Duration::from_secs(15);
/// The window over which failed calls are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Failed calls in a row that eject an endpoint.
const IN_A_ROW_MAX: u32 = 5;
/// Calls within the window from which on their failures are a rate, and failures per hundred that eject an endpoint.
const CALLS_MIN: u32 = 20;
const FAILURES_PERCENT: u32 = 25;
/// The first ejection; each further one is as much longer.
const EJECTION: Duration = Duration::from_secs(5);
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Good time after which an earlier ejection does not count any more.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: nothing was sent.
    Unreachable,
    /// The call failed on the serving side.
    Call,
}

/// What an endpoint is to a call, from the best to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It gets calls.
    Up,
    /// It failed more calls than others, and gets none for a time.
    Ejected,
    /// It failed its health check.
    Unhealthy,
    /// No connection can be made to it.
    Unreachable,
}

impl Standing {
    /// For people and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Unhealthy => "unhealthy",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One endpoint, as all data arbiters see it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    service: String,
    /// As the settings have it.
    pub(crate) address: String,
    /// Which of the addresses of its host's name it is.
    pub(crate) ip: Option<IpAddr>,
    flags: AtomicU8,
    succeeded: AtomicU32,
    in_a_row: AtomicU32,
    /// An ejection has ended, and no call may fail for now.
    on_trial: AtomicBool,
    /// Somebody probes it until it can be reached.
    is_watched: AtomicBool,
    slow: Mutex<Slow>,
    pub(crate) unreachable_total: AtomicU64,
    pub(crate) failed_total: AtomicU64,
    pub(crate) ejected_total: AtomicU64,
    pub(crate) checks_failed_total: AtomicU64,
}

/// What only failures look at.
#[derive(Debug)]
struct Slow {
    window: Window,
    unreachable_until: Option<Instant>,
    ejected_until: Option<Instant>,
    /// In a row; how much longer the next one is.
    ejections: u32,
    /// Calls after an ejection of which none may fail.
    trial: u32,
    checks_failed: u32,
    /// What was checked last.
    check: Option<HealthPlan>,
}

impl Endpoint {
    pub(super) fn new(service: &str, address: &str, ip: Option<IpAddr>) -> Self {
        let slow = Slow {
            window: Window::default(),
            unreachable_until: None,
            ejected_until: None,
            ejections: 0,
            trial: 0,
            checks_failed: 0,
            check: None,
        };
        Self {
            service: service.to_owned(),
            address: address.to_owned(),
            ip,
            flags: AtomicU8::new(0),
            succeeded: AtomicU32::new(0),
            in_a_row: AtomicU32::new(0),
            on_trial: AtomicBool::new(false),
            is_watched: AtomicBool::new(false),
            slow: Mutex::new(slow),
            unreachable_total: AtomicU64::new(0),
            failed_total: AtomicU64::new(0),
            ejected_total: AtomicU64::new(0),
            checks_failed_total: AtomicU64::new(0),
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is to a call now; ends what was for a time.
    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags == 0 {
            return Standing::Up;
        }
        let mut slow = self.slow();
        if flags & UNREACHABLE != 0 && slow.unreachable_until.is_some_and(|until| until <= now) {
            self.clear(UNREACHABLE);
        }
        if flags & EJECTED != 0 && slow.ejected_until.is_some_and(|until| until <= now) {
            slow.trial = IN_A_ROW_MAX;
            slow.window = Window::default();
            self.succeeded.store(0, Ordering::Relaxed);
            self.in_a_row.store(0, Ordering::Relaxed);
            self.on_trial.store(true, Ordering::Relaxed);
            self.clear(EJECTED);
            tracing::info!(service = %self.service, endpoint = %self, "endpoint is no longer ejected");
        }
        match self.flags.load(Ordering::Relaxed) {
            0 => Standing::Up,
            flags if flags & UNREACHABLE != 0 => Standing::Unreachable,
            flags if flags & UNHEALTHY != 0 => Standing::Unhealthy,
            _ => Standing::Ejected,
        }
    }

    fn clear(&self, flag: u8) {
        self.flags.fetch_and(!flag, Ordering::Relaxed);
    }

    /// Sets a flag; gives whether that is news.
    fn set(&self, flag: u8) -> bool {
        self.flags.fetch_or(flag, Ordering::Relaxed) & flag == 0
    }

    /// A call succeeded.
    pub(crate) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Ordering::Relaxed);
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        if self.on_trial.load(Ordering::Relaxed) {
            let mut slow = self.slow();
            slow.trial = slow.trial.saturating_sub(1);
            self.on_trial.store(slow.trial > 0, Ordering::Relaxed);
        }
        if self.flags.load(Ordering::Relaxed) & UNREACHABLE != 0 {
            self.reached();
        }
    }

    /// A call failed. `may_eject` says whether enough other endpoints are left.
    pub(crate) fn failed(&self, now: Instant, may_eject: impl FnOnce() -> bool) {
        self.failed_total.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let is_outlier = {
            let mut slow = self.slow();
            slow.window.move_to(&self.succeeded, now, WINDOW);
            slow.window.failed();
            let is_frequent = slow.window.fails(&self.succeeded, CALLS_MIN, FAILURES_PERCENT);
            in_a_row >= IN_A_ROW_MAX || is_frequent || slow.trial > 0
        };
        if is_outlier && self.flags.load(Ordering::Relaxed) & EJECTED == 0 && may_eject() {
            self.eject(now);
        }
    }

    fn eject(&self, now: Instant) {
        let mut slow = self.slow();
        let is_forgiven = slow.ejected_until.is_some_and(|until| now.duration_since(until) >= FORGIVEN);
        slow.ejections = if is_forgiven { 1 } else { slow.ejections + 1 };
        let time = EJECTION.saturating_mul(slow.ejections).min(EJECTION_MAX);
        slow.ejected_until = Some(now + time);
        slow.trial = 0;
        self.on_trial.store(false, Ordering::Relaxed);
        let (failed, _) = slow.window.counts(&self.succeeded);
        drop(slow);
        if self.set(EJECTED) {
            self.ejected_total.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(service = %self.service, endpoint = %self, ?time, failed, "endpoint is ejected as an outlier");
        }
    }

    /// No connection can be made to it. Gives whether the caller is to probe it until there is one.
    pub(crate) fn unreachable(&self, problem: &str, now: Instant) -> bool {
        self.unreachable_total.fetch_add(1, Ordering::Relaxed);
        self.slow().unreachable_until = Some(now + UNREACHABLE_TIME);
        if self.set(UNREACHABLE) {
            tracing::warn!(service = %self.service, endpoint = %self, problem, "endpoint is unreachable");
        }
        !self.is_watched.swap(true, Ordering::AcqRel)
    }

    /// A connection was made to it.
    pub(crate) fn reached(&self) {
        if self.flags.fetch_and(!UNREACHABLE, Ordering::Relaxed) & UNREACHABLE != 0 {
            tracing::info!(service = %self.service, endpoint = %self, "endpoint is reachable again");
        }
    }

    /// Nobody probes it any more.
    pub(crate) fn unwatched(&self) {
        self.is_watched.store(false, Ordering::Release);
    }

    /// How it is checked from now on. What other checks said does not hold any more.
    pub(super) fn checked_by(&self, check: Option<&HealthPlan>) {
        let mut slow = self.slow();
        if slow.check.as_ref() != check {
            slow.check = check.cloned();
            slow.checks_failed = 0;
            self.clear(UNHEALTHY);
        }
    }

    /// Records the result of an active check; `plan.failures` consecutive failures mark the endpoint unhealthy. Results of a replaced plan are
    /// ignored.
    pub(crate) fn checked(&self, plan: &HealthPlan, result: Result<(), &str>) {
        if self.slow().check.as_ref() != Some(plan) {
            return;
        }
        match result {
            Ok(()) => {
                self.slow().checks_failed = 0;
                self.reached();
                if self.flags.fetch_and(!UNHEALTHY, Ordering::Relaxed) & UNHEALTHY != 0 {
                    tracing::info!(service = %self.service, endpoint = %self, "endpoint passes its health check again");
                }
            }
            Err(problem) => {
                self.checks_failed_total.fetch_add(1, Ordering::Relaxed);
                let failed = {
                    let mut slow = self.slow();
                    slow.checks_failed = slow.checks_failed.saturating_add(1);
                    slow.checks_failed
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
    fn an_unreachable_endpoint_gets_calls_again_once_it_is_reached_or_after_a_time() {
        let (endpoint, now) = endpoint();
        assert!(endpoint.unreachable("refused", now), "the first is to watch it");
        assert!(!endpoint.unreachable("refused", now));
        assert_eq!(endpoint.standing(now), Standing::Unreachable);
        endpoint.reached();
        assert_eq!(endpoint.standing(now), Standing::Up);
        endpoint.unreachable("refused", now);
        assert_eq!(endpoint.standing(now + UNREACHABLE_TIME / 2), Standing::Unreachable);
        assert_eq!(endpoint.standing(now + UNREACHABLE_TIME), Standing::Up);
    }

    #[test]
    fn failures_in_a_row_eject_and_successes_between_do_not() {
        let (endpoint, now) = endpoint();
        for _ in 1..IN_A_ROW_MAX {
            endpoint.failed(now, || true);
        }
        endpoint.succeeded();
        for _ in 1..IN_A_ROW_MAX {
            endpoint.failed(now, || true);
        }
        assert_eq!(endpoint.standing(now), Standing::Up);
        endpoint.failed(now, || true);
        assert_eq!(endpoint.standing(now), Standing::Ejected);
    }

    #[test]
    fn a_rate_of_failures_ejects_within_the_window_alone() {
        let (endpoint, now) = endpoint();
        let mixed = |at: Instant| {
            for number in 0..=CALLS_MIN {
                if number % 2 == 0 { endpoint.failed(at, || true) } else { endpoint.succeeded() }
            }
        };
        // Old failures do not make it.
        (1..IN_A_ROW_MAX).for_each(|_| endpoint.failed(now, || true));
        endpoint.succeeded();
        assert_eq!(endpoint.standing(now), Standing::Up);
        mixed(now + WINDOW);
        assert_eq!(endpoint.standing(now + WINDOW), Standing::Ejected);
    }

    #[test]
    fn each_ejection_is_longer_until_it_is_forgiven_and_one_failure_ends_the_trial() {
        let (endpoint, mut now) = endpoint();
        let eject = |now| (0..IN_A_ROW_MAX).for_each(|_| endpoint.failed(now, || true));
        eject(now);
        for ejection in 1..4 {
            assert_eq!(endpoint.standing(now + EJECTION * ejection / 2), Standing::Ejected, "ejection {ejection}");
            now += EJECTION * ejection;
            assert_eq!(endpoint.standing(now), Standing::Up);
            endpoint.failed(now, || true);
            assert_eq!(endpoint.standing(now), Standing::Ejected, "one failure after ejection {ejection}");
        }
        now += EJECTION * 4;
        assert_eq!(endpoint.standing(now), Standing::Up);
        // As many good calls end the trial: then a single failure is one as any other.
        (0..IN_A_ROW_MAX).for_each(|_| endpoint.succeeded());
        endpoint.failed(now, || true);
        assert_eq!(endpoint.standing(now), Standing::Up);
        now += FORGIVEN;
        eject(now);
        assert_eq!(endpoint.standing(now + EJECTION), Standing::Up);
    }

    #[test]
    fn nothing_is_ejected_where_too_few_would_be_left() {
        let (endpoint, now) = endpoint();
        (0..100).for_each(|_| endpoint.failed(now, || false));
        assert_eq!(endpoint.standing(now), Standing::Up);
    }

    #[test]
    fn checks_have_to_fail_in_a_row() {
        let (endpoint, now) = endpoint();
        let second = Duration::from_secs(1);
        let plan = HealthPlan { target: None, every: second, timeout: second, failures: 2 };
        let replaced = HealthPlan { failures: 1, ..plan.clone() };
        endpoint.checked_by(Some(&replaced));
        endpoint.checked_by(Some(&plan));
        endpoint.checked(&plan, Err("503"));
        endpoint.checked(&plan, Ok(()));
        endpoint.checked(&plan, Err("503"));
        endpoint.checked(&replaced, Err("503"));
        assert_eq!(endpoint.standing(now), Standing::Up);
        endpoint.checked(&plan, Err("503"));
        assert_eq!(endpoint.standing(now), Standing::Unhealthy);
        endpoint.checked(&replaced, Ok(()));
        assert_eq!(endpoint.standing(now), Standing::Unhealthy);
        endpoint.checked(&plan, Ok(()));
        assert_eq!(endpoint.standing(now), Standing::Up);
        endpoint.checked_by(None);
        endpoint.checked(&plan, Err("503"));
        endpoint.checked(&plan, Err("503"));
        assert_eq!(endpoint.standing(now), Standing::Up);
    }
}
