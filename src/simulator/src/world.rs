//! The simulated world: executes events in the order of their times.

mod clients;
mod disks;
mod faults;
mod lies;
mod network;
mod servers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use crossdock_zab::{Config, Input, LogId, Membership, Message, ServerId, Write, WriteId};
use rand::Rng;

use crate::checks::{Applied, Checks};
use crate::faults::{Faults, MILLI, Micros, SECOND};
use crate::network::Network;
use crate::scenario::{FAULT_TIME, Occurrence, Scenario, Stream, rng_for};
use crate::server::{Disk, Server};
use crate::{Plan, Report};

/// Maximum number of trace lines.
const TRACE_LEN_MAX: usize = 2000;
/// How long the servers may take to converge after the faults.
const HEAL_TIME: Micros = 30 * SECOND;

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
        number: u32,
    },
    Progress {
        connection: usize,
        end: usize,
    },
    /// A part of the log on disk is read.
    LogRead {
        server: usize,
        incarnation: u64,
        input: Box<Input>,
    },
    /// A snapshot, sent from that end, has arrived.
    SnapshotArrives {
        connection: usize,
        from: usize,
        message: Box<Message>,
    },
    /// The inputs that wait in the inbox are handled.
    Take {
        server: usize,
        incarnation: u64,
    },
    Written {
        server: usize,
        incarnation: u64,
        id: WriteId,
    },
    /// A fault or request, by its number.
    Occurs {
        number: u32,
        what: Occurrence,
    },
    Unblock {
        ways: Vec<(usize, usize)>,
    },
}

pub(crate) struct World {
    seed: u64,
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
    /// The numbers of the crashes that interrupt a server's nth write.
    crashes_in_write: BTreeMap<(usize, u32), u32>,
    /// Pairs of servers that stay disconnected after the faults.
    apart: Vec<(usize, usize)>,
    /// The faults have ended, and the cluster has to converge.
    healing: bool,
    checks: Checks,
    blobs: Vec<Applied>,
    links: u64,
    /// The number of lost logs so far.
    logs: u64,
    requests: u64,
    /// A violation that was found while a server stopped.
    problem: Option<String>,
    trace: Option<VecDeque<String>>,
    pub(crate) report: Report,
    /// The numbers of the faults and requests that happened.
    pub(crate) happened: BTreeSet<u32>,
}

type StepResult = Result<(), String>;

impl World {
    pub(crate) fn new(plan: &Plan, trace: bool) -> Self {
        let scenario = Scenario::draw(plan);
        let servers = scenario.drift.iter().enumerate().map(|(index, drift)| Server {
            rng: rng_for(plan.seed, Stream::Server(index)),
            zab: None,
            incarnation: 0,
            disk: Disk::new(log_of(index, 0), scenario.forms),
            lost: Vec::new(),
            skew: 977 * index as u64 % 4_001,
            writes: 0,
            applied: Applied::default(),
            tick: (20 * MILLI).saturating_add_signed(20 * drift),
            paused_until: 0,
            lies_until: 0,
            inbox: Vec::new(),
            requests: BTreeMap::new(),
            proposed: BTreeMap::new(),
            ready: Vec::new(),
        });
        let mut servers: Vec<Server> = servers.collect();
        let voters = (0..scenario.voters).map(|index| (id(index), log_of(index, 0)));
        let first = Arc::new(Membership::first(voters.collect()));
        if !scenario.forms {
            for server in &mut servers {
                let form = Write::Form(Arc::clone(&first));
                server.disk.log_state.apply(&form).expect("a new log");
                server.disk.full.apply(&form).expect("a new log");
            }
        }
        let mut this = Self {
            seed: plan.seed,
            now: 0,
            number: 0,
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            servers,
            voters: scenario.voters,
            config: scenario.config,
            network: Network::default(),
            faults: scenario.faults,
            crashes_in_write: scenario.crashes_in_write,
            apart: scenario.apart,
            healing: false,
            checks: Checks::of(first),
            blobs: Vec::new(),
            links: 0,
            logs: 0,
            requests: 0,
            problem: None,
            trace: trace.then(VecDeque::new),
            report: Report::default(),
            happened: BTreeSet::new(),
        };
        let (voters, observers) = (scenario.voters, scenario.observers);
        this.note(|| format!("{voters} voters, {observers} observers, seed {}", plan.seed));
        for server in 0..this.servers.len() {
            let after = this.servers[server].rng.random_range(0..50 * MILLI);
            this.at(after, Event::Start { server });
        }
        for (number, (at, what)) in scenario.occurrences {
            this.at(at, Event::Occurs { number, what });
        }
        this
    }

