//! The world of all instances of a simulation, and what goes wrong in it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::context::{Context, enter, in_instance};
use super::disk::Disk;
use super::files::closed;
use super::network::Network;
use super::random::Random;
use crate::injected_bug::InjectedBug;

/// How an instance crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; the others learn it, and the system writes what it has.
    Process,
    /// The machine loses power: what was not synced may be lost, and nobody is told.
    Power,
}

/// A run of an instance.
#[derive(Default)]
struct Run {
    tasks: Vec<AbortHandle>,
    /// Tasks that wait until it runs again, if it is paused.
    paused: Option<Vec<Waker>>,
}

/// The state of the world.
pub(super) struct State {
    pub(super) random: Random,
    pub(super) network: Network,
    pub(super) bug: Option<InjectedBug>,
    disks: BTreeMap<u64, Disk>,
    /// The current run of each server.
    current: BTreeMap<u64, u64>,
    last_run: u64,
    runs: BTreeMap<u64, Run>,
    clock_leads: BTreeMap<u64, u64>,
    /// A hash of everything that has happened.
    trace: u64,
    violation: Option<String>,
    is_shown: bool,
}

/// The world of a simulation. Clones are the same world.
#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    began: Instant,
}

impl State {
    pub(super) fn disk(&mut self, server: u64) -> &mut Disk {
        self.disks.entry(server).or_default()
    }

    pub(super) fn clock_lead(&self, server: u64) -> u64 {
        self.clock_leads.get(&server).copied().unwrap_or(0)
    }

    pub(super) fn draw_latency(&mut self) -> u64 {
        let most = self.network.latency;
        self.random.below(most + 1)
    }

    pub(super) fn is_alive(&self, context: &Context) -> bool {
        self.current.get(&context.server) == Some(&context.run)
    }

    /// Whether a task may run now. If not, it is woken once it may.
    pub(super) fn may_run(&mut self, context: &Context, waker: &Waker) -> bool {
        if !self.is_alive(context) {
            return false;
        }
        match self.runs.get_mut(&context.run).and_then(|run| run.paused.as_mut()) {
            Some(paused) => {
                paused.push(waker.clone());
                false
            }
            None => true,
        }
    }

    pub(super) fn add_task(&mut self, context: &Context, task: AbortHandle) {
        let run = self.runs.entry(context.run).or_default();
        run.tasks.retain(|task| !task.is_finished());
        run.tasks.push(task);
    }

