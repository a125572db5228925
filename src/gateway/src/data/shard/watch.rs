//! Tasks that find out whether endpoints can be used: active checks, and probes of those that could not be reached.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::ShardState;

/// From one probe of an unreachable endpoint to the next, at first and after a while.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_LATE: Duration = Duration::from_secs(5);
const PROBES_EARLY: u32 = 30;
/// For one probe, besides the connect timeout of the adapter.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Identifies each task that runs checks.
static CHECKERS: AtomicU64 = AtomicU64::new(0);

impl ShardState {
    /// Runs the active checks of the service, for as long as somebody holds this and no other data arbiter runs them.
    pub(super) fn start_checks(self: &Rc<Self>) {
        let Some(plan) = self.share.plan.health.clone() else { return };
        let (state, who) = (Rc::downgrade(self), CHECKERS.fetch_add(1, Ordering::Relaxed));
        actix_rt::spawn(async move {
            loop {
                let Some(state) = state.upgrade() else { return };
                if state.share.health.claim_checks(who, plan.every, Instant::now()) {
                    let checks = state.ports.iter().zip(&state.share.health.endpoints).map(async |(port, endpoint)| {
                        let checked = tokio::time::timeout(plan.timeout, port.check(plan.target.as_deref())).await;
                        match &checked {
                            Ok(Ok(())) => endpoint.checked(&plan, Ok(())),
                            Ok(Err(fault)) => endpoint.checked(&plan, Err(&fault.message)),
                            Err(_) => endpoint.checked(&plan, Err("no answer in time")),
                        }
                    });
                    join_all(checks).await;
                }
                drop(state);
                tokio::time::sleep(plan.every).await;
            }
        });
    }

    /// Probes an endpoint until it can be reached, so that no call has to.
    pub(super) fn watch(self: &Rc<Self>, endpoint: usize) {
        let health = Arc::clone(&self.share.health.endpoints[endpoint]);
        let state = Rc::downgrade(self);
        actix_rt::spawn(async move {
            probe_until_reached(&state, endpoint).await;
            health.unwatched();
        });
    }
}

async fn probe_until_reached(state: &Weak<ShardState>, endpoint: usize) {
    for probe in 0_u32.. {
        tokio::time::sleep(if probe < PROBES_EARLY { PROBE_INTERVAL } else { PROBE_INTERVAL_LATE }).await;
        let Some(state) = state.upgrade() else { return };
        let health = &state.share.health.endpoints[endpoint];
        match tokio::time::timeout(PROBE_TIME, state.ports[endpoint].probe()).await {
            Ok(Ok(())) => {
                health.reached();
                return;
            }
            Ok(Err(fault)) => drop(health.unreachable(&fault.message, Instant::now())),
            Err(_) => drop(health.unreachable("no answer in time", Instant::now())),
        }
    }
}