    /// Executes both phases: faults, then healing until all servers agree.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        while self.now < FAULT_TIME {
            self.step()?;
        }
        self.heal();
        let mut until = self.now + HEAL_TIME;
        let settle = self.now + SECOND;
        while self.now < settle || !self.has_converged() {
            if self.now > until && self.connect_if_nobody_is_electable() {
                self.report.unelectable += 1;
                until = self.now + HEAL_TIME;
            }
            if self.now > until {
                let seconds = HEAL_TIME / SECOND;
                return Err(format!(
                    "liveness: {seconds} s after the faults, servers disagree or requests are unanswered"
                ));
            }
            self.step()?;
        }
        self.report.apart = usize::from(!self.apart.is_empty());
        self.report.changes = self.checks.changes;
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

    fn step(&mut self) -> StepResult {
        let Some(Reverse((time, _, slot))) = self.queue.pop() else { return Err("no event is left".to_owned()) };
        self.now = time;
        self.report.steps += 1;
        if let Some(problem) = self.problem.take() {
            return Err(problem);
        }
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
                let clock = self.now / MILLI + self.servers[server].skew;
                self.input(server, Input::Now(clock))?;
                self.input(server, Input::Tick)
            }
            Event::Disk { server, incarnation } if self.servers[server].incarnation == incarnation => self.disk(server),
            Event::Take { server, incarnation } if self.servers[server].incarnation == incarnation => self.take(server),
            Event::Written { server, incarnation, id } if self.servers[server].incarnation == incarnation => {
                self.input(server, Input::Written(id))
            }
            Event::LogRead { server, incarnation, input } if self.servers[server].incarnation == incarnation => {
                self.input(server, *input)
            }
            Event::LogRead { .. } => Ok(()),
            Event::Tick { .. } | Event::Disk { .. } | Event::Take { .. } | Event::Written { .. } => Ok(()),
            Event::Deliver { connection, end } => self.deliver(connection, end),
            Event::Up { connection, end } => {
                let it = &mut self.network.connections[connection];
                let (server, peer, link) = (it.ends[end], it.ends[1 - end], it.links[end]);
                let log = it.logs[1 - end];
                if !it.lives || self.servers[server].zab.is_none() {
                    return Ok(());
                }
                it.is_up[end] = true;
                self.input(server, Input::LinkUp { peer: id(peer), link, log })
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
            Event::CrashInWrite { server, incarnation, number } => {
                if self.servers[server].incarnation == incarnation && !self.healing {
                    self.happened.insert(number);
                    self.stop(server);
                    let after = self.servers[server].rng.random_range(MILLI..20 * MILLI);
                    self.at(after, Event::Start { server });
                }
                Ok(())
            }
            Event::Progress { connection, end } => self.progress(connection, end),
            Event::SnapshotArrives { connection, from, message } => {
                self.snapshot_arrives(connection, from, *message);
                Ok(())
            }
            Event::Occurs { number, what } => {
                self.happened.insert(number);
                let rng = rng_for(self.seed, Stream::Occurrence(number));
                match what {
                    Occurrence::Request => self.request(rng),
                    Occurrence::Fault(fault) => self.fault(fault, rng),
                }
            }
            // What is blocked after the faults stays blocked.
            Event::Unblock { .. } if self.healing => Ok(()),
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
            | Event::LogRead { server, .. }
            | Event::Written { server, .. } => Some(*server),
            Event::Deliver { connection, end }
            | Event::Progress { connection, end }
            | Event::Up { connection, end }
            | Event::Down { connection, end } => Some(self.network.connections[*connection].ends[*end]),
            _ => None,
        }
    }
}

/// The nth log of a server.
fn log_of(server: usize, nth: u64) -> LogId {
    LogId((server as u64 + 1) << 16 | nth)
}

fn id(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}
