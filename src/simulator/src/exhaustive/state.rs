//! The state of a cluster: servers, disks and messages in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use crossdock_zab::{
    Action, Config, Input, Link, LogId, LogState, Membership, Message, Request, Role, ServerId, Write, Zab, Zxid,
};

use super::{Scope, Step};
use crate::checks::{Applied, Checks};
use crate::server::Pending;

/// The length of a command in bytes: its number.
const PAYLOAD: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Server {
    zab: Option<Zab>,
    log: LogId,
    disk: LogState,
    /// Writes that are not durable.
    pending: VecDeque<Pending>,
    applied: Applied,
}

/// Something in flight to one end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Arrival {
    Message(Message),
    /// The end of the connection.
    End,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Connection {
    /// The link ids, of the server with the lower number first.
    links: [Link; 2],
    /// What is in flight to each end.
    to: [VecDeque<Arrival>; 2],
    /// A broken connection carries nothing new.
    is_broken: bool,
}

/// The state of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    config: Config,
    servers: Vec<Server>,
    connections: BTreeMap<(usize, usize), Connection>,
    /// The number of connections per pair of servers so far, so that link ids do not depend on other pairs.
    connected: BTreeMap<(usize, usize), u64>,
    checks: Checks,
    requests: u64,
    /// What the scope still allows.
    left: Scope,
    /// The number of commits at the first fault.
    before_faults: Option<usize>,
    pub(super) problem: Option<String>,
}

/// The nth log of a server.
fn log_of(server: usize, nth: u64) -> LogId {
    LogId((server as u64 + 1) << 16 | nth)
}

fn id(server: usize) -> ServerId {
    ServerId(server as u64 + 1)
}

impl State {
    /// New, connected servers. If the scope asks for it, they run until all follow a leader and have one command.
    pub(super) fn begin(scope: &Scope) -> Self {
        let mut config = Config::new(ServerId(0), LogId(0));
        (config.heartbeat_ticks, config.vote_ticks) = (1, 1);
        (config.sync_ticks, config.init_ticks) = (3, 6);
        config.injected_bug = scope.injected_bug;
        let voters = (0..scope.voters).map(|server| (id(server), log_of(server, 0)));
        let mut disk = LogState::default();
        let first = Arc::new(Membership::first(voters.collect()));
        disk.apply(&Write::Form(Arc::clone(&first))).expect("a new log");
        let server = |server| Server {
            zab: None,
            log: log_of(server, 0),
            disk: disk.clone(),
            pending: VecDeque::new(),
            applied: Applied::default(),
        };
        let mut this = Self {
            config,
            servers: (0..scope.voters).map(server).collect(),
            connections: BTreeMap::new(),
            connected: BTreeMap::new(),
            checks: Checks::of(first),
            requests: 0,
            left: *scope,
            before_faults: None,
            problem: None,
        };
        for server in 0..scope.voters {
            this.start(server);
        }
        if scope.is_established {
            this.establish();
        }
        this.left = *scope;
        this
    }

    /// Takes the first possible step, without faults, until the leader is established.
    fn establish(&mut self) {
        (self.left.crashes, self.left.losses, self.left.cuts, self.left.timeouts) = (0, 0, 0, 0);
        (self.left.ticks, self.left.proposals) = (u8::MAX, 1);
        loop {
            let mut steps = Vec::new();
            self.steps(&mut steps);
            let follow = |server: &Server| server.zab.as_ref().is_some_and(|zab| zab.role() != Role::Looking);
            let is_done = self.servers.iter().all(|server| follow(server) && server.applied.count == 1);
            if is_done && !steps.iter().any(|step| matches!(step, Step::Deliver { .. } | Step::Written(_))) {
                return;
            }
            let Some(step) = steps.first().copied() else { return };
            self.take(step);
        }
    }

    pub(super) fn has_committed_after_a_fault(&self) -> bool {
        self.before_faults.is_some_and(|before| self.checks.order_len() > before)
    }

