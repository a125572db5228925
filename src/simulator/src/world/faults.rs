//! Faults and healing.

use crossdock_zab::{Input, LogId, LogState, Membership, Role, ServerId, Zab};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Event, StepResult, World, id, log_of};
use crate::faults::{Fault, MILLI, SECOND};
use crate::server::Disk;

impl World {
    pub(super) fn fault(&mut self, fault: Fault, mut rng: ChaCha8Rng) -> StepResult {
        let server = rng.random_range(0..self.servers.len());
        match fault {
            Fault::Crash => {
                self.stop(server);
                let after = rng.random_range(10 * MILLI..2 * SECOND);
                self.at(after, Event::Start { server });
            }
            Fault::PowerLoss => {
                for server in 0..self.servers.len() {
                    self.stop(server);
                    let after = rng.random_range(10 * MILLI..SECOND);
                    self.at(after, Event::Start { server });
                }
            }
            Fault::Pause => {
                let time = rng.random_range(10 * MILLI..3 * SECOND);
                self.note(|| format!("{} is paused for {} ms", server + 1, time / MILLI));
                self.servers[server].paused_until = self.now + time;
            }
            Fault::Cut => {
                let living: Vec<usize> =
                    (0..self.network.connections.len()).filter(|at| self.network.connections[*at].lives).collect();
                if !living.is_empty() {
                    let connection = living[rng.random_range(0..living.len())];
                    self.note(|| format!("connection {connection} is cut"));
                    self.cut(connection);
                    self.reconnect(connection);
                }
            }
            Fault::Partition => self.partition(server, rng),
            Fault::SlowDisk => {
                let time = rng.random_range(100 * MILLI..2 * SECOND);
                self.servers[server].disk.slow_until = self.now + time;
            }
            Fault::FailingDisk => {
                self.note(|| format!("the disk of {} fails", server + 1));
                self.servers[server].disk.fails = true;
            }
            Fault::LoseDisk => self.lose_disk(server, rng),
            Fault::FindDisk => self.find_disk(server, rng),
            Fault::ChangeMembers => return self.change_members(server, rng),
            Fault::TransferLeadership => {
                let to = rng.random_bool(0.5).then(|| id(rng.random_range(0..self.voters)));
                return self.input(server, Input::TransferLeadership(to));
            }
            Fault::Snapshot => return self.snapshot(server),
            Fault::Lies => {
                let time = rng.random_range(50 * MILLI..2 * SECOND);
                self.note(|| format!("{} sends bogus numbers for {} ms", server + 1, time / MILLI));
                self.servers[server].lies_until = self.now + time;
            }
        }
        Ok(())
    }

    /// A server loses its disk, if the others can do without.
    fn lose_disk(&mut self, server: usize, mut rng: ChaCha8Rng) {
        if !self.is_dispensable(server) {
            return;
        }
        self.stop(server);
        self.note(|| format!("{} has lost its log", server + 1));
        self.logs += 1;
        let it = &mut self.servers[server];
        self.checks.record_loss(it.durable());
        // Several founders find out that the cluster exists already; a single one would found it again.
        let founds = it.disk.founds && self.voters > 1;
        let lost = std::mem::replace(&mut it.disk, Disk::new(log_of(server, self.logs), founds));
        it.lost.push(lost);
        let after = rng.random_range(MILLI..SECOND);
        self.at(after, Event::Start { server });
    }

    /// A disk that a server lost comes back, and replaces the current one.
    fn find_disk(&mut self, server: usize, mut rng: ChaCha8Rng) {
        if self.servers[server].lost.is_empty() || !self.is_dispensable(server) {
            return;
        }
        self.stop(server);
        self.note(|| format!("{} has an old log again", server + 1));
        let it = &mut self.servers[server];
        self.checks.record_loss(it.durable());
        let found = it.lost.remove(rng.random_range(0..it.lost.len()));
        it.lost.push(std::mem::replace(&mut it.disk, found));
        let after = rng.random_range(MILLI..SECOND);
        self.at(after, Event::Start { server });
    }

    /// Whether every membership that is in effect somewhere has a quorum of logs without the server's. A quorum that is
    /// lost can never be recovered.
    fn is_dispensable(&self, server: usize) -> bool {
        let log_states = self.servers.iter().flat_map(|it| [it.log_state(), &it.disk.log_state]);
        let remains = |(other, log): &(&ServerId, &LogId)| {
            let index = usize::try_from(other.0 - 1).expect("a server");
            index != server && self.servers.get(index).is_some_and(|it| it.disk.log == **log)
        };
        let mut memberships = log_states.map(LogState::membership);
        memberships.all(|membership| {
            membership.is_some_and(|membership| {
                !membership.is_voter(id(server), self.servers[server].disk.log)
                    || membership.voters.iter().filter(remains).count() >= membership.quorum()
            })
        })
    }

