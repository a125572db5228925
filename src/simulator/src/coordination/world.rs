//! The world of a run.

use crossdock_coordination::command::{
    Break, CloseSession, Command, Fate, Join, OpenSession, Revoke, Settle, Settlement, TakeDead, Tick,
};
use crossdock_coordination::{InjectedBug, Operation};
use crossdock_zab::{Epoch, Zxid};
use prost::Message as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::Report;
use super::checks::{Applied, Checks};
use super::client::{Client, LOCKS, Sent, of};
use super::replica::{Entry, Replica};
use super::worker::{Begun, QUEUES};

/// Real time of a run with faults, in milliseconds, and of the time after it.
const FAULTS_MS: u64 = 40_000;
const HEAL_MS: u64 = 120_000;

/// A command on its way to the leader.
struct Flight {
    arrives: u64,
    command: Command,
    from: Option<(usize, Sent)>,
}

pub(super) struct World {
    random: ChaCha8Rng,
    /// Real time in milliseconds.
    now: u64,
    epoch: u32,
    counter: u32,
    /// The wall clock of the leader is ahead by this.
    wall_offset: u64,
    /// Nothing is proposed before that.
    leader_works_at: u64,
    ticked: u64,
    flights: Vec<Flight>,
    log: Vec<Entry>,
    /// It applies each command at once.
    reference: Replica,
    replicas: Vec<Replica>,
    /// Each with the instance that it uses.
    clients: Vec<(Client, usize)>,
    checks: Checks,
    report: Report,
}

impl World {
    pub(super) fn new(seed: u64, bug: Option<InjectedBug>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let replicas = (0..2).map(|_| Replica::new(bug)).collect();
        let count = random.random_range(2..7);
        let clients = (0..count).map(|at| (Client::default(), at % 2)).collect();
        Self {
            now: 0,
            epoch: 1,
            counter: 0,
            wall_offset: 1_700_000_000_000,
            leader_works_at: 0,
            ticked: 0,
            flights: Vec::new(),
            log: Vec::new(),
            reference: Replica::new(bug),
            replicas,
            clients,
            checks: Checks::default(),
            report: Report::default(),
            random,
        }
    }

    pub(super) fn run(mut self) -> Result<Report, String> {
        while self.now < FAULTS_MS {
            self.now += self.random.random_range(0..30);
            self.fault()?;
            self.step(true).map_err(|problem| format!("at {} ms: {problem}", self.now))?;
        }
        // Nobody keeps a session alive, so everything has to end.
        self.flights.clear();
        while self.now < FAULTS_MS + HEAL_MS {
            self.now += self.random.random_range(1..500);
            self.step(false).map_err(|problem| format!("in the end: {problem}"))?;
        }
        self.drain()?;
        while self.catch_up(1, 1_000)? + self.catch_up(0, 1_000)? > 0 {}
        let view = self.reference.state.view();
        if let Some((id, _)) = view.sessions.iter().next() {
            return Err(format!("session {id} never expires"));
        }
        if let Some((name, _)) = view.locks.iter().next() {
            return Err(format!("lock {name} is never released"));
        }
        if let Some((name, queue)) = view.queues.iter().next() {
            return Err(format!("queue {name} with {} messages is left", queue.len()));
        }
        if view.queues.bytes() != 0 {
            return Err(format!("queues of nothing count for {} bytes", view.queues.bytes()));
        }
        if view.next_expiry.is_some() {
            return Err("timers of nothing are left".to_owned());
        }
        Ok(self.report)
    }

