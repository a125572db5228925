//! Faults, and their end.

use crossdock_zab::{Input, Role, Zab};
use rand::Rng;

use super::{Event, Fault, Stepped, World, id};
use crate::faults::{MILLI, SECOND};

impl World {
    pub(super) fn fault(&mut self, fault: Fault) -> Stepped {
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
    pub(super) fn partition(&mut self, server: usize) {
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

    pub(super) fn heal(&mut self) {
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
    pub(super) fn is_at_rest(&self) -> bool {
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
