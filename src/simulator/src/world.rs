//! The world of a run: events in the order of their times, and what they do to servers, network and disks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use crossdock_zab::{
    Action, Blob, Config, Input, Io, Link, Message, Request, Role, ServerId, Session, ToFollower, Txn, Zab, Zxid,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checks::{Applied, Checks};
use crate::faults::{Faults, MILLI, Micros, SECOND};
use crate::network::{Connection, Network};
use crate::server::{Asked, Disk, Pending, Server};
use crate::{Options, Report};

/// Lines of a trace that are kept.
const TRACE_LEN_MAX: usize = 400;

#[derive(Debug, Clone)]
enum Event {
    Tick {
        server: usize,
        incarnation: u64,
    },
    Deliver {
        connection: usize,
        end: usize,
    },
    Up {
        connection: usize,
        end: usize,
    },
    Down {
        connection: usize,
        end: usize,
    },
    Connect {
        a: usize,
        b: usize,
    },
    Disk {
        server: usize,
        incarnation: u64,
    },
    Start {
        server: usize,
    },
    CrashInWrite {
        server: usize,
        incarnation: u64,
    },
    /// What waits in the inbox is taken.
    Take {
        server: usize,
        incarnation: u64,
    },
    Written {
        server: usize,
        incarnation: u64,
        io: Io,
    },
    Client,
    Fault(Fault),
    Unblock {
        ways: Vec<(usize, usize)>,
    },
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Crash,
    PowerLoss,
    Pause,
    Cut,
    Partition,
    SlowDisk,
    FailingDisk,
    HandOver,
    Snapshot,
}

pub(crate) struct World {
    rng: ChaCha8Rng,
    now: Micros,
    number: u64,
    queue: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    servers: Vec<Server>,
    voters: usize,
    config: Config,
    network: Network,
    faults: Faults,
    /// No faults any more: the cluster has to come to rest.
    healing: bool,
    checks: Checks,
    blobs: Vec<Applied>,
    links: u64,
    requests: u64,
    /// Proposals, by their payload.
    payloads: u64,
    trace: Option<VecDeque<String>>,
    pub(crate) report: Report,
}

