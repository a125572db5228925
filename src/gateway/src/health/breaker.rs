//! The circuit breaker of a service.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_routing::BreakerPlan;

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;

/// Closed while calls succeed; open after too many failed, when calls fail at once; half open while probing calls decide.
#[derive(Debug)]
pub(crate) struct Breaker {
    service: String,
    state: AtomicU8,
    succeeded: AtomicU32,
    slow: Mutex<Slow>,
    pub(crate) opened_total: AtomicU64,
}

#[derive(Debug, Default)]
struct Slow {
    window_began: Option<Instant>,
    failed: u32,
    open_until: Option<Instant>,
    probing: u32,
    probed: u32,
}

/// A call that may be made, and whether it is a probe. Dropping a probe without its result gives its place back.
#[derive(Debug)]
pub(crate) struct Admitted<'b> {
    breaker: &'b Breaker,
    is_probe: bool,
}

impl Breaker {
    pub(super) fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            state: AtomicU8::new(CLOSED),
            succeeded: AtomicU32::new(0),
            slow: Mutex::default(),
            opened_total: AtomicU64::new(0),
        }
    }

    fn slow(&self) -> MutexGuard<'_, Slow> {
        self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For people and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => "closed",
            OPEN => "open",
            _ => "half_open",
        }
    }

    /// Lets a call through.
    ///
    /// # Errors
    /// How long none is.
    pub(crate) fn admit(&self, plan: &BreakerPlan, now: Instant) -> Result<Admitted<'_>, Duration> {
        if self.state.load(Ordering::Relaxed) == CLOSED {
            return Ok(Admitted { breaker: self, is_probe: false });
        }
        let mut slow = self.slow();
        if let Some(until) = slow.open_until {
            if now < until {
                return Err(until.duration_since(now));
            }
            slow.open_until = None;
            (slow.probing, slow.probed) = (0, 0);
            self.state.store(HALF_OPEN, Ordering::Relaxed);
            tracing::info!(service = %self.service, probes = plan.probes, "circuit breaker is half open");
        }
        if self.state.load(Ordering::Relaxed) == HALF_OPEN && slow.probing + slow.probed >= plan.probes {
            // Others decide.
            return Err(plan.open);
        }
        let is_probe = self.state.load(Ordering::Relaxed) == HALF_OPEN;
        slow.probing += u32::from(is_probe);
        drop(slow);
        Ok(Admitted { breaker: self, is_probe })
    }

    fn open(&self, slow: &mut Slow, plan: &BreakerPlan, now: Instant) {
        slow.open_until = Some(now + plan.open);
        slow.window_began = None;
        self.state.store(OPEN, Ordering::Relaxed);
        self.opened_total.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(service = %self.service, failed = slow.failed, open = ?plan.open, "circuit breaker is open");
    }
}

impl Admitted<'_> {
    /// How the call ended.
    pub(crate) fn finish(mut self, failed: bool, plan: &BreakerPlan, now: Instant) {
        let breaker = self.breaker;
        if std::mem::take(&mut self.is_probe) {
            let mut slow = breaker.slow();
            slow.probing = slow.probing.saturating_sub(1);
            if breaker.state.load(Ordering::Relaxed) != HALF_OPEN {
                return;
            }
            if failed {
                breaker.open(&mut slow, plan, now);
                return;
            }
            slow.probed += 1;
            if slow.probed >= plan.probes {
                slow.window_began = None;
                breaker.state.store(CLOSED, Ordering::Relaxed);
                tracing::info!(service = %breaker.service, "circuit breaker is closed");
            }
            return;
        }
        if !failed {
            breaker.succeeded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut slow = breaker.slow();
        if slow.window_began.is_none_or(|began| now.duration_since(began) >= plan.window) {
            slow.window_began = Some(now);
            slow.failed = 0;
            breaker.succeeded.store(0, Ordering::Relaxed);
        }
        slow.failed += 1;
        let calls = slow.failed.saturating_add(breaker.succeeded.load(Ordering::Relaxed));
        let is_too_many = calls >= plan.calls_min && slow.failed.saturating_mul(100) >= calls * plan.failures_percent;
        if is_too_many && breaker.state.load(Ordering::Relaxed) == CLOSED {
            breaker.open(&mut slow, plan, now);
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.is_probe {
            let mut slow = self.breaker.slow();
            slow.probing = slow.probing.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: BreakerPlan = BreakerPlan {
        failures_percent: 50,
        calls_min: 10,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        probes: 2,
    };

    fn calls(breaker: &Breaker, failed: bool, count: u32, now: Instant) {
        for _ in 0..count {
            breaker.admit(&PLAN, now).expect("it is closed").finish(failed, &PLAN, now);
        }
    }

    #[test]
    fn it_opens_at_its_rate_and_not_below_its_calls() {
        let (breaker, now) = (Breaker::new("s"), Instant::now());
        calls(&breaker, true, PLAN.calls_min - 1, now);
        assert_eq!(breaker.name(), "closed");
        calls(&breaker, true, 1, now);
        assert_eq!(breaker.name(), "open");
        assert_eq!(breaker.admit(&PLAN, now).expect_err("it is open"), PLAN.open);
        let other = Breaker::new("s");
        calls(&other, true, 1, now);
        calls(&other, false, 60, now);
        calls(&other, true, 50, now);
        assert_eq!(other.name(), "closed");
    }

    #[test]
    fn probes_decide() {
        let (breaker, now) = (Breaker::new("s"), Instant::now());
        calls(&breaker, true, PLAN.calls_min, now);
        let later = now + PLAN.open;
        let (first, second) =
            (breaker.admit(&PLAN, later).expect("a probe"), breaker.admit(&PLAN, later).expect("a probe"));
        assert!(breaker.admit(&PLAN, later).is_err(), "no more than that");
        drop(first);
        let third = breaker.admit(&PLAN, later).expect("its place was given back");
        second.finish(false, &PLAN, later);
        assert_eq!(breaker.name(), "half_open");
        third.finish(true, &PLAN, later);
        assert_eq!(breaker.name(), "open");
        let last = later + PLAN.open;
        for _ in 0..PLAN.probes {
            breaker.admit(&PLAN, last).expect("a probe").finish(false, &PLAN, last);
        }
        assert_eq!(breaker.name(), "closed");
        calls(&breaker, false, 100, last);
    }
}