    /// One consumer is left, and processes all messages; the dead letters are dropped.
    fn drain(&mut self) -> Result<(), String> {
        self.append(&of(Operation::OpenSession(OpenSession { ttl_ms: 10_000, label: String::new() })), None)?;
        let session = Zxid::new(Epoch(self.epoch), self.counter).to_u64();
        for name in QUEUES {
            let queue = name.to_owned();
            self.append(&of(Operation::Join(Join { session, queue: queue.clone() })), None)?;
            loop {
                let view = self.reference.state.view();
                let slots =
                    view.queues.get(name).into_iter().flat_map(|of| of.slots().iter().map(move |slot| (of, slot)));
                let deliverable = slots.flat_map(|(of, (number, slot))| {
                    of.deliverable(number).map(move |(place, message)| (slot.holder, place.clone(), message.attempts))
                });
                let mut settlements = Vec::new();
                let mut begun = Vec::new();
                for (holder, place, attempts) in deliverable.take(100) {
                    let Some((_, token)) = holder else { return Err("a slot is free".to_owned()) };
                    let (key, position) = (place.key.to_string(), place.position);
                    begun.push(Begun { queue: queue.clone(), place, token });
                    let fate = Some(Fate::Done(bytes::Bytes::new()));
                    settlements.push(Settlement { key, position, attempts, token: token.0, fate });
                }
                if settlements.is_empty() {
                    break;
                }
                for begun in begun {
                    self.checks.queues.received(&begun, &mut self.report)?;
                }
                self.append(&of(Operation::Settle(Settle { session, queue: queue.clone(), settlements })), None)?;
            }
            self.take_dead(name, false)?;
        }
        self.append(&of(Operation::CloseSession(CloseSession { session })), None)
    }

    fn take_dead(&mut self, name: &str, is_replayed: bool) -> Result<(), String> {
        let view = self.reference.state.view();
        let dead = view.queues.get(name).into_iter().flat_map(|queue| queue.dead_letters(0));
        let positions = dead.map(|(position, _)| position).take(1_000).collect();
        self.append(&of(Operation::TakeDead(TakeDead { queue: name.to_owned(), positions, is_replayed })), None)
    }

