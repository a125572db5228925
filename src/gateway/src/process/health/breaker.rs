//! The circuit breaker of a service.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossdock_routing::BreakerPlan;

use super::window::Window;

const CLOSED: u8 = 0;
const OPEN: u8 = 1;
const HALF_OPEN: u8 = 2;

/// Closed: calls are admitted. Open, after too many failures: calls are rejected. Half open: a few probe calls decide.
#[derive(Debug)]
pub(crate) struct Breaker {
    service: String,
    state: AtomicU8,
    succeeded: AtomicU32,
    guarded: Mutex<Guarded>,
    pub(crate) opened_total: AtomicU64,
}

#[derive(Debug, Default)]
struct Guarded {
    window: Window,
    open_until: Option<Instant>,
    probes_in_flight: u32,
    probes_succeeded: u32,
    /// Incremented with each round of probes, so that late probes of an earlier round are ignored.
    round: u64,
    /// When a new round starts, even if probes are still in flight.
    probes_until: Option<Instant>,
}

/// An admitted call, which may be a probe. Dropping a probe without a result frees its slot.
#[derive(Debug)]
pub(crate) struct BreakerPermit<'b> {
    breaker: &'b Breaker,
    /// The round of the probe.
    probe: Option<u64>,
}

impl Breaker {
    pub(super) fn new(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            state: AtomicU8::new(CLOSED),
            succeeded: AtomicU32::new(0),
            guarded: Mutex::default(),
            opened_total: AtomicU64::new(0),
        }
    }

    fn guarded(&self) -> MutexGuard<'_, Guarded> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the state, for metrics and the API.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.state.load(Ordering::Relaxed) {
            CLOSED => "closed",
            OPEN => "open",
            _ => "half_open",
        }
    }

    /// Admits a call.
    ///
    /// # Errors
    /// If the breaker is open: how long calls are still rejected.
    pub(crate) fn admit(&self, plan: &BreakerPlan, now: Instant) -> Result<BreakerPermit<'_>, Duration> {
        if self.state.load(Ordering::Relaxed) == CLOSED {
            return Ok(BreakerPermit { breaker: self, probe: None });
        }
        let mut guarded = self.guarded();
        if let Some(until) = guarded.open_until {
            if now < until {
                return Err(until.duration_since(now));
            }
            guarded.open_until = None;
            Self::start_round(&mut guarded, plan, now);
            self.state.store(HALF_OPEN, Ordering::Relaxed);
            tracing::info!(service = %self.service, probes = plan.probes, "circuit breaker is half open");
        }
        if self.state.load(Ordering::Relaxed) != HALF_OPEN {
            return Ok(BreakerPermit { breaker: self, probe: None });
        }
        if guarded.probes_in_flight + guarded.probes_succeeded >= plan.probes {
            // A probe may be a long stream; do not wait for it.
            match guarded.probes_until {
                Some(until) if now < until => return Err(until.duration_since(now)),
                _ => Self::start_round(&mut guarded, plan, now),
            }
        }
        guarded.probes_in_flight += 1;
        Ok(BreakerPermit { breaker: self, probe: Some(guarded.round) })
    }

    fn start_round(guarded: &mut Guarded, plan: &BreakerPlan, now: Instant) {
        (guarded.probes_in_flight, guarded.probes_succeeded) = (0, 0);
        guarded.round += 1;
        guarded.probes_until = Some(now + plan.open);
    }

    fn open(&self, guarded: &mut Guarded, plan: &BreakerPlan, now: Instant) {
        guarded.open_until = Some(now + plan.open);
        let (failed, calls) = guarded.window.counts(&self.succeeded);
        guarded.window = Window::default();
        self.succeeded.store(0, Ordering::Relaxed);
        self.state.store(OPEN, Ordering::Relaxed);
        self.opened_total.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(service = %self.service, failed, calls, open = ?plan.open, "circuit breaker is open");
    }
}

