//! Background tasks of a service: they follow changes of its endpoints, run active health checks, and probe unreachable endpoints.

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

/// The interval between probes of an unreachable endpoint, for the first probes and later.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
const PROBE_INTERVAL_LATE: Duration = Duration::from_secs(5);
const PROBES_EARLY: u32 = 30;
/// Timeout for one probe, in addition to the connect timeout of the adapter.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// The next id of a task that runs checks.
static NEXT_CHECKER_ID: AtomicU64 = AtomicU64::new(0);

/// Marks an endpoint as probed for the lifetime of the probing task.
struct ProbeGuard(Arc<Endpoint>);

impl Drop for ProbeGuard {
    fn drop(&mut self) {
        self.0.probe_ended();
    }
}

impl ShardState {
    /// Applies changes of the endpoints, until this state is dropped.
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

    /// Runs the active checks of the service while no other data arbiter does, until this state is dropped.
    pub(super) fn start_checks(self: &Rc<Self>) {
        let Some(plan) = self.share.plan.health.clone() else { return };
        let (state, checker_id) = (Rc::downgrade(self), NEXT_CHECKER_ID.fetch_add(1, Ordering::Relaxed));
        actix_rt::spawn(async move {
            loop {
                let Some(state) = state.upgrade() else { return };
                if state.share.health.claim_checks(checker_id, plan.every, Instant::now()) {
                    let members = state.members.current();
                    let checks = members.iter().map(async |member| {
                        let check = member.port.check(plan.target.as_deref());
                        match &tokio::time::timeout(plan.timeout, check).await {
                            Ok(Ok(())) => member.health.record_check(&plan, Ok(())),
                            Ok(Err(fault)) => member.health.record_check(&plan, Err(&fault.message)),
                            Err(_) => member.health.record_check(&plan, Err("no response in time")),
                        }
                    });
                    join_all(checks).await;
                }
                drop(state);
                tokio::time::sleep(plan.every).await;
            }
        });
    }

    /// Handles a failed connection: resolves the host name again, since the host may have moved, and starts a task that probes the endpoint.
    pub(super) fn unreachable(&self, member: &Rc<Member>, fault: &Fault, now: Instant) {
        if let Some(name) = self.share.health.host_name(member.address_index) {
            name.refresh();
        }
        if !member.health.unreachable(&fault.message, now) {
            return;
        }
        let (guard, member) = (ProbeGuard(Arc::clone(&member.health)), Rc::downgrade(member));
        actix_rt::spawn(async move {
            probe_until_reached(&member).await;
            drop(guard);
        });
    }
}

/// Probes an endpoint until it is reachable or removed.
async fn probe_until_reached(member: &Weak<Member>) {
    for probe in 0_u32.. {
        tokio::time::sleep(if probe < PROBES_EARLY { PROBE_INTERVAL } else { PROBE_INTERVAL_LATE }).await;
        let Some(member) = member.upgrade() else { return };
        match tokio::time::timeout(PROBE_TIMEOUT, member.port.probe()).await {
            Ok(Ok(())) => {
                member.health.reached();
                return;
            }
            Ok(Err(fault)) => drop(member.health.unreachable(&fault.message, Instant::now())),
            Err(_) => drop(member.health.unreachable("no response in time", Instant::now())),
        }
    }
}
