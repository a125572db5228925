//! Disks: pending writes become durable or are lost; snapshots.

use crossdock_zab::{Input, Link, Session, Txn, Zxid};
use rand::Rng;

use super::{Event, StepResult, World};
use crate::faults::{MILLI, SECOND};

impl World {
    pub(super) fn begin_write(&mut self, server: usize) {
        let it = &mut self.servers[server];
        if it.disk.pending.is_empty() {
            return;
        }
        // All pending writes become durable together.
        it.disk.at = it.disk.pending.len();
        let mut after = it.rng.random_range(50..self.faults.disk_max);
        if it.disk.slow_until > self.now {
            after += it.rng.random_range(0..SECOND);
        }
        let incarnation = it.incarnation;
        self.at(after, Event::Disk { server, incarnation });
    }

    pub(super) fn disk(&mut self, server: usize) -> StepResult {
        if self.servers[server].disk.fails {
            // It is unknown what is durable, so the process ends.
            self.stop(server);
            let after = self.servers[server].rng.random_range(100 * MILLI..SECOND);
            self.at(after, Event::Start { server });
            return Ok(());
        }
        let mut last = None;
        let count = std::mem::take(&mut self.servers[server].disk.at);
        for _ in 0..count {
            let Some(done) = self.servers[server].disk.settle(&self.blobs)? else { break };
            for (link, message) in done.then {
                self.send(server, link, message);
            }
            last = Some(done.id);
        }
        self.begin_write(server);
        match last {
            Some(id) if self.faults.late > 0 => {
                let incarnation = self.servers[server].incarnation;
                // Reports may overlap; a later one covers the earlier ones.
                let after = self.servers[server].rng.random_range(0..self.faults.late);
                self.at(after, Event::Written { server, incarnation, id });
                Ok(())
            }
            Some(id) => self.input(server, Input::Written(id)),
            None => Ok(()),
        }
    }

    /// Reads from the log on disk; in one of ten cases, what is asked for has been purged.
    pub(super) fn read_log(&mut self, server: usize, (link, session): (Link, Session), after: Zxid) {
        self.report.log_reads += 1;
        let it = &mut self.servers[server];
        let history = it.disk.full.history();
        let is_there = history.contains(after) && it.rng.random_range(0..10) > 0;
        let txns: Vec<Txn> = if is_there {
            history.between(after, history.last()).take(self.config.sync_batch).cloned().collect()
        } else {
            Vec::new()
        };
        let (incarnation, time) = (it.incarnation, it.rng.random_range(50..self.faults.disk_max));
        self.at(time, Event::LogRead { server, incarnation, input: Box::new(Input::LogRead { link, session, txns }) });
    }

    pub(super) fn snapshot(&mut self, server: usize) -> StepResult {
        let it = &mut self.servers[server];
        let state = it.applied;
        // A snapshot may only cover what is durable in the log.
        let summary = it.disk.log_state.history().summary_at(state.zxid);
        let Some(summary) = summary.filter(|_| it.zab.is_some() && state.zxid != Zxid::ZERO) else { return Ok(()) };
        it.disk.snapshots.insert(state.zxid, (state, summary));
        let (retained, bytes) = (self.config.retained, self.config.retained_bytes);
        it.disk.log_state.snapshot_taken(state.zxid, retained, bytes);
        self.input(server, Input::SnapshotTaken(state.zxid))
    }
}