    fn fault(&mut self) -> Result<(), String> {
        match self.random.random_range(0..4_000) {
            0..=7 => {
                // Nobody leads for a while; the next leader has another wall clock.
                self.now += self.random.random_range(0..4_000);
                self.epoch += 1;
                self.counter = 0;
                let wall_offset = 1_700_000_000_000 + self.random.random_range(0..7_200_000);
                // A leader whose wall clock is behind continues from the last time.
                let last = self.log.last().map_or(0, |last| last.time);
                self.wall_offset = wall_offset.max(last.saturating_sub(self.now));
                self.report.leaders += 1;
            }
            8..=11 => self.leader_works_at = self.now + self.random.random_range(500..15_000),
            12..=40 => {
                let pause = self.random.random_range(500..15_000);
                let at = self.random.random_range(0..self.clients.len());
                self.clients[at].0.paused_until = self.now + pause;
            }
            41..=60 => {
                let at = self.random.random_range(0..self.replicas.len());
                self.replicas[at].restore(&self.reference)?;
                self.report.restored += 1;
                self.resync(at);
            }
            61..=80 => {
                let lock = LOCKS[self.random.random_range(0..LOCKS.len())].to_owned();
                let reason = "simulated".to_owned();
                let operation = match self.random.random_range(0..2) {
                    0 => Operation::Break(Break { lock, reason }),
                    _ => Operation::Revoke(Revoke { lock, reason }),
                };
                self.send(&of(operation), None);
            }
            81..=100 if self.now >= self.leader_works_at => {
                let queue = QUEUES[self.random.random_range(0..QUEUES.len())];
                self.take_dead(queue, true)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn step(&mut self, has_clients: bool) -> Result<(), String> {
        if has_clients {
            for at in 0..self.clients.len() {
                let (client, _) = &mut self.clients[at];
                if self.random.random_ratio(1, 4)
                    && let Some((command, sent)) = client.act(self.now, &mut self.random)
                {
                    self.send(&command, Some((at, sent)));
                }
                while let Some(begun) = self.clients[at].0.worker.take_begun() {
                    self.checks.queues.received(&begun, &mut self.report)?;
                }
            }
        }
        self.tick()?;
        self.propose()?;
        for at in 0..self.replicas.len() {
            if self.random.random_ratio(1, 3) {
                let count = self.random.random_range(1..20);
                self.catch_up(at, count)?;
            }
        }
        Ok(())
    }

    /// Sends a command: it may be lost, late, or arrive twice.
    fn send(&mut self, command: &Command, from: Option<(usize, Sent)>) {
        if self.random.random_ratio(1, 20) {
            return;
        }
        let copies = if self.random.random_ratio(1, 10) { 2 } else { 1 };
        for _ in 0..copies {
            let delay = if self.random.random_ratio(1, 10) { 4_000 } else { 60 };
            let arrives = self.now + self.random.random_range(0..delay);
            self.flights.push(Flight { arrives, command: command.clone(), from });
        }
    }

    /// The leader proposes a tick when something is due, or from time to time. It may arrive late, after it was deposed.
    fn tick(&mut self) -> Result<(), String> {
        let view = self.reference.state.view();
        let is_due = view.next_expiry.is_some_and(|due| due <= view.clock.now());
        if self.now < self.leader_works_at || (self.now < self.ticked + 1_000 && !is_due) {
            return Ok(());
        }
        self.ticked = self.now;
        let tick = of(Operation::Tick(Tick { epoch: self.epoch }));
        if self.random.random_ratio(1, 10) {
            let arrives = self.now + self.random.random_range(0..5_000);
            self.flights.push(Flight { arrives, command: tick, from: None });
            return Ok(());
        }
        self.append(&tick, None)
    }

    fn propose(&mut self) -> Result<(), String> {
        if self.now < self.leader_works_at {
            return Ok(());
        }
        let mut at = 0;
        while at < self.flights.len() {
            if self.flights[at].arrives > self.now {
                at += 1;
                continue;
            }
            let Flight { command, from, .. } = self.flights.swap_remove(at);
            self.append(&command, from)?;
        }
        Ok(())
    }

    /// Appends a command to the log, applies it to the reference, and checks what it does.
    fn append(&mut self, command: &Command, from: Option<(usize, Sent)>) -> Result<(), String> {
        self.counter += 1;
        let zxid = Zxid::new(Epoch(self.epoch), self.counter);
        let time = self.wall_offset + self.now;
        let entry = Entry { zxid, time, payload: command.encode_to_vec().into(), from };
        let before = self.reference.state.view();
        let (outcome, events) = self.reference.apply(&entry);
        let after = self.reference.state.view();
        self.report.commands += 1;
        let applied = Applied {
            now: self.now,
            epoch: self.epoch,
            zxid: zxid.to_u64(),
            command,
            outcome: &outcome,
            events: &events,
            before: &before,
            after: &after,
        };
        self.log.push(entry);
        self.checks.check(&applied, &mut self.report)
    }

    /// Lets an instance apply what it lacks, and tells its clients. Returns how much there was.
    fn catch_up(&mut self, at: usize, count: usize) -> Result<usize, String> {
        let mut has_missed = false;
        let from = self.replicas[at].applied;
        let to = (from + count).min(self.log.len());
        // What was applied together becomes visible together, before anyone is told.
        let applied: Vec<_> = self.log[from..to].iter().map(|entry| self.replicas[at].apply(entry)).collect();
        let view = self.replicas[at].state.view();
        for (entry, (outcome, events)) in self.log[from..to].iter().zip(&applied) {
            if let Some((client, sent)) = entry.from
                && self.clients[client].1 == at
                && !self.random.random_ratio(1, 10)
            {
                self.clients[client].0.answered(entry.zxid, sent, outcome, &view);
            }
            if self.random.random_ratio(1, 200) {
                has_missed = true;
                continue;
            }
            for (client, _) in self.clients.iter_mut().filter(|(_, uses)| *uses == at) {
                for event in events {
                    client.notified(event, &view);
                }
            }
        }
        if has_missed {
            self.resync(at);
        }
        if to == self.log.len() && to > from {
            if !self.replicas[at].equals(&self.reference) {
                return Err(format!("instance {at} has another state"));
            }
            let view = self.replicas[at].state.view();
            let mut mistakes = self.clients.iter().filter(|(_, uses)| *uses == at);
            if let Some(mistake) = mistakes.find_map(|(client, _)| client.mistake(&view)) {
                return Err(mistake);
            }
        }
        Ok(to - from)
    }

    fn resync(&mut self, at: usize) {
        let view = self.replicas[at].state.view();
        for (client, _) in self.clients.iter_mut().filter(|(_, uses)| *uses == at) {
            client.resync(&view);
        }
    }
}