    /// Blocks one or both directions between some servers and the others.
    pub(super) fn partition(&mut self, server: usize, mut rng: ChaCha8Rng) {
        let count = self.servers.len();
        let apart: Vec<bool> = (0..count).map(|other| other == server || rng.random_bool(0.3)).collect();
        let (one_way, reversed) = (rng.random_bool(0.4), rng.random_bool(0.5));
        let mut ways = Vec::new();
        for a in 0..count {
            for b in 0..count {
                let crosses = apart[a] != apart[b] && (!one_way || apart[a] == reversed);
                if crosses && self.network.blocked.insert((a, b)) {
                    ways.push((a, b));
                }
            }
        }
        let time = rng.random_range(100 * MILLI..3 * SECOND);
        self.note(|| format!("blocked for {} ms: {ways:?}", time / MILLI));
        self.at(time, Event::Unblock { ways });
    }

    pub(super) fn heal(&mut self) {
        self.note(|| "the faults end".to_owned());
        self.healing = true;
        self.config.random_elections = false;
        self.network.blocked.clear();
        // To form a cluster or to replace a log may need all other voters, and each of them has to reach the leader.
        if !(0..self.servers.len()).all(|server| self.knows_logs(server)) {
            self.apart.clear();
        }
        for (a, b) in self.apart.clone() {
            self.network.blocked.extend([(a, b), (b, a)]);
            if let Some(connection) = self.network.between(a, b) {
                self.cut(connection);
            }
        }
        self.faults.bandwidth = None;
        self.faults.latency_max = self.faults.latency_max.min(5 * MILLI);
        self.faults.disk_max = self.faults.disk_max.min(5 * MILLI);
        for server in 0..self.servers.len() {
            let it = &mut self.servers[server];
            if let Some(zab) = &mut it.zab {
                zab.end_random_elections();
            }
            it.paused_until = 0;
            it.lies_until = 0;
            it.disk.slow_until = 0;
            it.disk.fails = false;
            self.at(MILLI, Event::Start { server });
            for other in 0..server {
                self.at(200 * MILLI, Event::Connect { a: server, b: other });
            }
        }
    }

    /// Connects all servers if nobody can be elected as they are connected: a leader has to reach a quorum whose
    /// histories are no later than its own, as nobody gives it what it lacks. Returns whether that was so.
    pub(super) fn connect_if_nobody_is_electable(&mut self) -> bool {
        if self.apart.is_empty() || self.has_electable() {
            return false;
        }
        self.note(|| "nobody is electable: all are connected".to_owned());
        for (a, b) in std::mem::take(&mut self.apart) {
            self.network.blocked.remove(&(a, b));
            self.network.blocked.remove(&(b, a));
            self.at(MILLI, Event::Connect { a, b });
        }
        true
    }

    fn has_electable(&self) -> bool {
        let history = |server: usize| {
            let log_state = self.servers[server].log_state();
            (log_state.current_epoch(), log_state.history().last())
        };
        let is_apart = |a: usize, b: usize| self.apart.contains(&(a, b)) || self.apart.contains(&(b, a));
        (0..self.servers.len()).any(|leader| {
            let Some(membership) = self.servers[leader].log_state().membership() else { return false };
            let votes = |server: usize| membership.is_voter(id(server), self.servers[server].disk.log);
            let follows =
                |other: &usize| votes(*other) && !is_apart(leader, *other) && history(*other) <= history(leader);
            votes(leader) && (0..self.servers.len()).filter(follows).count() >= membership.quorum()
        })
    }

    /// Whether there is one leader, and all servers that can reach it are up, agree, have everything acknowledged, and
    /// have answered all requests.
    pub(super) fn has_converged(&self) -> bool {
        let role = |server: &usize| self.servers[*server].zab.as_ref().map(Zab::role);
        let leads = |server: &usize| matches!(role(server), Some(Role::Leading(_)));
        let leaders: Vec<usize> = (0..self.servers.len()).filter(leads).collect();
        let &[leader] = leaders.as_slice() else { return false };
        let reachable = (0..self.servers.len()).filter(|server| !self.network.blocked.contains(&(leader, *server)));
        let mut all = reachable.map(|server| (&self.servers[server], role(&server)));
        all.all(|(server, role)| {
            role.is_some_and(|role| role != Role::Looking)
                && server.applied == self.servers[leader].applied
                && server.applied.count == self.checks.order_len()
                && server.requests.is_empty()
        }) && (self.has_replaced_logs(leader) || self.config.injected_bug.is_some())
    }

    /// Whether all servers that the leader reaches vote with their current logs, if they are voters.
    fn has_replaced_logs(&self, leader: usize) -> bool {
        let Some(membership) = self.servers[leader].log_state().membership() else { return false };
        let reaches = |server: &usize| !self.network.blocked.contains(&(leader, *server));
        (0..self.servers.len()).filter(reaches).all(|server| self.is_current(membership, server))
    }

    /// Whether the membership at a server has the current logs of all its voters.
    fn knows_logs(&self, server: usize) -> bool {
        let membership = self.servers[server].log_state().membership();
        let is_current = |membership| (0..self.servers.len()).all(|other| self.is_current(membership, other));
        membership.is_some_and(|membership| is_current(membership))
    }

    fn is_current(&self, membership: &Membership, server: usize) -> bool {
        let recorded = membership.voters.get(&id(server));
        !membership.replacing.contains(&id(server)) && recorded.is_none_or(|log| *log == self.servers[server].disk.log)
    }
}
