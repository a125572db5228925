//! What goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use crossdock_cluster::platform::simulated::{Crash, World};
use crossdock_zab::{MemberChange, ServerId};

use crate::servers::Servers;

/// The time of faults in milliseconds.
const FAULTS_MILLIS: u64 = 10_000;
/// Maximum milliseconds between two faults.
const CALM_MILLIS: u64 = 800;
/// Maximum milliseconds of a suspension.
const SUSPENSION_MILLIS: u64 = 3_000;
/// Operations of disks that are rare, and matter.
const RARE_OPERATIONS: [&str; 4] = ["create", "rename", "remove", "sync a folder"];

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ProcessEnds,
    PowerFails,
    /// At any file operation.
    PowerFailsSoon,
    /// Between the steps of what takes several: another segment, a snapshot, a purge.
    PowerFailsBetween,
    AllPowerFails,
    CutOneWay,
    Cut,
    Isolate,
    Heal,
    BreakConnections,
    Suspend,
    FailSync,
    DamageReceived,
    FillDisk,
    SlowDisk,
    ShutDown,
    LoseLog,
    ChangeVoters,
    TransferLeadership,
    SetClock,
}

const ALL: [Fault; 20] = [
    Fault::ProcessEnds,
    Fault::PowerFails,
    Fault::PowerFailsSoon,
    Fault::PowerFailsBetween,
    Fault::AllPowerFails,
    Fault::CutOneWay,
    Fault::Cut,
    Fault::Isolate,
    Fault::Heal,
    Fault::BreakConnections,
    Fault::Suspend,
    Fault::FailSync,
    Fault::DamageReceived,
    Fault::FillDisk,
    Fault::SlowDisk,
    Fault::ShutDown,
    Fault::LoseLog,
    Fault::ChangeVoters,
    Fault::TransferLeadership,
    Fault::SetClock,
];

/// Faults that last.
#[derive(Default)]
struct Lasting {
    /// When suspended instances go on, in milliseconds.
    suspended: BTreeMap<u64, u64>,
    /// The instance that has lost its log.
    lost_log: Option<u64>,
}

/// Lets faults happen for a while.
pub(crate) async fn cause(servers: &Servers) {
    let world = &servers.world;
    // Each simulation has some kinds of faults only.
    let kinds: Vec<Fault> = ALL.into_iter().filter(|_| world.below(2) == 0).collect();
    let mut lasting = Lasting::default();
    while world.now() < FAULTS_MILLIS && world.violated().is_none() {
        tokio::time::sleep(Duration::from_millis(world.below(CALM_MILLIS))).await;
        let now = world.now();
        for (id, _) in lasting.suspended.extract_if(.., |_, until| *until <= now) {
            world.resume(id);
        }
        for id in servers.down().await {
            if world.below(2) == 0 {
                servers.start(id).await;
            }
        }
        let id = 1 + world.below(servers.plan.servers);
        if let Some(fault) = kinds.get(usize::try_from(world.below(kinds.len() as u64)).unwrap_or(0)) {
            world.note(&format!("{fault:?} at {id}"));
            happen(*fault, id, servers, &mut lasting).await;
        }
    }
    calm_down(servers);
}

async fn happen(fault: Fault, id: u64, servers: &Servers, lasting: &mut Lasting) {
    let world = &servers.world;
    let other = 1 + world.below(servers.plan.servers);
    match fault {
        Fault::ProcessEnds => servers.crash(id, Crash::Process),
        Fault::PowerFails => servers.crash(id, Crash::Power),
        Fault::PowerFailsSoon => world.lose_power_at(id, None, world.below(40)),
        Fault::PowerFailsBetween => {
            let operation = RARE_OPERATIONS[usize::try_from(world.below(4)).unwrap_or(0)];
            world.lose_power_at(id, Some(operation), world.below(4));
        }
        Fault::AllPowerFails => servers.plan.ids().for_each(|id| servers.crash(id, Crash::Power)),
        Fault::CutOneWay => world.cut(id, other),
        Fault::Cut => {
            world.cut(id, other);
            world.cut(other, id);
        }
        Fault::Isolate => world.isolate(id),
        Fault::Heal => world.heal(),
        Fault::BreakConnections => world.break_connections(id, other),
        Fault::Suspend => {
            world.pause(id);
            lasting.suspended.insert(id, world.now() + world.below(SUSPENSION_MILLIS));
        }
        Fault::FailSync => world.fail_sync(id),
        Fault::DamageReceived => world.damage_received(id),
        Fault::FillDisk => world.set_full(id, world.below(2) == 0),
        Fault::SlowDisk => world.set_sync_time(id, [0, 100, 500][usize::try_from(world.below(3)).unwrap_or(0)]),
        Fault::ShutDown => servers.shut_down(id).await,
        Fault::LoseLog => lose_log(servers, id, lasting),
        Fault::ChangeVoters => change_voters(servers, id, lasting),
        Fault::TransferLeadership => servers.transfer_leadership(id).await,
        Fault::SetClock => world.set_clock_lead(id, world.below(10_000)),
    }
}

/// Loses the log of an instance if the others can restore it. The one that has lost its log may lose it again.
fn lose_log(servers: &Servers, id: u64, lasting: &mut Lasting) {
    if servers.is_settled() {
        lasting.lost_log = Some(id);
    }
    let Some(id) = lasting.lost_log.filter(|_| servers.plan.servers > 1) else { return };
    servers.crash(id, Crash::Power);
    servers.wipe(id);
}

/// Removes a voter, or adds those that do not vote. Losing a log at the same time would be one failure too many.
fn change_voters(servers: &Servers, id: u64, lasting: &mut Lasting) {
    if servers.is_settled() {
        lasting.lost_log = None;
        servers.change_members(MemberChange::Remove(ServerId(id)));
    } else if lasting.lost_log.is_none() {
        servers.add_voters();
    }
}

/// Ends all faults.
fn calm_down(servers: &Servers) {
    let world: &World = &servers.world;
    world.note("calm");
    world.heal();
    for id in servers.plan.ids() {
        world.resume(id);
        world.calm_down(id);
    }
    servers.plan.set_sync_times(world);
}
