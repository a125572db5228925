//! Lets time pass while this instance leads.

use std::time::Duration;

use crossdock_cluster::{Notice, Replica};
use crossdock_coordination::Operation;
use crossdock_coordination::command::Tick;
use crossdock_zab::{Epoch, Role};
use tokio::time::{Instant, timeout_at};

use crate::engine::{RETRY_INTERVAL, proposal};
use crate::machine::Machine;

/// Maximum time between commands while something can expire: the clock of the state advances by at most two seconds with each.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between ticks, unless more is due than one of them lets expire; and after one that was refused.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// The clock of the state, as it goes on after the last command.
struct Estimate {
    clock: u64,
    at: Instant,
}

impl Estimate {
    fn instant_of(&self, clock: u64) -> Instant {
        self.at + Duration::from_millis(clock.saturating_sub(self.clock))
    }
}

pub(crate) async fn expire(replica: Replica<Machine>) {
    let mut subscription = replica.subscribe();
    let mut role = replica.status().role;
    let mut estimate = Estimate { clock: u64::MAX, at: Instant::now() };
    let mut last_tick = Instant::now();
    // The least time until the next tick.
    let mut pause = MIN_INTERVAL;
    loop {
        let view = replica.view();
        if estimate.clock != view.clock.now() {
            estimate = Estimate { clock: view.clock.now(), at: Instant::now() };
        }
        let next = match (role, view.next_expiry) {
            (Role::Leading(_), Some(next)) => {
                estimate.instant_of(next).min(estimate.at.max(last_tick) + TICK_INTERVAL).max(last_tick + pause)
            }
            // A command tells of the first thing that can expire.
            _ => Instant::now() + TICK_INTERVAL,
        };
        let is_due = match timeout_at(next, subscription.next()).await {
            Ok(Notice::Role(now)) => {
                role = now;
                // Sessions have their full time from the first command of an epoch on.
                true
            }
            Ok(Notice::Missed) => {
                role = replica.status().role;
                true
            }
            Ok(Notice::Ended) => return,
            Ok(Notice::Events(..) | Notice::Restored(_)) => false,
            Err(_) => view.next_expiry.is_some(),
        };
        if let Role::Leading(epoch) = role
            && is_due
        {
            let is_done = tick(&replica, epoch).await;
            // One tick lets a limited number of things expire.
            let view = replica.view();
            let is_more_due = view.next_expiry.is_some_and(|next| next <= view.clock.now());
            last_tick = Instant::now();
            pause = match (is_done, is_more_due) {
                (true, true) => Duration::ZERO,
                (true, false) => MIN_INTERVAL,
                (false, _) => RETRY_INTERVAL,
            };
        }
    }
}

/// Proposes a tick; whether it was executed.
async fn tick(replica: &Replica<Machine>, epoch: Epoch) -> bool {
    let tick = proposal(Operation::Tick(Tick { epoch: epoch.0 })).in_epoch(epoch).reserved();
    let proposed = replica.propose_as(tick).await;
    if let Err(problem) = &proposed {
        // Another leader goes on, or this one at its next attempt.
        tracing::debug!(%problem, %epoch, "tick of coordination not executed");
    }
    proposed.is_ok()
}
