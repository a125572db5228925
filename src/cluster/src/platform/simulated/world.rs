//! The world of all instances of a simulation, and what goes wrong in it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crossdock_zab::{LogId, ServerId};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::context::{Context, enter, in_instance};
use super::files::closed;
use super::network::Network;
use crate::injected_bug::InjectedBug;
use crate::platform::disk::Disk;
use crate::platform::seeded::Random;

/// How an instance crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process ends; the others learn it, and the system writes what it has.
    Process,
    /// The machine loses power: what was not synced may be lost, and the connections just fall silent.
    Power,
}

/// When a task may run.
pub(super) enum Turn {
    Now,
    /// Other tasks that are ready come first.
    AfterOthers,
    /// At this time, in milliseconds.
    At(u64),
    /// It is woken if that changes.
    Never,
}

/// What a task is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The driver.
    Main,
    Other,
}

/// A run of an instance.
#[derive(Default)]
struct Run {
    tasks: Vec<AbortHandle>,
    main: Option<AbortHandle>,
    /// Its tasks without threads of their own do not run before this time, in milliseconds.
    held_up_until: u64,
    /// Tasks that wait until it runs again, if it is paused.
    paused: Option<Vec<Waker>>,
}

/// The state of the world.
pub(super) struct State {
    pub(super) random: Random,
    pub(super) network: Network,
    pub(super) bug: Option<InjectedBug>,
    /// One in so many tasks that are ready gives way to others; 0 if none does.
    disorder: u64,
    disks: BTreeMap<u64, Disk>,
    /// The current run of each server.
    current: BTreeMap<u64, u64>,
    last_run: u64,
    runs: BTreeMap<u64, Run>,
    clock_leads: BTreeMap<u64, u64>,
    /// By run and peer, for an injected bug: the first log of the peer that was not that of the voter.
    pub(super) first_logs: BTreeMap<(u64, ServerId), LogId>,
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

    /// Whether a task may run now, which may have given way to others.
    pub(super) fn turn(
        &mut self,
        context: &Context,
        (now, is_thread, was_late): (u64, bool, bool),
        waker: &Waker,
    ) -> Turn {
        if !self.is_alive(context) {
            return Turn::Never;
        }
        let run = self.runs.entry(context.run).or_default();
        if let Some(paused) = &mut run.paused {
            paused.push(waker.clone());
            return Turn::Never;
        }
        if !is_thread && run.held_up_until > now {
            return Turn::At(run.held_up_until);
        }
        if !was_late && self.disorder > 0 && self.random.one_in(self.disorder) {
            return Turn::AfterOthers;
        }
        Turn::Now
    }

    /// Lets the tasks of an instance run only after this time, but for those with threads of their own.
    pub(super) fn hold_up(&mut self, context: &Context, now: u64, time: Duration) {
        let run = self.runs.entry(context.run).or_default();
        run.held_up_until = run.held_up_until.max(now) + u64::try_from(time.as_millis()).unwrap_or(0);
    }

    pub(super) fn add_task(&mut self, context: &Context, task: AbortHandle, kind: Kind) {
        if !self.is_alive(context) {
            // It has crashed in the middle of this.
            task.abort();
        }
        let run = self.runs.entry(context.run).or_default();
        if kind == Kind::Main {
            run.main = Some(task.clone());
        }
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
        if let Some((_, left)) = power_fails_at.filter(|(at, _)| at.is_none_or(|at| at == name)) {
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
        let is_silent = crash == Crash::Power;
        self.network.crashed(server, is_silent, now, &mut self.random);
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
            disorder: 0,
            disks: BTreeMap::new(),
            current: BTreeMap::new(),
            last_run: 0,
            runs: BTreeMap::new(),
            clock_leads: BTreeMap::new(),
            first_logs: BTreeMap::new(),
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

    /// Starts another run of a server, which must not run, by a function.
    pub fn start<T>(&self, server: u64, start: impl FnOnce() -> T) -> T {
        let context = {
            let mut state = self.lock();
            assert!(!state.current.contains_key(&server), "server {server} runs");
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
    ///
    /// # Panics
    /// They do not.
    pub async fn ended(&self) {
        for _ in 0..1_000_000 {
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
        panic!("tasks of a crashed server do not end");
    }

    /// Whether the driver of a server that is ending has ended. Its threads may still wait for a disk.
    #[must_use]
    pub fn has_driver_ended(&self, server: u64) -> bool {
        let state = self.lock();
        let run = state.current.get(&server).and_then(|run| state.runs.get(run));
        run.and_then(|run| run.main.as_ref()).is_none_or(AbortHandle::is_finished)
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
                    let now = self.now();
                    let State { network, random, .. } = &mut *state;
                    network.crashed(server, false, now, random);
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The power of a server fails at a file operation, one of this name if it is given, after so many others.
    pub fn lose_power_at(&self, server: u64, operation: Option<&'static str>, others: u64) {
        self.lock().disk(server).power_fails_at = Some((operation, others));
    }

    /// The next sync of a server fails.
    pub fn fail_sync(&self, server: u64) {
        self.lock().disk(server).fails_sync = true;
    }

    /// Whether a sync of any file of a server has failed since its last start.
    #[must_use]
    pub fn has_sync_failed(&self, server: u64) -> bool {
        self.lock().disk(server).has_sync_failed
    }

    /// Whether a sync of the log of a server has failed since its last start.
    #[must_use]
    pub fn has_log_failed(&self, server: u64) -> bool {
        self.lock().disk(server).has_log_failed
    }

    /// The disk of a server has no space for another byte, or has again.
    pub fn set_full(&self, server: u64, is_full: bool) {
        self.lock().disk(server).is_full = is_full;
    }

    /// Whether the disk of a server is full.
    #[must_use]
    pub fn is_full(&self, server: u64) -> bool {
        self.lock().disk(server).is_full
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

    /// Lets one in so many tasks that are ready give way to others; 0 if none does.
    pub fn set_disorder(&self, cases: u64) {
        self.lock().disorder = cases;
    }

    /// Holds up everything between a server and all others until it is [healed](Self::heal).
    pub fn isolate(&self, server: u64) {
        let mut state = self.lock();
        let others: Vec<u64> = state.disks.keys().copied().filter(|other| *other != server).collect();
        for other in others {
            state.network.cut(server, other);
            state.network.cut(other, server);
        }
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