type Stepped = Result<(), String>;

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut faults = Faults::draw(&mut rng);
        let voters = [1, 3, 3, 3, 5][rng.random_range(0..5)];
        let observers = usize::from(rng.random_bool(0.3));
        let ids: BTreeSet<ServerId> = (0..voters).map(|index| ServerId(index as u64 + 1)).collect();
        let mut config = Config::new(ServerId(0), ids);
        config.outstanding_max = rng.random_range(1..100);
        config.sync_batch = rng.random_range(1..20);
        config.retained = rng.random_range(0..40);
        if rng.random_bool(0.3) {
            config.counter_max = rng.random_range(2..60);
        }
        config.planted = options.planted;
        config.chaotic = rng.random_bool(0.4);
        if config.chaotic && rng.random_bool(0.5) {
            // Followers go from one would-be leader to another.
            faults.cut = Some(rng.random_range(15 * MILLI..200 * MILLI));
            faults.partition = Some(rng.random_range(300 * MILLI..2 * SECOND));
        }
        if rng.random_bool(0.3) {
            config.sync_ticks = rng.random_range(10..200);
        }
        let servers = (0..voters + observers).map(|_| {
            let drift = rng.random_range(0..=2 * faults.drift);
            Server {
                zab: None,
                incarnation: 0,
                disk: Disk::default(),
                applied: Applied::default(),
                tick: 20 * MILLI * (1000 + drift - faults.drift) / 1000,
                paused_until: 0,
                inbox: Vec::new(),
                asked: BTreeMap::new(),
                placed: BTreeMap::new(),
                ready: Vec::new(),
            }
        });
        let servers = servers.collect();
        let mut this = Self {
            rng,
            now: 0,
            number: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            servers,
            voters,
            config,
            network: Network::default(),
            faults,
            healing: false,
            checks: Checks::default(),
            blobs: Vec::new(),
            links: 0,
            requests: 0,
            payloads: 0,
            trace: options.trace.then(VecDeque::new),
            report: Report::default(),
        };
        for server in 0..this.servers.len() {
            let after = this.rng.random_range(0..50 * MILLI);
            this.at(after, Event::Start { server });
        }
        this.at(0, Event::Client);
        this.schedule_faults();
        this
    }

    /// Runs both stages: faults, then healing until all servers agree.
    pub(crate) fn run(&mut self, options: &Options) -> Result<(), String> {
        while self.now < options.fault_time {
            self.step()?;
        }
        self.heal();
        let until = self.now + options.heal_time;
        let settle = self.now + SECOND;
        while self.now < settle || !self.is_at_rest() {
            if self.now > until {
                return Err(format!(
                    "liveness: after {} ms without faults the servers do not agree",
                    options.heal_time / MILLI
                ));
            }
            self.step()?;
        }
        self.report.committed = self.checks.order_len();
        self.report.acknowledged = self.checks.acknowledged_count;
        Ok(())
    }

    pub(crate) fn trace(&self) -> Vec<String> {
        self.trace.iter().flatten().cloned().collect()
    }

    fn at(&mut self, after: Micros, event: Event) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[slot] = Some(event);
        self.number += 1;
        self.queue.push(Reverse((self.now + after, self.number, slot)));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE_LEN_MAX {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10.3} {}", self.now as f64 / 1000.0, line()));
        }
    }

    fn chance(&mut self, mean: Micros) -> Micros {
        // Uniform between nothing and twice the mean.
        self.rng.random_range(0..=2 * mean)
    }

    fn schedule_faults(&mut self) {
        let faults = self.faults.clone();
        let kinds = [
            (Fault::Crash, faults.crash),
            (Fault::PowerLoss, faults.power_loss),
            (Fault::Pause, faults.pause),
            (Fault::Cut, faults.cut),
            (Fault::Partition, faults.partition),
            (Fault::SlowDisk, faults.slow_disk),
            (Fault::FailingDisk, faults.failing_disk),
            (Fault::HandOver, faults.hand_over),
            (Fault::Snapshot, faults.snapshot),
        ];
        for (fault, mean) in kinds {
            if let Some(mean) = mean {
                let after = self.chance(mean);
                self.at(after, Event::Fault(fault));
            }
        }
    }

    fn step(&mut self) -> Stepped {
        let Some(Reverse((time, _, slot))) = self.queue.pop() else { return Err("the world stands still".to_owned()) };
        self.now = time;
        self.report.steps += 1;
        let Some(event) = self.events[slot].take() else { return Ok(()) };
        self.free.push(slot);
        if let Some(server) = self.server_of(&event)
            && self.servers[server].paused_until > self.now
        {
            let after = self.servers[server].paused_until - self.now;
            self.at(after, event);
            return Ok(());
        }
        match event {
            Event::Tick { server, incarnation } if self.servers[server].incarnation == incarnation => {
                let tick = self.servers[server].tick;
                self.at(tick, Event::Tick { server, incarnation });
                self.input(server, Input::Tick)
            }
            Event::Disk { server, incarnation } if self.servers[server].incarnation == incarnation => self.disk(server),
            Event::Take { server, incarnation } if self.servers[server].incarnation == incarnation => self.take(server),
            Event::Written { server, incarnation, io } if self.servers[server].incarnation == incarnation => {
                self.input(server, Input::Written(io))
            }
            Event::Tick { .. } | Event::Disk { .. } | Event::Take { .. } | Event::Written { .. } => Ok(()),
            Event::Deliver { connection, end } => self.deliver(connection, end),
            Event::Up { connection, end } => {
                let it = &mut self.network.connections[connection];
                let (server, peer, link) = (it.ends[end], it.ends[1 - end], it.links[end]);
                if !it.lives || self.servers[server].zab.is_none() {
                    return Ok(());
                }
                it.is_up[end] = true;
                self.input(server, Input::LinkUp { peer: id(peer), link })
            }
            Event::Down { connection, end } => {
                let it = &mut self.network.connections[connection];
                let (server, peer, link) = (it.ends[end], it.ends[1 - end], it.links[end]);
                if !std::mem::replace(&mut it.is_up[end], false) {
                    return Ok(());
                }
                self.input(server, Input::LinkDown { peer: id(peer), link })
            }
            Event::Connect { a, b } => {
                self.connect(a, b);
                Ok(())
            }
            Event::Start { server } => self.start(server),
            Event::CrashInWrite { server, incarnation } => {
                if self.servers[server].incarnation == incarnation && !self.healing {
                    self.stop(server);
                    let after = self.rng.random_range(MILLI..20 * MILLI);
                    self.at(after, Event::Start { server });
                }
                Ok(())
            }
            Event::Client => self.client(),
            Event::Fault(fault) => self.fault(fault),
            Event::Unblock { ways } => {
                for way in ways {
                    self.network.blocked.remove(&way);
                }
                Ok(())
            }
        }
    }

    fn server_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Tick { server, .. }
            | Event::Disk { server, .. }
            | Event::Take { server, .. }
            | Event::Written { server, .. } => Some(*server),
            Event::Deliver { connection, end } | Event::Up { connection, end } | Event::Down { connection, end } => {
                Some(self.network.connections[*connection].ends[*end])
            }
            _ => None,
        }
    }

    // ── servers

    fn start(&mut self, server: usize) -> Stepped {
        if self.servers[server].zab.is_some() {
            return Ok(());
        }
        let it = &mut self.servers[server];
        it.incarnation += 1;
        it.applied = it.disk.state();
        it.disk.fails = false;
        let config = Config { id: id(server), ..self.config.clone() };
        let zab = Zab::new(config, it.disk.ledger.clone(), it.applied.zxid);
        let (incarnation, tick, state) = (it.incarnation, it.tick, it.applied);
        it.zab = Some(zab);
        self.note(|| format!("{} starts at {}", server + 1, state.zxid));
        self.checks.restores(state)?;
        let after = self.rng.random_range(0..tick);
        self.at(after, Event::Tick { server, incarnation });
        for other in (0..self.servers.len()).filter(|other| *other != server) {
            let after = self.rng.random_range(MILLI..20 * MILLI);
            self.at(after, Event::Connect { a: server, b: other });
        }
        Ok(())
    }

    fn stop(&mut self, server: usize) {
        let it = &mut self.servers[server];
        if it.zab.take().is_none() {
            return;
        }
        // Of what was begun, a beginning became durable.
        let kept = self.rng.random_range(0..=it.disk.pending.len());
        for _ in 0..kept {
            it.disk.settle(&self.blobs);
        }
        it.disk.pending.clear();
        it.disk.at = 0;
        it.incarnation += 1;
        it.paused_until = 0;
        it.inbox.clear();
        it.asked.clear();
        it.placed.clear();
        it.ready.clear();
        for connection in 0..self.network.connections.len() {
            if self.network.connections[connection].ends.contains(&server) {
                let end = self.network.connections[connection].end_of(server);
                self.network.connections[connection].is_up[end] = false;
                self.network.connections[connection].to[end].clear();
                self.cut(connection);
            }
        }
        self.note(|| format!("{} stops; {kept} of its open writes are durable", server + 1));
    }

    fn input(&mut self, server: usize, input: Input) -> Stepped {
        let it = &mut self.servers[server];
        if it.zab.is_none() {
            return Ok(());
        }
        it.inbox.push(input);
        if self.rng.random_range(0..100) < self.faults.together {
            if it.inbox.len() == 1 {
                let (after, incarnation) = (self.rng.random_range(0..5 * MILLI), it.incarnation);
                self.at(after, Event::Take { server, incarnation });
            }
            return Ok(());
        }
        self.take(server)
    }

    fn take(&mut self, server: usize) -> Stepped {
        let it = &mut self.servers[server];
        let inputs = std::mem::take(&mut it.inbox);
        let Some(zab) = &mut it.zab else { return Ok(()) };
        if inputs.is_empty() {
            return Ok(());
        }
        let before = zab.phase();
        for input in &inputs {
            if let Input::Received { message, .. } = input {
                *self.report.coverage.entry((before, message.kind())).or_default() += 1;
            }
        }
        let mut actions = Vec::new();
        zab.handle(inputs, &mut actions);
        let after = zab.phase();
        if after == "election" && before != "election" {
            Checks::votes_from_disk(zab.ledger(), &it.disk.ledger)?;
        }
        if before != after {
            self.note(|| format!("{} {before} → {after}", server + 1));
        }
        for action in actions {
            self.act(server, action)?;
        }
        Ok(())
    }

    fn act(&mut self, server: usize, action: Action) -> Stepped {
        match action {
            Action::Send { link, message } => self.send(server, link, message),
            Action::SendSnapshot { link, session, zxid } => self.send_snapshot(server, link, session, zxid),
            Action::Persist { io, write, then } => {
                self.note(|| format!("{} writes {}: {write:?}", server + 1, io.0));
                self.servers[server].disk.pending.push_back(Pending { io, write, then });
                if self.servers[server].disk.at == 0 {
                    self.begin_write(server);
                }
                if self.rng.random_range(0..1000) < self.faults.crash_in_write {
                    let after = self.rng.random_range(0..self.faults.disk_max);
                    let incarnation = self.servers[server].incarnation;
                    self.at(after, Event::CrashInWrite { server, incarnation });
                }
            }
            Action::Deliver(txn) => return self.delivered(server, &txn),
            Action::Restore(zxid) => {
                let state = self.servers[server].disk.snapshots[&zxid];
                self.note(|| format!("{} takes the snapshot of {zxid}", server + 1));
                self.servers[server].applied = state;
                return self.checks.restores(state);
            }
            Action::Proposed { request, zxid } => {
                if self.servers[server].asked.contains_key(&request) {
                    self.servers[server].placed.insert(zxid, request);
                }
            }
            Action::Refused { request, .. } => {
                self.servers[server].asked.remove(&request);
            }
            Action::ReadReady { request, zxid } => {
                self.servers[server].ready.push((zxid, request));
                return self.answer_reads(server);
            }
            Action::Became(role) => {
                self.note(|| format!("{} is {role:?}", server + 1));
                if role == Role::Looking {
                    let it = &mut self.servers[server];
                    it.asked.clear();
                    it.placed.clear();
                    it.ready.clear();
                }
                if let Role::Leading(epoch) = role {
                    self.report.epochs += 1;
                    let durable: Vec<_> =
                        self.servers[..self.voters].iter().map(|server| &server.disk.ledger).collect();
                    return self.checks.establishes(id(server), epoch, &durable, self.config.majority());
                }
            }
            Action::Close { link, problem } => {
                self.note(|| format!("{} closes {}: {problem}", server + 1, link.0));
                if problem != "a follower is silent" {
                    return Err(format!("impossible message: {problem}"));
                }
                if let Some(connection) = self.network.of_link(server, link) {
                    self.cut(connection);
                    self.reconnect(connection);
                }
            }
            Action::Stop(fatal) => return Err(format!("{} stops for good: {fatal}", server + 1)),
        }
        Ok(())
    }

    fn delivered(&mut self, server: usize, txn: &Txn) -> Stepped {
        let durable: Vec<_> = self.servers[..self.voters].iter().map(|server| &server.disk.ledger).collect();
        let after = self.servers[server].applied;
        let now = self.checks.delivers(after, txn, &durable, self.config.majority())?;
        self.servers[server].applied = now;
        self.note(|| format!("{} delivers {}", server + 1, txn.zxid));
        if let Some(request) = self.servers[server].placed.remove(&txn.zxid) {
            self.servers[server].asked.remove(&request);
            self.checks.acknowledges(txn.zxid)?;
        }
        self.answer_reads(server)
    }

    fn answer_reads(&mut self, server: usize) -> Stepped {
        let it = &mut self.servers[server];
        let applied = it.applied.zxid;
        let (answered, waiting) = it.ready.drain(..).partition(|(zxid, _)| *zxid <= applied);
        it.ready = waiting;
        let answered: Vec<(Zxid, Request)> = answered;
        for (_, request) in answered {
            if let Some(asked) = it.asked.remove(&request) {
                self.report.reads += 1;
                Checks::reads(asked.done_before, applied)?;
            }
        }
        Ok(())
    }

    // ── disks

    fn begin_write(&mut self, server: usize) {
        let it = &mut self.servers[server];
        if it.disk.pending.is_empty() {
            return;
        }
        // What waits together becomes durable together.
        it.disk.at = it.disk.pending.len();
        let mut after = self.rng.random_range(50..self.faults.disk_max);
        if self.servers[server].disk.slow_until > self.now {
            after += self.rng.random_range(0..SECOND);
        }
        let incarnation = self.servers[server].incarnation;
        self.at(after, Event::Disk { server, incarnation });
    }

    fn disk(&mut self, server: usize) -> Stepped {
        if self.servers[server].disk.fails {
            // It is not known what of it is durable; the process ends.
            self.stop(server);
            let after = self.rng.random_range(100 * MILLI..SECOND);
            self.at(after, Event::Start { server });
            return Ok(());
        }
        let mut last = None;
        let count = std::mem::take(&mut self.servers[server].disk.at);
        for _ in 0..count {
            let Some(done) = self.servers[server].disk.settle(&self.blobs) else { break };
            for (link, message) in done.then {
                self.send(server, link, message);
            }
            last = Some(done.io);
        }
        self.begin_write(server);
        match last {
            Some(io) if self.faults.late > 0 => {
                let incarnation = self.servers[server].incarnation;
                // In their order: a later one says all that an earlier one does.
                let after = self.rng.random_range(0..self.faults.late);
                self.at(after, Event::Written { server, incarnation, io });
                Ok(())
            }
            Some(io) => self.input(server, Input::Written(io)),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self, server: usize) -> Stepped {
        let it = &mut self.servers[server];
        let state = it.applied;
        // A snapshot holds what is durable in the log as well.
        if it.zab.is_none() || state.zxid == Zxid::ZERO || !it.disk.ledger.history().has(state.zxid) {
            return Ok(());
        }
        it.disk.snapshots.insert(state.zxid, state);
        let retained = self.config.retained;
        it.disk.ledger.snapshot_taken(state.zxid, retained, usize::MAX);
        self.input(server, Input::SnapshotTaken(state.zxid))
    }

    // ── network

    fn connect(&mut self, a: usize, b: usize) {
        let both = self.servers[a].zab.is_some() && self.servers[b].zab.is_some();
        let blocked = self.network.blocked.contains(&(a, b)) || self.network.blocked.contains(&(b, a));
        if !both || self.network.between(a, b).is_some() {
            return;
        }
        if blocked {
            let after = self.rng.random_range(10 * MILLI..100 * MILLI);
            self.at(after, Event::Connect { a, b });
            return;
        }
        self.links += 2;
        let links = [Link(self.links - 1), Link(self.links)];
        let ups: [Micros; 2] = std::array::from_fn(|_| self.rng.random_range(100..self.faults.latency_max));
        self.network.connections.push(Connection {
            ends: [a, b],
            links,
            is_up: [false; 2],
            lives: true,
            to: [VecDeque::new(), VecDeque::new()],
            last: [self.now + ups[0], self.now + ups[1]],
        });
        let connection = self.network.connections.len() - 1;
        for (end, after) in ups.into_iter().enumerate() {
            self.at(after, Event::Up { connection, end });
        }
    }

    fn reconnect(&mut self, connection: usize) {
        let [a, b] = self.network.connections[connection].ends;
        let after = self.rng.random_range(MILLI..100 * MILLI);
        self.at(after, Event::Connect { a, b });
    }

    /// Ends a connection. Of what is on its way, a beginning arrives; each end hears of it in its own time.
    fn cut(&mut self, connection: usize) {
        if !std::mem::replace(&mut self.network.connections[connection].lives, false) {
            return;
        }
        for end in 0..2 {
            let waiting = self.network.connections[connection].to[end].len();
            let kept = self.rng.random_range(0..=waiting);
            self.network.connections[connection].to[end].truncate(kept);
            let after = if self.rng.random_bool(0.7) { MILLI } else { self.rng.random_range(0..SECOND) };
            self.at(after, Event::Down { connection, end });
        }
    }

    fn send(&mut self, server: usize, link: Link, message: Message) {
        let Some(connection) = self.network.of_link(server, link) else { return };
        let after = self.rng.random_range(50..self.faults.latency_max);
        let it = &mut self.network.connections[connection];
        let from = it.end_of(server);
        if !it.lives || !it.is_up[from] {
            return;
        }
        let to = 1 - from;
        let arrives = (self.now + after).max(it.last[to]);
        it.last[to] = arrives;
        it.to[to].push_back((arrives, message));
        self.at(arrives - self.now, Event::Deliver { connection, end: to });
    }

    fn send_snapshot(&mut self, server: usize, link: Link, session: Session, zxid: Zxid) {
        let state = if zxid == Zxid::ZERO { Applied::default() } else { self.servers[server].disk.snapshots[&zxid] };
        let blob = Blob(self.blobs.len() as u64);
        self.blobs.push(state);
        self.send(server, link, Message::ToFollower(session, ToFollower::Snapshot { zxid, blob }));
    }

    fn deliver(&mut self, connection: usize, end: usize) -> Stepped {
        let it = &mut self.network.connections[connection];
        let (server, peer, link) = (it.ends[end], it.ends[1 - end], it.links[end]);
        if !it.is_up[end] && it.lives {
            self.at(MILLI, Event::Deliver { connection, end });
            return Ok(());
        }
        if self.network.blocked.contains(&(peer, server)) && it.lives {
            self.at(5 * MILLI, Event::Deliver { connection, end });
            return Ok(());
        }
        // Those that were held back come in their order.
        let Some((_, message)) = it.to[end].pop_front() else { return Ok(()) };
        if !it.is_up[end] {
            return Ok(());
        }
        self.note(|| format!("{} ← {}: {message:?}", server + 1, peer + 1));
        self.input(server, Input::Received { peer: id(peer), link, message })
    }

    // ── clients

    fn client(&mut self) -> Stepped {
        let after = self.chance(self.faults.request);
        self.at(after, Event::Client);
        let server = self.rng.random_range(0..self.servers.len());
        if self.servers[server].zab.is_none() || self.servers[server].paused_until > self.now {
            return Ok(());
        }
        self.requests += 1;
        let request = Request(self.requests);
        let is_read = self.rng.random_bool(0.3);
        let asked = Asked { done_before: self.checks.acknowledged };
        self.servers[server].asked.insert(request, asked);
        if is_read {
            return self.input(server, Input::Read { request });
        }
        self.payloads += 1;
        self.checks.proposes(self.payloads);
        let payload = Bytes::copy_from_slice(&self.payloads.to_le_bytes());
        self.input(server, Input::Propose { request, payload })
    }

    // ── faults

    fn fault(&mut self, fault: Fault) -> Stepped {
        if self.healing {
            return Ok(());
        }
        let mean = match fault {
            Fault::Crash => self.faults.crash,
            Fault::PowerLoss => self.faults.power_loss,
            Fault::Pause => self.faults.pause,
            Fault::Cut => self.faults.cut,
            Fault::Partition => self.faults.partition,
            Fault::SlowDisk => self.faults.slow_disk,
            Fault::FailingDisk => self.faults.failing_disk,
            Fault::HandOver => self.faults.hand_over,
            Fault::Snapshot => self.faults.snapshot,
        };
        let next = self.chance(mean.unwrap_or(SECOND));
        self.at(next, Event::Fault(fault));
        let server = self.rng.random_range(0..self.servers.len());
        match fault {
            Fault::Crash => {
                self.stop(server);
                let after = self.rng.random_range(10 * MILLI..2 * SECOND);
                self.at(after, Event::Start { server });
            }
            Fault::PowerLoss => {
                for server in 0..self.servers.len() {
                    self.stop(server);
                    let after = self.rng.random_range(10 * MILLI..SECOND);
                    self.at(after, Event::Start { server });
                }
            }
            Fault::Pause => {
                let time = self.rng.random_range(10 * MILLI..3 * SECOND);
                self.note(|| format!("{} is paused for {} ms", server + 1, time / MILLI));
                self.servers[server].paused_until = self.now + time;
            }
            Fault::Cut => {
                let living: Vec<usize> =
                    (0..self.network.connections.len()).filter(|at| self.network.connections[*at].lives).collect();
                if !living.is_empty() {
                    let connection = living[self.rng.random_range(0..living.len())];
                    self.note(|| format!("connection {connection} is cut"));
                    self.cut(connection);
                    self.reconnect(connection);
                }
            }
            Fault::Partition => self.partition(server),
            Fault::SlowDisk => {
                let time = self.rng.random_range(100 * MILLI..2 * SECOND);
                self.servers[server].disk.slow_until = self.now + time;
            }
            Fault::FailingDisk => {
                self.note(|| format!("the disk of {} fails", server + 1));
                self.servers[server].disk.fails = true;
            }
            Fault::HandOver => {
                let to = self.rng.random_bool(0.5).then(|| id(self.rng.random_range(0..self.voters)));
                return self.input(server, Input::HandOver(to));
            }
            Fault::Snapshot => return self.snapshot(server),
        }
        Ok(())
    }

    /// Blocks the ways between some servers and the others, both or one.
    fn partition(&mut self, server: usize) {
        let count = self.servers.len();
        let apart: Vec<bool> = (0..count).map(|other| other == server || self.rng.random_bool(0.3)).collect();
        let (one_way, reversed) = (self.rng.random_bool(0.4), self.rng.random_bool(0.5));
        let mut ways = Vec::new();
        for a in 0..count {
            for b in 0..count {
                let crosses = apart[a] != apart[b] && (!one_way || apart[a] == reversed);
                if crosses && self.network.blocked.insert((a, b)) {
                    ways.push((a, b));
                }
            }
        }
        let time = self.rng.random_range(100 * MILLI..3 * SECOND);
        self.note(|| format!("blocked for {} ms: {ways:?}", time / MILLI));
        self.at(time, Event::Unblock { ways });
    }

    fn heal(&mut self) {
        self.note(|| "the faults end".to_owned());
        self.healing = true;
        self.config.chaotic = false;
        self.network.blocked.clear();
        self.faults.latency_max = self.faults.latency_max.min(5 * MILLI);
        self.faults.disk_max = self.faults.disk_max.min(5 * MILLI);
        for server in 0..self.servers.len() {
            let it = &mut self.servers[server];
            if let Some(zab) = &mut it.zab {
                zab.calm();
            }
            it.paused_until = 0;
            it.disk.slow_until = 0;
            it.disk.fails = false;
            self.at(MILLI, Event::Start { server });
            for other in 0..server {
                self.at(200 * MILLI, Event::Connect { a: server, b: other });
            }
        }
    }

    /// Whether all servers are up, agree, and have what clients were told.
    fn is_at_rest(&self) -> bool {
        let roles = || self.servers.iter().filter_map(|server| server.zab.as_ref().map(Zab::role));
        let leaders = roles().filter(|role| matches!(role, Role::Leading(_))).count();
        let settled = roles().filter(|role| *role != Role::Looking).count();
        let applied = self.servers[0].applied;
        leaders == 1
            && settled == self.servers.len()
            && self.checks.order_len() == applied.count
            && self.servers.iter().all(|server| server.applied == applied)
    }
}

fn id(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}