impl BreakerPermit<'_> {
    /// Records the result of the call. If it implies nothing about the service, drop the permit instead.
    pub(crate) fn finish(mut self, failed: bool, plan: &BreakerPlan, now: Instant) {
        let breaker = self.breaker;
        if let Some(round) = self.probe.take() {
            let mut guarded = breaker.guarded();
            if guarded.round != round || breaker.state.load(Ordering::Relaxed) != HALF_OPEN {
                return;
            }
            guarded.probes_in_flight = guarded.probes_in_flight.saturating_sub(1);
            if failed {
                breaker.open(&mut guarded, plan, now);
                return;
            }
            guarded.probes_succeeded += 1;
            if guarded.probes_succeeded >= plan.probes {
                breaker.state.store(CLOSED, Ordering::Relaxed);
                tracing::info!(service = %breaker.service, "circuit breaker is closed");
            }
            return;
        }
        if !failed {
            breaker.succeeded.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut guarded = breaker.guarded();
        guarded.window.advance(&breaker.succeeded, now, plan.window);
        guarded.window.record_failure();
        let is_over_limit = guarded.window.exceeds(&breaker.succeeded, plan.calls_min, plan.failures_percent);
        if is_over_limit && breaker.state.load(Ordering::Relaxed) == CLOSED {
            breaker.open(&mut guarded, plan, now);
        }
    }
}

impl Drop for BreakerPermit<'_> {
    fn drop(&mut self) {
        if let Some(round) = self.probe {
            let mut guarded = self.breaker.guarded();
            if guarded.round == round {
                guarded.probes_in_flight = guarded.probes_in_flight.saturating_sub(1);
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
    fn it_opens_at_the_failure_rate_but_not_below_the_minimum_of_calls() {
        let (breaker, now) = (Breaker::new("s"), Instant::now());
        calls(&breaker, true, PLAN.calls_min - 1, now);
        assert_eq!(breaker.state_name(), "closed");
        calls(&breaker, true, 1, now);
        assert_eq!(breaker.state_name(), "open");
        assert_eq!(breaker.admit(&PLAN, now).expect_err("it is open"), PLAN.open);
        let other = Breaker::new("s");
        calls(&other, true, 1, now);
        calls(&other, false, 60, now);
        calls(&other, true, 50, now);
        assert_eq!(other.state_name(), "closed");
    }

    #[test]
    fn probes_close_or_reopen_it_and_late_probes_are_ignored() {
        let (breaker, now) = (Breaker::new("s"), Instant::now());
        calls(&breaker, true, PLAN.calls_min, now);
        let later = now + PLAN.open;
        let (first, second) =
            (breaker.admit(&PLAN, later).expect("a probe"), breaker.admit(&PLAN, later).expect("a probe"));
        assert!(breaker.admit(&PLAN, later).is_err(), "the number of probes is limited");
        let much_later = later + PLAN.open;
        let third = breaker.admit(&PLAN, much_later).expect("a new round does not wait for probes in flight");
        drop(third);
        let (first, second) = {
            first.finish(true, &PLAN, much_later);
            second.finish(true, &PLAN, much_later);
            assert_eq!(breaker.state_name(), "half_open", "late probes are ignored");
            (breaker.admit(&PLAN, much_later).expect("a probe"), breaker.admit(&PLAN, much_later).expect("a probe"))
        };
        drop(first);
        let third = breaker.admit(&PLAN, later).expect("its slot was freed");
        second.finish(false, &PLAN, later);
        assert_eq!(breaker.state_name(), "half_open");
        third.finish(true, &PLAN, later);
        assert_eq!(breaker.state_name(), "open");
        let last = later + PLAN.open;
        for _ in 0..PLAN.probes {
            breaker.admit(&PLAN, last).expect("a probe").finish(false, &PLAN, last);
        }
        assert_eq!(breaker.state_name(), "closed");
        calls(&breaker, false, 100, last);
    }
}
