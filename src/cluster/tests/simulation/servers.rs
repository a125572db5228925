//! The instances of a simulation.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossdock_cluster::platform::simulated::{Crash, World};
use crossdock_cluster::{Limits, MachineId, Machines, Member, Node, Replica, Settings, Status, Stopped, wal};
use crossdock_zab::{LogId, MemberChange, Role, ServerId};
use tokio::task::JoinHandle;

use crate::journal::Journal;
use crate::record::Record;

const JOURNAL: MachineId = MachineId(1);
/// How long an instance is waited for that ends.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a suspended instance is waited for.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// What one simulation differs in from others.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The instances, of which all vote.
    pub(crate) servers: u64,
    pub(crate) segment_len: u64,
    pub(crate) snapshot_every: u64,
    /// Bytes per second.
    pub(crate) snapshot_rate: u64,
    pub(crate) outcome_timeout: Duration,
    /// Maximum bytes of a command.
    pub(crate) padding: u64,
    /// The time that a batch of commands takes to apply.
    pub(crate) takes: Duration,
    /// Bytes of a command in a snapshot, beside what it says.
    pub(crate) snapshot_padding: usize,
    /// Maximum milliseconds of a sync, by instance.
    pub(crate) sync_millis: BTreeMap<u64, u64>,
    pub(crate) limits: Limits,
}

impl Plan {
    pub(crate) fn draw(world: &World) -> Self {
        let one_of = |choices: &[u64]| choices[usize::try_from(world.below(choices.len() as u64)).unwrap_or(0)];
        world.set_latency(one_of(&[0, 1, 3, 10]));
        world.set_disorder(one_of(&[0, 2, 5]));
        let size = |choices: &[u64]| usize::try_from(one_of(choices)).unwrap_or(usize::MAX);
        let limits = Limits::default();
        let limits = match world.below(3) {
            0 => limits,
            // Few commands reach them.
            _ => Limits {
                commands: size(&[4_000, 20_000, 1 << 20]),
                reserved_commands: size(&[4_000, 1 << 20]),
                log: size(&[20_000, 200_000, 1 << 20]),
                behind: size(&[4_000, 20_000, 1 << 20]),
                behind_max: size(&[20_000, 1 << 20]),
                messages: size(&[300, 2_000, 20_000]),
            },
        };
        let mut plan = Self {
            servers: one_of(&[1, 3, 3, 3, 3, 5]),
            segment_len: one_of(&[8, 16, 64, 64]) << 10,
            snapshot_every: one_of(&[8, 15, 40, 200]),
            snapshot_rate: one_of(&[200_000, 1 << 20, 64 << 20]),
            outcome_timeout: Duration::from_millis(one_of(&[500, 3_000, 10_000])),
            padding: one_of(&[20, 200, 1_500]),
            takes: Duration::from_millis(one_of(&[0, 0, 0, 3, 30])),
            snapshot_padding: size(&[0, 0, 100, 1_000]),
            sync_millis: BTreeMap::new(),
            limits,
        };
        for server in plan.ids() {
            // Each segment takes several syncs. Followers must write what they lack at more than some 100 kB/s.
            let choices: &[u64] = if plan.segment_len < 64 << 10 { &[0, 2] } else { &[0, 2, 10, 30] };
            plan.sync_millis.insert(server, one_of(choices));
            world.set_clock_lead(server, one_of(&[0, 0, 50, 5_000]));
        }
        plan.set_sync_times(world);
        plan
    }

    /// Gives each disk its usual speed.
    pub(crate) fn set_sync_times(&self, world: &World) {
        for (server, millis) in &self.sync_millis {
            world.set_sync_time(*server, *millis);
        }
    }

    pub(crate) fn ids(&self) -> RangeInclusive<u64> {
        1..=self.servers
    }
}

/// A running instance.
struct Running {
    node: Node,
    replica: Replica<Journal>,
}