    /// Adds something to the trace.
    pub(super) fn note(&mut self, now: u64, what: &str, bytes: &[u8]) {
        let sum = crc32c::crc32c_append(crc32c::crc32c(what.as_bytes()), bytes);
        if self.is_shown {
            println!("{now} {what} {} {sum:08x}", bytes.len());
        }
        for value in [now, u64::from(sum), bytes.len() as u64] {
            self.trace = (self.trace ^ value).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Performs an operation on a disk; the power may fail instead.
    pub(super) fn operate<T>(
        &mut self,
        context: &Context,
        (now, name): (u64, &str),
        operation: impl FnOnce(&mut Disk, &mut Random) -> io::Result<T>,
    ) -> io::Result<T> {
        if !self.is_alive(context) {
            return Err(closed());
        }
        let power_fails_at = self.disk(context.server).power_fails_at.as_mut();
        if let Some((_, left)) = power_fails_at.filter(|(at, _)| at.is_empty() || *at == name) {
            if *left == 0 {
                self.crash(now, context.server, Crash::Power);
                return Err(closed());
            }
            *left -= 1;
        }
        self.note(now, name, &context.server.to_le_bytes());
        let disk = self.disks.entry(context.server).or_default();
        operation(disk, &mut self.random)
    }

    fn crash(&mut self, now: u64, server: u64, crash: Crash) {
        let Some(run) = self.current.remove(&server) else { return };
        self.note(now, &format!("{crash:?}"), &server.to_le_bytes());
        let disk = self.disks.entry(server).or_default();
        match crash {
            Crash::Process => disk.close_all(),
            Crash::Power => disk.lose_power(&mut self.random),
        }
        self.network.crashed(server, crash == Crash::Power);
        for task in self.runs.get(&run).iter().flat_map(|run| &run.tasks) {
            task.abort();
        }
    }
}

impl World {
    /// A world without instances, in a runtime whose clock is paused.
    #[must_use]
    pub fn new(seed: u64, bug: Option<InjectedBug>) -> Self {
        let state = State {
            random: Random::new(seed),
            network: Network::default(),
            bug,
            disks: BTreeMap::new(),
            current: BTreeMap::new(),
            last_run: 0,
            runs: BTreeMap::new(),
            clock_leads: BTreeMap::new(),
            trace: 0,
            violation: None,
            is_shown: std::env::var_os("CROSSDOCK_TRACE").is_some(),
        };
        Self { state: Arc::new(Mutex::new(state)), began: Instant::now() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since it began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.began + Duration::from_millis(millis)
    }

    /// Starts another run of a server by a function, unless the server runs or its last run has not ended.
    pub fn start<T>(&self, server: u64, start: impl FnOnce() -> T) -> T {
        let context = {
            let mut state = self.lock();
            state.last_run += 1;
            let run = state.last_run;
            state.runs.insert(run, Run::default());
            state.current.insert(server, run);
            state.network.started(server);
            Context { world: self.clone(), server, run }
        };
        let _entered = enter(context);
        start()
    }

    /// Runs a future as a task of a server that runs; it does not end if that has crashed.
    pub async fn run_in<F: Future + Send>(&self, server: u64, future: F) -> F::Output {
        let Some(run) = self.run_of(server) else { return std::future::pending().await };
        let task = {
            let _entered = enter(Context { world: self.clone(), server, run });
            in_instance(future)
        };
        task.await
    }

    /// The number of the current run of a server.
    #[must_use]
    pub fn run_of(&self, server: u64) -> Option<u64> {
        self.lock().current.get(&server).copied()
    }

    /// Whether a server runs. It may have crashed by itself.
    #[must_use]
    pub fn is_up(&self, server: u64) -> bool {
        self.lock().current.contains_key(&server)
    }

    /// Waits until all tasks of servers that do not run have ended.
    pub async fn ended(&self) {
        loop {
            let is_over = {
                let mut state = self.lock();
                let current: Vec<u64> = state.current.values().copied().collect();
                state
                    .runs
                    .retain(|run, found| current.contains(run) || found.tasks.iter().any(|task| !task.is_finished()));
                state.runs.keys().all(|run| current.contains(run))
            };
            if is_over {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Crashes a server.
    pub fn crash(&self, server: u64, crash: Crash) {
        let now = self.now();
        self.lock().crash(now, server, crash);
    }

    /// Waits until all tasks of a server that is ending have ended, and takes it for ended.
    pub async fn stopped(&self, server: u64) {
        loop {
            {
                let mut state = self.lock();
                let Some(run) = state.current.get(&server).copied() else { return };
                let tasks = state.runs.get(&run).map(|run| run.tasks.as_slice()).unwrap_or_default();
                if tasks.iter().all(AbortHandle::is_finished) {
                    state.current.remove(&server);
                    state.disk(server).close_all();
                    state.network.crashed(server, false);
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The power of a server fails at a file operation of this name, any if it is empty, after so many others of it.
    pub fn lose_power_at(&self, server: u64, operation: &'static str, others: u64) {
        self.lock().disk(server).power_fails_at = Some((operation, others));
    }

    /// The next sync of a server fails.
    pub fn fail_sync(&self, server: u64) {
        self.lock().disk(server).fails_sync = true;
    }

    /// A part of the next snapshot that a server receives is stored with a wrong bit.
    pub fn damage_received(&self, server: u64) {
        self.lock().disk(server).damages_received = true;
    }

    /// The disk of a server fails no more.
    pub fn calm_down(&self, server: u64) {
        self.lock().disk(server).calm_down();
    }

    /// The disk of a server, which does not run, is replaced by an empty one.
    pub fn wipe(&self, server: u64) {
        self.lock().disk(server).wipe();
    }

    /// Sets the maximum duration of a sync.
    pub fn set_sync_time(&self, server: u64, millis: u64) {
        self.lock().disk(server).sync_millis = millis;
    }

    /// Sets the maximum latency of all connections.
    pub fn set_latency(&self, millis: u64) {
        self.lock().network.latency = millis;
    }

    /// Sets how far the clock of a server is ahead.
    pub fn set_clock_lead(&self, server: u64, millis: u64) {
        self.lock().clock_leads.insert(server, millis);
    }

    /// Stops the tasks of a server, as if its process were suspended.
    pub fn pause(&self, server: u64) {
        let mut state = self.lock();
        if let Some(run) = state.current.get(&server).copied() {
            state.runs.entry(run).or_default().paused.get_or_insert_default();
        }
    }

    /// Lets a server run again.
    pub fn resume(&self, server: u64) {
        let paused = {
            let mut state = self.lock();
            let run = state.current.get(&server).copied();
            run.and_then(|run| state.runs.get_mut(&run)?.paused.take())
        };
        paused.into_iter().flatten().for_each(Waker::wake);
    }

    /// What a server sends reaches another one only after it is [healed](Self::heal).
    pub fn cut(&self, from: u64, to: u64) {
        self.lock().network.cut(from, to);
    }

    /// Connects all servers.
    pub fn heal(&self) {
        let now = self.now();
        self.lock().network.heal(now);
    }

    /// Breaks the connections between two servers, and loses what is on its way.
    pub fn break_connections(&self, one: u64, other: u64) {
        self.lock().network.break_off(one, other);
    }

    /// A number below a limit.
    #[must_use]
    pub fn below(&self, limit: u64) -> u64 {
        self.lock().random.below(limit)
    }

    /// Adds an event of the simulation itself to the trace.
    pub fn note(&self, what: &str) {
        let now = self.now();
        self.lock().note(now, what, &[]);
    }

    /// Records that something must not happen; only the first time counts.
    pub fn violation(&self, what: &str) {
        let now = self.now();
        self.lock().violation.get_or_insert(format!("{what}, after {now} ms"));
    }

    /// What should not have happened.
    #[must_use]
    pub fn violated(&self) -> Option<String> {
        self.lock().violation.clone()
    }

    /// A hash of everything that has happened: the same for the same seed.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }
}
