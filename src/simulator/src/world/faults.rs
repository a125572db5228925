//! Faults and healing.

use crossdock_zab::{Input, LogState, Role, Zab};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{Event, StepResult, World, id};
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

    /// A server loses its disk, if all other voters have their logs.
    fn lose_disk(&mut self, server: usize, mut rng: ChaCha8Rng) {
        let mut others = (0..self.voters).filter(|other| *other != server);
        let votes = server < self.voters;
        if self.voters < 3 || others.any(|other| self.servers[other].disk.log_state.returning().is_some()) {
            return;
        }
        self.stop(server);
        self.note(|| format!("{} has lost its log", server + 1));
        self.logs += 1;
        // A lost observer is safe either way.
        let says_so = votes || rng.random_bool(0.5);
        let log_state = if says_so { LogState::for_returning(self.logs) } else { LogState::default() };
        let lost = &self.servers[server].disk.log_state;
        self.checks.record_loss(id(server), lost);
        self.servers[server].disk = Disk { log_state, ..Disk::default() };
        let after = rng.random_range(MILLI..SECOND);
        self.at(after, Event::Start { server });
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
        let is_returning = self.servers[..self.voters].iter().any(|server| server.disk.log_state.returning().is_some());
        // A returning server needs all other voters, and each of them has to reach the leader.
        if is_returning {
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
            let it = &self.servers[server];
            let log_state = it.zab.as_ref().map_or(&it.disk.log_state, Zab::log_state);
            (log_state.current_epoch(), log_state.history().last())
        };
        let is_apart = |a: usize, b: usize| self.apart.contains(&(a, b)) || self.apart.contains(&(b, a));
        (0..self.voters).any(|leader| {
            let follows = |other: &usize| !is_apart(leader, *other) && history(*other) <= history(leader);
            (0..self.voters).filter(follows).count() >= self.config.quorum()
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
                && (server.disk.log_state.returning().is_none() || self.config.injected_bug.is_some())
        })
    }
}
