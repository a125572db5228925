//! What goes wrong.

use std::time::Duration;

use crossdock_cluster::platform::simulated::{Crash, World};
use crossdock_zab::{MemberChange, ServerId};

use crate::servers::Servers;

/// The time of faults in milliseconds.
const FAULTS_MILLIS: u64 = 10_000;
/// The last kind of fault.
const KINDS: u64 = 16;
/// Operations of disks that are rare, and matter.
const RARE_OPERATIONS: [&str; 4] = ["create", "rename", "remove", "sync a folder"];
/// Maximum milliseconds between two faults.
const CALM_MILLIS: u64 = 800;

async fn sleep(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Lets faults happen for a while.
pub(crate) async fn cause(servers: &Servers) {
    let world = &servers.world;
    // Each simulation has some kinds of faults only.
    let kinds: Vec<u64> = (0..=KINDS).filter(|_| world.below(2) == 0).collect();
    let mut lost_log = None;
    while world.now() < FAULTS_MILLIS && world.violated().is_none() {
        sleep(world.below(CALM_MILLIS)).await;
        for id in servers.down().await {
            if world.below(2) == 0 {
                servers.start(id).await;
            }
        }
        let id = 1 + world.below(servers.plan.servers);
        let other = 1 + world.below(servers.plan.servers);
        let Some(kind) = kinds.get(usize::try_from(world.below(kinds.len() as u64)).unwrap_or(0)) else { continue };
        world.note(&format!("fault {kind} at {id}"));
        match kind {
            0 => servers.crash(id, Crash::Process),
            1 => servers.crash(id, Crash::Power),
            2 => world.lose_power_at(id, "", world.below(40)),
            3 => servers.plan.ids().for_each(|id| servers.crash(id, Crash::Power)),
            4 => world.cut(id, other),
            5 => {
                world.cut(id, other);
                world.cut(other, id);
            }
            6 => {
                for other in servers.plan.ids() {
                    world.cut(id, other);
                    world.cut(other, id);
                }
            }
            7 | 8 => world.heal(),
            9 => world.break_connections(id, other),
            10 => {
                world.pause(id);
                sleep(world.below(3_000)).await;
                world.resume(id);
            }
            11 => servers.fail_sync(id),
            12 => world.damage_received(id),
            13 => servers.shut_down(id).await,
            // Between the steps of what takes several: another segment, a snapshot, a purge.
            14 => {
                let operation = RARE_OPERATIONS[usize::try_from(world.below(4)).unwrap_or(0)];
                world.lose_power_at(id, operation, world.below(4));
            }
            15 => lose_log(servers, id, &mut lost_log),
            _ => change_voters(servers, id, &mut lost_log).await,
        }
    }
    calm_down(world, servers);
}

/// Loses the log of an instance if the others can restore it. The one that has lost its log may lose it again.
fn lose_log(servers: &Servers, id: u64, lost_log: &mut Option<u64>) {
    if servers.is_whole() {
        *lost_log = Some(id);
    }
    // Another one may not.
    let Some(id) = lost_log.filter(|_| servers.plan.servers > 1) else { return };
    servers.crash(id, Crash::Power);
    servers.world.wipe(id);
    servers.world.note(&format!("instance {id} has lost its log"));
}

/// Removes a voter, or adds those that do not vote. Losing a log at the same time would be one failure too many.
async fn change_voters(servers: &Servers, id: u64, lost_log: &mut Option<u64>) {
    if servers.is_whole() {
        *lost_log = None;
        servers.change_members(MemberChange::Remove(ServerId(id))).await;
    } else if lost_log.is_none() {
        servers.add_voters().await;
    }
}

/// Ends all faults.
fn calm_down(world: &World, servers: &Servers) {
    world.note("calm");
    world.heal();
    for id in servers.plan.ids() {
        world.resume(id);
        world.calm_down(id);
    }
}