/// The instances of a simulation. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    pub(crate) record: Record,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
    /// The logs of instances that have started since they lost theirs.
    logs: Arc<Mutex<BTreeMap<u64, LogId>>>,
    /// Changes of the voters whose outcome is not known yet.
    changes: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Servers {
    pub(crate) fn new(world: World, plan: Plan) -> Self {
        let record = Record::new(world.clone());
        Self { world, plan, record, running: Arc::default(), logs: Arc::default(), changes: Arc::default() }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<u64, LogId>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self, id: u64) -> Settings {
        let member = |id: u64| {
            let port = 7_000 + u16::try_from(id).unwrap_or(0);
            (ServerId(id), Member { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into(), votes: true })
        };
        let members = self.plan.ids().map(member).collect();
        let mut settings = Settings::new("simulated", ServerId(id), members, PathBuf::from("/data"));
        // An instance that finds no log must not take that for its first start.
        settings.create = !self.logs().contains_key(&id);
        settings.limits = self.plan.limits;
        settings.log = wal::Options { segment_len: self.plan.segment_len };
        settings.snapshot_every = self.plan.snapshot_every;
        settings.snapshot_rate = self.plan.snapshot_rate;
        settings.outcome_timeout = self.plan.outcome_timeout;
        settings
    }

    /// Starts an instance that does not run.
    pub(crate) async fn start(&self, id: u64) {
        self.world.ended().await;
        self.world.note(&format!("start {id}"));
        let settings = self.settings(id);
        let mut machines = Machines::new();
        let journal = Journal::new(id, self.record.clone(), &self.plan);
        let started = self.world.start(id, || {
            let published = machines.add(JOURNAL, journal);
            let node = Node::start(&settings, machines)?;
            let replica = node.replica(&published);
            Ok::<_, crossdock_cluster::StartError>(Running { node, replica })
        });
        match started {
            Ok(running) => {
                let log = running.replica.status().log;
                let before = *self.logs().entry(id).or_insert(log);
                if before != log {
                    self.world.violation(&format!("instance {id} starts with log {log}, not {before}"));
                }
                self.running().insert(id, running);
            }
            // The power failed while it started.
            Err(_) if !self.world.is_up(id) => {}
            Err(_) if self.world.has_sync_failed(id) || self.world.is_full(id) => {
                self.world.crash(id, Crash::Process);
            }
            Err(problem) => {
                self.world.crash(id, Crash::Process);
                let problem = crossdock_cluster::with_causes(&problem);
                self.world.violation(&format!("instance {id} cannot start: {problem}"));
            }
        }
    }

    /// Crashes an instance.
    pub(crate) fn crash(&self, id: u64, crash: Crash) {
        self.world.crash(id, crash);
        self.note_crashes();
    }

    /// Replaces the disk of an instance, which does not run, by an empty one.
    pub(crate) fn wipe(&self, id: u64) {
        self.world.wipe(id);
        self.logs().remove(&id);
    }

    /// Asks an instance to transfer leadership, if it leads.
    pub(crate) async fn transfer_leadership(&self, id: u64) {
        if let Some(replica) = self.replica(id) {
            let asked = replica.transfer_leadership(None);
            // It may be suspended.
            let _ = tokio::time::timeout(ASK_TIMEOUT, asked).await;
        }
    }

    /// Drops what is left of instances that do not run any more.
    fn note_crashes(&self) {
        let gone = self.running().extract_if(.., |id, _| !self.world.is_up(*id)).collect::<Vec<_>>();
        drop(gone);
    }

    /// Ends an instance in order.
    pub(crate) async fn shut_down(&self, id: u64) {
        let running = self.running().remove(&id);
        self.world.resume(id);
        if let Some(running) = running {
            // The power may fail meanwhile.
            let ending = self.world.run_in(id, running.node.shut_down());
            let _ = tokio::time::timeout(END_TIMEOUT, ending).await;
        }
        if tokio::time::timeout(END_TIMEOUT, self.world.stopped(id)).await.is_err() {
            if !self.world.has_driver_ended(id) {
                self.world.violation(&format!("instance {id} does not end"));
            }
            // Its process does not wait for what its threads still write.
            self.world.crash(id, Crash::Process);
        }
    }

    /// The users of an instance that runs.
    pub(crate) fn replica(&self, id: u64) -> Option<Replica<Journal>> {
        self.running().get(&id).map(|running| running.replica.clone())
    }

    pub(crate) fn status(&self, id: u64) -> Option<Status> {
        self.replica(id).map(|replica| replica.status())
    }

    /// An instance with a user, drawn from those that run.
    pub(crate) fn draw(&self) -> Option<(u64, Replica<Journal>)> {
        let running = self.running();
        let at = usize::try_from(self.world.below(running.len() as u64)).unwrap_or(0);
        running.iter().nth(at).map(|(id, running)| (*id, running.replica.clone()))
    }

    /// Whether all instances run and have a leader, each with the log that it votes with.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole_without(None)
    }

    /// The same for all but one instance.
    pub(crate) fn is_whole_without(&self, without: Option<u64>) -> bool {
        let ids = self.plan.ids().filter(|id| Some(*id) != without);
        let statuses: Vec<Option<Status>> = ids.map(|id| self.status(id)).collect();
        let follows = |status: &Status| {
            let membership = status.membership.as_ref();
            let votes = membership.is_some_and(|membership| membership.is_voter(status.id, status.log));
            let is_replaced = membership.is_some_and(|membership| !membership.replacing.is_empty());
            !matches!(status.role, Role::Looking) && votes && !is_replaced
        };
        // One that is suspended may not know of a change.
        let memberships = || statuses.iter().map(|status| status.as_ref().map(|status| &status.membership));
        let is_one = memberships().zip(memberships().skip(1)).all(|(one, next)| one == next);
        is_one && statuses.iter().all(|status| status.as_ref().is_some_and(follows))
    }

    /// Whether all instances work together, and no change of the voters is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_whole() && changes.iter().all(JoinHandle::is_finished)
    }

    /// Starts a change of the voters, through any instance. It may fail.
    pub(crate) fn change_members(&self, change: MemberChange) {
        let Some((_, replica)) = self.draw() else { return };
        let world = self.world.clone();
        let changing = tokio::spawn(async move {
            let changed = replica.change_members(change).await;
            world.note(&format!("{change:?}: {changed:?}"));
        });
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(changing);
    }

    /// Waits for the outcomes of all changes.
    pub(crate) async fn settle(&self) {
        let changes = std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner));
        for changing in changes {
            let _ = changing.await;
        }
    }

    /// Adds the instances that do not vote.
    pub(crate) fn add_voters(&self) {
        for id in self.plan.ids() {
            let status = self.draw().map(|(_, replica)| replica.status());
            let membership = status.and_then(|status| status.membership);
            if membership.is_some_and(|membership| !membership.voters.contains_key(&ServerId(id))) {
                self.change_members(MemberChange::Add(ServerId(id)));
            }
        }
    }

    /// Notes instances that have ended by themselves, and checks that they had a reason. Returns those that do not run.
    pub(crate) async fn down(&self) -> Vec<u64> {
        self.note_crashes();
        let stopped: Vec<(u64, Stopped)> = {
            let running = self.running();
            running.iter().filter_map(|(id, running)| Some((*id, running.replica.status().stopped?))).collect()
        };
        for (id, stopped) in stopped {
            let is_explained = match &stopped {
                // The next segment is created twice before that.
                Stopped::Log(problem) if problem.contains("cannot get another segment") => {
                    self.world.has_sync_failed(id)
                }
                Stopped::Log(_) => self.world.has_log_failed(id),
                _ => false,
            };
            if !is_explained {
                self.world.violation(&format!("instance {id} has stopped: {stopped:?}"));
            }
            self.shut_down(id).await;
        }
        self.plan.ids().filter(|id| !self.world.is_up(*id)).collect()
    }
}
