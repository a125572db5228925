//! Tasks that find out which endpoints there are and whether they can be used: addresses of host names, active checks, and probes of those
//! that could not be reached.

use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossdock_message::Fault;
use futures_util::future::join_all;
use tokio_util::task::AbortOnDropHandle;

use super::ShardState;
use super::members::Member;
use crate::process::health::Endpoint;

/// From one probe of an unreachable endpoint to the next, at first and after a while.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_LATE: Duration = Duration::from_secs(5);
const PROBES_EARLY: u32 = 30;
/// For one probe, besides the connect timeout of the adapter.
const PROBE_TIME: Duration = Duration::from_secs(5);

/// Identifies each task that runs checks.
static CHECKERS: AtomicU64 = AtomicU64::new(0);

/// An endpoint that is probed by a task, for as long as the task is there.
struct Watched(Arc<Endpoint>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.unwatched();
    }
}

impl ShardState {
    /// Takes endpoints over that come and go, for as long as somebody holds this.
    pub(super) fn follow_endpoints(self: &Rc<Self>) {
        let mut changes = self.share.health.changes();
        let state = Rc::downgrade(self);
        let following = actix_rt::spawn(async move {
            while changes.changed().await.is_ok() {
                let Some(state) = state.upgrade() else { return };
                let current = changes.borrow_and_update().clone();
                state.members.update(&current);
            }
        });
        self.following.replace(Some(AbortOnDropHandle::new(following)));
    }

    /// Runs the active checks of the service, for as long as somebody holds this and no other data arbiter runs them.
    pub(super) fn start_checks(self: &Rc<Self>) {
        let Some(plan) = self.share.plan.health.clone() else { return };
        let (state, who) = (Rc::downgrade(self), CHECKERS.fetch_add(1, Ordering::Relaxed));
        actix_rt::spawn(async move {
            loop {
                let Some(state) = state.upgrade() else { return };
                if state.share.health.claim_checks(who, plan.every, Instant::now()) {
                    let members = state.members.now();
                    let checks = members.iter().map(async |member| {
                        let check = member.port.check(plan.target.as_deref());
                        match &tokio::time::timeout(plan.timeout, check).await {
                            Ok(Ok(())) => member.health.checked(&plan, Ok(())),
                            Ok(Err(fault)) => member.health.checked(&plan, Err(&fault.message)),
                            Err(_) => member.health.checked(&plan, Err("no answer in time")),
                        }
                    });
                    join_all(checks).await;
                }
                drop(state);
                tokio::time::sleep(plan.every).await;
            }
        });
    }

    /// No connection can be made to an endpoint: its host may have moved; and it is probed, so that no call has to.
    pub(super) fn unreachable(&self, member: &Rc<Member>, fault: &Fault, now: Instant) {
        if let Some(name) = self.share.health.name(member.place) {
            name.refresh();
        }
        if !member.health.unreachable(&fault.message, now) {
            return;
        }
        let (watched, member) = (Watched(Arc::clone(&member.health)), Rc::downgrade(member));
        actix_rt::spawn(async move {
            probe_until_reached(&member).await;
            drop(watched);
        });
    }
}

/// Probes an endpoint until it can be reached, or is one no longer.
async fn probe_until_reached(member: &Weak<Member>) {
    for probe in 0_u32.. {
        tokio::time::sleep(if probe < PROBES_EARLY { PROBE_INTERVAL } else { PROBE_INTERVAL_LATE }).await;
        let Some(member) = member.upgrade() else { return };
        match tokio::time::timeout(PROBE_TIME, member.port.probe()).await {
            Ok(Ok(())) => {
                member.health.reached();
                return;
            }
            Ok(Err(fault)) => drop(member.health.unreachable(&fault.message, Instant::now())),
            Err(_) => drop(member.health.unreachable("no answer in time", Instant::now())),
        }
    }
}