    /// All possible next steps.
    pub(super) fn steps(&self, steps: &mut Vec<Step>) {
        if self.problem.is_some() {
            return;
        }
        for ((a, b), connection) in &self.connections {
            let ways = [(*b, *a), (*a, *b)];
            for ((from, to), waiting) in ways.into_iter().zip(&connection.to) {
                if !waiting.is_empty() && self.servers[to].zab.is_some() {
                    steps.push(Step::Deliver { from: from + 1, to: to + 1 });
                }
            }
        }
        let numbered = || self.servers.iter().enumerate();
        steps.extend(numbered().filter(|(_, it)| !it.pending.is_empty()).map(|(at, _)| Step::Written(at + 1)));
        let is_quiet = steps.is_empty();
        let leads = |server: &Server| matches!(server.zab.as_ref().map(Zab::role), Some(Role::Leading(_)));
        if self.left.proposals > 0 {
            steps.extend(numbered().filter(|(_, it)| leads(it)).map(|(at, _)| Step::Propose(at + 1)));
        }
        steps.extend(numbered().filter(|(_, it)| it.zab.is_none()).map(|(at, _)| Step::Start(at + 1)));
        if is_quiet && self.left.ticks > 0 {
            steps.push(Step::Tick);
        }
        for (at, server) in numbered().filter(|(_, it)| it.zab.is_some()) {
            if self.left.timeouts > 0 {
                steps.push(Step::TimeOut(at + 1));
            }
            if self.left.crashes > 0 {
                let ways = (0..=server.pending.len()).flat_map(|kept| [(kept, false), (kept, true)]);
                steps.extend(ways.map(|(kept, lost)| Step::Crash { server: at + 1, kept, lost }));
            }
        }
        if self.left.losses > 0 {
            steps.extend((0..self.servers.len()).map(|at| Step::Lose(at + 1)));
        }
        if self.left.cuts > 0 {
            let whole = self.connections.iter().filter(|(_, connection)| !connection.is_broken);
            let ways = whole.flat_map(|((a, b), _)| [false, true].map(|lost| Step::Cut { a: a + 1, b: b + 1, lost }));
            steps.extend(ways);
        }
    }

