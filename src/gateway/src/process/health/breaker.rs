//! The circuit breaker of a service.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_routing::BreakerPlan;

use super::window::Window;

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
    window: Window,
    open_until: Option<Instant>,
    probing: u32,
    probed: u32,
    /// Told from the rounds before it, so that a late probe of those decides nothing.
    round: u64,
    /// When probes that have not ended are not waited for any more.
    probes_until: Option<Instant>,
}

/// A call that may be made, and whether it is a probe. Dropping a probe without its result gives its place back.
#[derive(Debug)]
pub(crate) struct Admitted<'b> {
    breaker: &'b Breaker,
    /// The round that it is a probe of.
    probe: Option<u64>,
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
            return Ok(Admitted { breaker: self, probe: None });
        }
        let mut slow = self.slow();
        if let Some(until) = slow.open_until {
            if now < until {
                return Err(until.duration_since(now));
            }
            slow.open_until = None;
            Self::begin_round(&mut slow, plan, now);
            self.state.store(HALF_OPEN, Ordering::Relaxed);
            tracing::info!(service = %self.service, probes = plan.probes, "circuit breaker is half open");
        }
        if self.state.load(Ordering::Relaxed) != HALF_OPEN {
            return Ok(Admitted { breaker: self, probe: None });
        }
        if slow.probing + slow.probed >= plan.probes {
            // A probe may last as long as a stream; others are not to wait for it.
            match slow.probes_until {
                Some(until) if now < until => return Err(until.duration_since(now)),
                _ => Self::begin_round(&mut slow, plan, now),
            }
        }
        slow.probing += 1;
        Ok(Admitted { breaker: self, probe: Some(slow.round) })
    }

    fn begin_round(slow: &mut Slow, plan: &BreakerPlan, now: Instant) {
        (slow.probing, slow.probed) = (0, 0);
        slow.round += 1;
        slow.probes_until = Some(now + plan.open);
    }

    fn open(&self, slow: &mut Slow, plan: &BreakerPlan, now: Instant) {
        slow.open_until = Some(now + plan.open);
        let (failed, calls) = slow.window.counts(&self.succeeded);
        slow.window = Window::default();
        self.succeeded.store(0, Ordering::Relaxed);
        self.state.store(OPEN, Ordering::Relaxed);
        self.opened_total.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(service = %self.service, failed, calls, open = ?plan.open, "circuit breaker is open");
    }
}

impl Admitted<'_> {
    /// How the call ended. One that says nothing of the service is dropped instead.
    pub(crate) fn finish(mut self, failed: bool, plan: &BreakerPlan, now: Instant) {
        let breaker = self.breaker;
        if let Some(round) = self.probe.take() {
            let mut slow = breaker.slow();
            if slow.round != round || breaker.state.load(Ordering::Relaxed) != HALF_OPEN {
                return;
            }
            slow.probing = slow.probing.saturating_sub(1);
            if failed {
                breaker.open(&mut slow, plan, now);
                return;
            }
            slow.probed += 1;
            if slow.probed >= plan.probes {
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
        slow.window.move_to(&breaker.succeeded, now, plan.window);
        slow.window.failed();
        let is_too_many = slow.window.fails(&breaker.succeeded, plan.calls_min, plan.failures_percent);
        if is_too_many && breaker.state.load(Ordering::Relaxed) == CLOSED {
            breaker.open(&mut slow, plan, now);
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some(round) = self.probe {
            let mut slow = self.breaker.slow();
            if slow.round == round {
                slow.probing = slow.probing.saturating_sub(1);
            }
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
        let much_later = later + PLAN.open;
        let third = breaker.admit(&PLAN, much_later).expect("those that have not ended are not waited for");
        drop(third);
        let (first, second) = {
            first.finish(true, &PLAN, much_later);
            second.finish(true, &PLAN, much_later);
            assert_eq!(breaker.name(), "half_open", "late probes decide nothing");
            (breaker.admit(&PLAN, much_later).expect("a probe"), breaker.admit(&PLAN, much_later).expect("a probe"))
        };
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
