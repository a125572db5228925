//! The world of a run: events in the order of their times, and what they do to servers, network and disks.

mod clients;
mod disks;
mod faults;
mod network;
mod servers;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use crossdock_zab::{Config, Input, Io, ServerId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::checks::{Applied, Checks};
use crate::faults::{Faults, MILLI, Micros, SECOND};
use crate::network::Network;
use crate::server::{Disk, Server};
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
}

fn id(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}