    /// Executes a step.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Deliver { from, to } => self.deliver(from - 1, to - 1),
            Step::Written(server) => self.written(server - 1),
            Step::Crash { server, kept, lost } => {
                self.fault();
                self.left.crashes -= 1;
                self.crash(server - 1, kept, lost);
            }
            Step::Lose(server) => {
                self.fault();
                self.left.losses -= 1;
                self.crash(server - 1, 0, false);
                let log = log_of(server - 1, u64::from(self.left.losses) + 1);
                let it = &mut self.servers[server - 1];
                self.checks.record_loss((it.log, &it.disk));
                (it.log, it.disk) = (log, LogState::default());
            }
            Step::Start(server) => self.start(server - 1),
            Step::Cut { a, b, lost } => {
                self.fault();
                self.left.cuts -= 1;
                self.cut((a - 1, b - 1), lost);
            }
            Step::Propose(server) => {
                self.left.proposals -= 1;
                self.requests += 1;
                self.checks.record_proposal(self.requests, PAYLOAD);
                let payload = Bytes::copy_from_slice(&self.requests.to_le_bytes());
                self.handle(
                    server - 1,
                    Input::Propose { request: Request(self.requests), payload, in_epoch: None, is_reserved: false },
                );
            }
            Step::Tick => {
                self.left.ticks -= 1;
                for server in 0..self.servers.len() {
                    self.handle(server, Input::Tick);
                }
            }
            Step::TimeOut(server) => {
                self.fault();
                self.left.timeouts -= 1;
                for _ in 0..=self.config.init_ticks {
                    self.handle(server - 1, Input::Tick);
                }
            }
        }
        self.connect();
    }

    fn fault(&mut self) {
        let committed = self.checks.order_len();
        self.before_faults.get_or_insert(committed);
    }

    fn start(&mut self, server: usize) {
        let it = &mut self.servers[server];
        it.applied = Applied::default();
        let config = Config { id: id(server), log: it.log, ..self.config.clone() };
        it.zab = Some(Zab::new(config, it.disk.clone(), Zxid::ZERO));
        self.connect();
    }

    /// Connects all running servers that are not connected.
    fn connect(&mut self) {
        for a in 0..self.servers.len() {
            for b in a + 1..self.servers.len() {
                let both = self.servers[a].zab.is_some() && self.servers[b].zab.is_some();
                if !both || self.connections.contains_key(&(a, b)) {
                    continue;
                }
                let nth = self.connected.entry((a, b)).or_default();
                *nth += 1;
                let links = [(a, b), (b, a)].map(|(end, other)| Link(*nth << 8 | (end as u64) << 4 | other as u64));
                let to = [VecDeque::new(), VecDeque::new()];
                self.connections.insert((a, b), Connection { links, to, is_broken: false });
                let logs = [a, b].map(|server| self.servers[server].log);
                self.handle(a, Input::LinkUp { peer: id(b), link: links[0], log: logs[1] });
                self.handle(b, Input::LinkUp { peer: id(a), link: links[1], log: logs[0] });
            }
        }
    }

    fn cut(&mut self, pair: (usize, usize), lost: bool) {
        let Some(connection) = self.connections.get_mut(&pair) else { return };
        if std::mem::replace(&mut connection.is_broken, true) {
            return;
        }
        for waiting in &mut connection.to {
            if lost {
                waiting.clear();
            }
            waiting.push_back(Arrival::End);
        }
    }

    fn crash(&mut self, server: usize, kept: usize, lost: bool) {
        let it = &mut self.servers[server];
        it.zab = None;
        let written: Vec<Pending> = it.pending.drain(..).take(kept).collect();
        for pending in written {
            self.settle(server, &pending);
        }
        let pairs: Vec<_> = self.connections.keys().copied().filter(|(a, b)| *a == server || *b == server).collect();
        for pair in pairs {
            self.cut(pair, lost);
            let end = usize::from(pair.1 == server);
            if let Some(connection) = self.connections.get_mut(&pair) {
                connection.to[end].clear();
            }
            self.forget(pair);
        }
    }

    /// Makes a write durable.
    fn settle(&mut self, server: usize, pending: &Pending) {
        if let Err(problem) = self.servers[server].disk.apply(&pending.write) {
            self.note(Err(format!("log: {:?} is not valid on disk: {problem}", pending.write)));
        }
    }

    /// Removes a broken connection once both ends know.
    fn forget(&mut self, pair: (usize, usize)) {
        let is_over = |connection: &Connection| connection.is_broken && connection.to.iter().all(VecDeque::is_empty);
        if self.connections.get(&pair).is_some_and(is_over) {
            self.connections.remove(&pair);
        }
    }

    fn deliver(&mut self, from: usize, to: usize) {
        let pair = (from.min(to), from.max(to));
        let end = usize::from(to == pair.1);
        let Some(connection) = self.connections.get_mut(&pair) else { return };
        let link = connection.links[end];
        let peer = id(from);
        match connection.to[end].pop_front() {
            Some(Arrival::Message(message)) => self.handle(to, Input::Received { peer, link, message }),
            Some(Arrival::End) => {
                self.handle(to, Input::LinkDown { peer, link });
                self.forget(pair);
            }
            None => {}
        }
    }

    fn written(&mut self, server: usize) {
        let mut last = None;
        for pending in std::mem::take(&mut self.servers[server].pending) {
            self.settle(server, &pending);
            for (link, message) in pending.then {
                self.send(server, link, message);
            }
            last = Some(pending.id);
        }
        if let Some(id) = last {
            self.handle(server, Input::Written(id));
        }
    }

    fn send(&mut self, server: usize, link: Link, message: Message) {
        for ((a, b), connection) in &mut self.connections {
            let Some(end) = [*a, *b].iter().position(|end| *end == server) else { continue };
            if connection.links[end] == link && !connection.is_broken {
                connection.to[1 - end].push_back(Arrival::Message(message));
                return;
            }
        }
    }

    fn handle(&mut self, server: usize, input: Input) {
        let it = &mut self.servers[server];
        let Some(zab) = &mut it.zab else { return };
        let before = zab.phase();
        let mut actions = Vec::new();
        zab.handle(vec![input], &mut actions);
        if zab.phase() == "election" && before != "election" {
            let votes = Checks::check_vote(zab.log_state(), &it.disk);
            self.note(votes);
        }
        for action in actions {
            self.act(server, action);
        }
    }

    fn act(&mut self, server: usize, action: Action) {
        match action {
            Action::Send { link, message } => self.send(server, link, message),
            Action::Persist { id, write, then } => {
                self.servers[server].pending.push_back(Pending { id, write, then });
            }
            Action::Deliver(txn) => {
                let (membership, applied) = (self.membership(server), self.servers[server].applied);
                let durable: Vec<_> = self.servers.iter().map(|server| (server.log, &server.disk)).collect();
                match self.checks.check_delivery(applied, &txn, &membership, &durable) {
                    Ok(now) => self.servers[server].applied = now,
                    Err(problem) => self.note(Err(problem)),
                }
            }
            Action::Became(Role::Leading(epoch)) => {
                let membership = self.membership(server);
                let durable: Vec<_> = self.servers.iter().map(|server| (server.log, &server.disk)).collect();
                let checked = self.checks.check_leader(id(server), epoch, &membership, &durable);
                self.note(checked);
            }
            Action::Close { problem, .. } if problem != "no heartbeat from the follower" => {
                self.note(Err(format!("impossible message: {problem}")));
            }
            Action::Close { link, .. } => {
                let of = |connection: &Connection| connection.links.contains(&link);
                let pair = self.connections.iter().find(|(_, connection)| of(connection)).map(|(pair, _)| *pair);
                if let Some(pair) = pair {
                    self.cut(pair, false);
                }
            }
            Action::Stop(fatal) => self.note(Err(format!("{} stops for good: {fatal}", server + 1))),
            // There are no snapshots and no clients here, and only the role of a leader has invariants.
            Action::SendSnapshot { .. }
            | Action::DiscardSnapshot(_)
            | Action::ReadLog { .. }
            | Action::Restore(_)
            | Action::Became(_)
            | Action::Proposed { .. }
            | Action::Refused { .. }
            | Action::ReadReady { .. } => {}
        }
    }

    /// The membership that is in effect at a running server.
    fn membership(&self, server: usize) -> Arc<Membership> {
        let zab = self.servers[server].zab.as_ref().expect("it runs");
        Arc::clone(zab.log_state().membership().expect("it has a role"))
    }

    fn note(&mut self, checked: Result<(), String>) {
        if let Err(problem) = checked {
            self.problem.get_or_insert(problem);
        }
    }
}
