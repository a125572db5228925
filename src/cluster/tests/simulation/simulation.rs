//! One simulation from its beginning to its end.

use std::time::Duration;

use crossdock_cluster::platform::simulated::{Crash, World};
use crossdock_cluster::{InjectedBug, RequestError};
use tokio::time::timeout;

use crate::clients::Clients;
use crate::faults;
use crate::servers::{Plan, Servers};

/// How long it may take until everything works after the last fault.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a simulation has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<String>,
    /// A hash of everything that has happened.
    pub(crate) trace: u64,
    pub(crate) writes: usize,
    pub(crate) reads: usize,
    pub(crate) snapshots: u64,
    pub(crate) simulated: Duration,
}

/// Runs the simulation of a seed.
pub(crate) fn simulate(seed: u64, bug: Option<InjectedBug>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let world = World::new(seed, bug);
        let plan = Plan::draw(&world);
        world.note(&format!("{plan:?}"));
        let servers = Servers::new(world.clone(), plan);
        for id in servers.plan.ids() {
            servers.start(id).await;
        }
        let clients = Clients::start(&servers);
        faults::cause(&servers).await;
        expect_recovery(&servers, &clients, None).await;
        if servers.plan.servers > 1 && world.below(3) == 0 {
            // What stays connected goes on without one of them.
            let id = 1 + world.below(servers.plan.servers);
            world.note(&format!("isolate {id}"));
            world.isolate(id);
            expect_recovery(&servers, &clients, Some(id)).await;
            world.heal();
            expect_recovery(&servers, &clients, None).await;
        }
        if world.violated().is_none() {
            clients.stop(&servers).await;
            compare(&servers).await;
        }
        let snapshots = servers.plan.ids().filter_map(|id| servers.status(id));
        let snapshots = snapshots.map(|status| status.activity.snapshots.saved).sum();
        for id in servers.plan.ids() {
            if world.violated().is_none() {
                servers.shut_down(id).await;
            } else {
                servers.crash(id, Crash::Process);
            }
        }
        world.ended().await;
        let (writes, reads) = servers.record.counts();
        let simulated = Duration::from_millis(world.now());
        Outcome { violation: world.violated(), trace: world.trace(), writes, reads, snapshots, simulated }
    })
}

/// All instances, but for one, must work together in time. A follower can only catch up if it writes faster than commands
/// come, so the load is reduced and the disks become fast after a while.
async fn expect_recovery(servers: &Servers, clients: &Clients, without: Option<u64>) {
    let world = &servers.world;
    for limit in [RECOVERY_TIMEOUT, 2 * RECOVERY_TIMEOUT] {
        if world.violated().is_some() || timeout(limit, recover(servers, without)).await.is_ok() {
            return;
        }
        clients.slow_down();
        servers.plan.ids().for_each(|id| world.set_sync_time(id, 0));
    }
    let statuses: Vec<_> = servers.plan.ids().map(|id| servers.status(id)).collect();
    world.violation(&format!("the instances without {without:?} do not recover: {statuses:?}"));
}

/// Waits until these instances work together, each with its own log, and take commands.
async fn recover(servers: &Servers, without: Option<u64>) {
    loop {
        for id in servers.down().await {
            servers.start(id).await;
        }
        if without.is_none() {
            servers.settle().await;
            servers.add_voters();
            servers.settle().await;
        }
        if servers.is_whole_without(without) && take_commands(servers, without).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn take_commands(servers: &Servers, without: Option<u64>) -> bool {
    for id in servers.plan.ids().filter(|id| Some(*id) != without) {
        let Some(replica) = servers.replica(id) else { return false };
        if replica.barrier().await.is_err() || replica.open_client().await.is_err() {
            return false;
        }
    }
    true
}

/// All instances have the same state, with everything that was answered.
async fn compare(servers: &Servers) {
    for id in servers.plan.ids() {
        let Some(replica) = servers.replica(id) else {
            servers.world.violation(&format!("instance {id} is gone in the end"));
            continue;
        };
        match replica.read().await {
            Ok(view) => {
                let order = servers.record.order();
                if !view.all.iter().eq(order.iter()) {
                    let (found, known) = (view.all.len(), order.len());
                    servers.world.violation(&format!("instance {id} has {found} commands in the end, of {known}"));
                }
            }
            // It may have stopped for a reason that says more.
            Err(RequestError::Ended) if !servers.down().await.is_empty() => {
                servers.world.violation(&format!("instance {id} ends without faults"));
            }
            Err(problem) => servers.world.violation(&format!("instance {id} cannot be read in the end: {problem}")),
        }
    }
}
