//! Processes: start, stop, inputs and actions.

use std::sync::Arc;

use crossdock_zab::{Action, Config, Input, Membership, Request, Role, Txn, Zab, Zxid};
use rand::Rng;

use super::{Event, StepResult, World, id};
use crate::checks::Checks;
use crate::faults::MILLI;
use crate::scenario::{Stream, rng_for};
use crate::server::{Pending, Server};

impl World {
    pub(super) fn start(&mut self, server: usize) -> StepResult {
        if self.servers[server].zab.is_some() {
            return Ok(());
        }
        let it = &mut self.servers[server];
        it.incarnation += 1;
        it.applied = it.disk.state();
        it.disk.fails = false;
        let mut config = Config { id: id(server), log: it.disk.log, ..self.config.clone() };
        if !it.disk.founds {
            config.founders.clear();
        }
        let zab = Zab::new(config, it.disk.log_state.clone(), it.applied.zxid);
        let (incarnation, tick, state) = (it.incarnation, it.tick, it.applied);
        it.zab = Some(zab);
        self.note(|| format!("{} starts at {}", server + 1, state.zxid));
        self.checks.check_snapshot(state)?;
        let after = self.servers[server].rng.random_range(0..tick);
        self.at(after, Event::Tick { server, incarnation });
        for other in (0..self.servers.len()).filter(|other| *other != server) {
            let after = self.servers[server].rng.random_range(MILLI..20 * MILLI);
            self.at(after, Event::Connect { a: server, b: other });
        }
        Ok(())
    }

    pub(super) fn stop(&mut self, server: usize) {
        let it = &mut self.servers[server];
        if it.zab.take().is_none() {
            return;
        }
        // A prefix of the pending writes became durable.
        let kept = it.rng.random_range(0..=it.disk.pending.len());
        for _ in 0..kept {
            if let Err(problem) = it.disk.settle(&self.blobs) {
                self.problem.get_or_insert(problem);
            }
        }
        it.disk.pending.clear();
        it.disk.at = 0;
        it.incarnation += 1;
        it.paused_until = 0;
        it.inbox.clear();
        it.requests.clear();
        it.proposed.clear();
        it.ready.clear();
        for connection in 0..self.network.connections.len() {
            if self.network.connections[connection].ends.contains(&server) {
                let end = self.network.connections[connection].end_of(server);
                self.network.connections[connection].is_up[end] = false;
                self.network.connections[connection].to[end].clear();
                self.cut(connection);
            }
        }
        self.note(|| format!("{} stops; {kept} of its pending writes are durable", server + 1));
    }

    pub(super) fn input(&mut self, server: usize, input: Input) -> StepResult {
        let it = &mut self.servers[server];
        if it.zab.is_none() {
            return Ok(());
        }
        it.inbox.push(input);
        if it.rng.random_range(0..100) < self.faults.together {
            if it.inbox.len() == 1 {
                let (after, incarnation) = (it.rng.random_range(0..5 * MILLI), it.incarnation);
                self.at(after, Event::Take { server, incarnation });
            }
            return Ok(());
        }
        self.take(server)
    }

    pub(super) fn take(&mut self, server: usize) -> StepResult {
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
            Checks::check_vote(zab.log_state(), &it.disk.log_state)?;
        }
        if before != after {
            self.note(|| format!("{} {before} → {after}", server + 1));
        }
        for action in actions {
            self.act(server, action)?;
        }
        Ok(())
    }

    pub(super) fn act(&mut self, server: usize, action: Action) -> StepResult {
        match action {
            Action::Send { link, message } => self.send(server, link, message),
            Action::SendSnapshot { link, session, zxid } => self.send_snapshot(server, link, session, zxid),
            Action::Persist { id, write, then } => {
                self.note(|| format!("{} writes {}: {write:?}", server + 1, id.0));
                let it = &mut self.servers[server];
                it.disk.pending.push_back(Pending { id, write, then });
                it.writes += 1;
                let (nth, incarnation) = (it.writes, it.incarnation);
                if it.disk.at == 0 {
                    self.begin_write(server);
                }
                if let Some(number) = self.crashes_in_write.get(&(server, nth)).copied() {
                    let after = rng_for(self.seed, Stream::Occurrence(number)).random_range(0..self.faults.disk_max);
                    self.at(after, Event::CrashInWrite { server, incarnation, number });
                }
            }
            Action::DiscardSnapshot(_) => {}
            Action::ReadLog { link, session, after } => self.read_log(server, (link, session), after),
            Action::Deliver(txn) => return self.delivered(server, &txn),
            Action::Restore(zxid) => {
                let (state, _) = self.servers[server].disk.snapshots[&zxid];
                self.note(|| format!("{} restores the snapshot of {zxid}", server + 1));
                self.servers[server].applied = state;
                return self.checks.check_snapshot(state);
            }
            Action::Proposed { request, zxid } => {
                if self.servers[server].requests.contains_key(&request) {
                    self.servers[server].proposed.insert(zxid, request);
                }
            }
            Action::Refused { request, .. } => {
                self.servers[server].requests.remove(&request);
            }
            Action::ReadReady { request, zxid } => {
                self.servers[server].ready.push((zxid, request));
                return self.answer_reads(server);
            }
            Action::Became(role) => {
                self.note(|| format!("{} is {role:?}", server + 1));
                if role == Role::Looking {
                    let it = &mut self.servers[server];
                    it.requests.clear();
                    it.proposed.clear();
                    it.ready.clear();
                }
                if let Role::Leading(epoch) = role {
                    self.report.epochs += 1;
                    let membership = self.membership(server);
                    let durable: Vec<_> = self.servers.iter().map(Server::durable).collect();
                    return self.checks.check_leader(id(server), epoch, &membership, &durable);
                }
            }
            Action::Close { link, problem } => {
                self.note(|| format!("{} closes {}: {problem}", server + 1, link.0));
                // Only bogus numbers make a message impossible.
                if problem != "no heartbeat from the follower" && self.report.lies == 0 {
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

    /// The membership that is in effect at a running server.
    fn membership(&self, server: usize) -> Arc<Membership> {
        let zab = self.servers[server].zab.as_ref().expect("it runs");
        Arc::clone(zab.log_state().membership().expect("it has a role"))
    }

    pub(super) fn delivered(&mut self, server: usize, txn: &Txn) -> StepResult {
        let membership = self.membership(server);
        let durable: Vec<_> = self.servers.iter().map(Server::durable).collect();
        let after = self.servers[server].applied;
        let now = self.checks.check_delivery(after, txn, &membership, &durable)?;
        self.servers[server].applied = now;
        self.note(|| format!("{} delivers {}", server + 1, txn.zxid));
        if let Some(request) = self.servers[server].proposed.remove(&txn.zxid) {
            self.servers[server].requests.remove(&request);
            self.checks.record_acknowledgement(txn.zxid);
        }
        self.answer_reads(server)
    }

    pub(super) fn answer_reads(&mut self, server: usize) -> StepResult {
        let it = &mut self.servers[server];
        let applied = it.applied.zxid;
        let (answered, waiting) = it.ready.drain(..).partition(|(zxid, _)| *zxid <= applied);
        it.ready = waiting;
        let answered: Vec<(Zxid, Request)> = answered;
        for (_, request) in answered {
            if let Some(pending) = it.requests.remove(&request) {
                self.report.reads += 1;
                Checks::check_read(pending.acknowledged_before, applied)?;
            }
        }
        Ok(())
    }
}
