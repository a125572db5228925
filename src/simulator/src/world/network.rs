//! Opens and cuts connections, and transfers messages.

use std::collections::VecDeque;

use crossdock_zab::{Blob, Input, Link, Message, Session, Summary, ToFollower, ToLeader, Txn, Zxid};
use rand::Rng;

use super::{Event, StepResult, World, id};
use crate::checks::Applied;
use crate::faults::{MILLI, Micros, SECOND};
use crate::network::Connection;
use crate::scenario::{Stream, rng_for};

/// Interval of progress reports of long transfers.
const PROGRESS: Micros = 50 * MILLI;
/// The size of a message without its commands, in bytes.
const MESSAGE_LEN: u64 = 40;

fn message_len(message: &Message) -> u64 {
    let of = |txns: &[Txn]| txns.iter().map(|txn| txn.payload.len() + 16).sum();
    let len: usize = match message {
        Message::ToLeader(_, ToLeader::Forward { payload, .. }) => payload.len(),
        Message::ToFollower(_, ToFollower::Sync { txns, .. } | ToFollower::Propose { txns, .. }) => of(txns),
        _ => 0,
    };
    MESSAGE_LEN + len as u64
}

impl World {
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let both = self.servers[a].zab.is_some() && self.servers[b].zab.is_some();
        let blocked = self.network.blocked.contains(&(a, b)) || self.network.blocked.contains(&(b, a));
        if !both || self.network.between(a, b).is_some() {
            return;
        }
        if blocked {
            let after = self.servers[a].rng.random_range(10 * MILLI..100 * MILLI);
            self.at(after, Event::Connect { a, b });
            return;
        }
        let pair = (a.min(b), a.max(b));
        let nth = *self.network.made.entry(pair).and_modify(|made| *made += 1).or_default();
        let mut rng = rng_for(self.seed, Stream::Connection(pair.0, pair.1, nth));
        self.links += 2;
        let links = [Link(self.links - 1), Link(self.links)];
        let ups: [Micros; 2] = std::array::from_fn(|_| rng.random_range(100..self.faults.latency_max));
        self.network.connections.push(Connection {
            rng,
            ends: [a, b],
            links,
            logs: [self.servers[a].disk.log, self.servers[b].disk.log],
            is_up: [false; 2],
            lives: true,
            to: [VecDeque::new(), VecDeque::new()],
            last: [self.now + ups[0], self.now + ups[1]],
            sent: [0; 2],
        });
        let connection = self.network.connections.len() - 1;
        for (end, after) in ups.into_iter().enumerate() {
            self.at(after, Event::Up { connection, end });
        }
    }

    pub(super) fn reconnect(&mut self, connection: usize) {
        let [a, b] = self.network.connections[connection].ends;
        let after = self.network.connections[connection].rng.random_range(MILLI..100 * MILLI);
        self.at(after, Event::Connect { a, b });
    }

    /// Cuts a connection. A prefix of the messages in flight arrives, and each end notices at its own time.
    pub(super) fn cut(&mut self, connection: usize) {
        if !std::mem::replace(&mut self.network.connections[connection].lives, false) {
            return;
        }
        for end in 0..2 {
            let it = &mut self.network.connections[connection];
            let kept = it.rng.random_range(0..=it.to[end].len());
            it.to[end].truncate(kept);
            let after = if it.rng.random_bool(0.7) { MILLI } else { it.rng.random_range(0..SECOND) };
            self.at(after, Event::Down { connection, end });
        }
    }

    pub(super) fn send(&mut self, server: usize, link: Link, message: Message) {
        let message = if self.servers[server].lies_until > self.now {
            self.with_bogus_numbers(server, link, message)
        } else {
            message
        };
        let len = message_len(&message);
        let Some(connection) = self.network.of_link(server, link) else { return };
        let it = &mut self.network.connections[connection];
        let from = it.end_of(server);
        if !it.lives || !it.is_up[from] {
            return;
        }
        let to = 1 - from;
        let begins = self.now.max(it.sent[to]);
        let takes = self.faults.bandwidth.map_or(0, |bandwidth| len * SECOND / bandwidth);
        let ends = begins + takes;
        let arrives = (ends + it.rng.random_range(50..self.faults.latency_max)).max(it.last[to]);
        (it.sent[to], it.last[to]) = (ends, arrives);
        it.to[to].push_back((arrives, message));
        self.report_progress(connection, from, (begins - self.now, takes));
        self.at(arrives - self.now, Event::Deliver { connection, end: to });
    }

    pub(super) fn progress(&mut self, connection: usize, end: usize) -> StepResult {
        let it = &self.network.connections[connection];
        let (server, peer, link) = (it.ends[end], it.ends[1 - end], it.links[end]);
        let blocked = self.network.blocked.contains(&(peer, server)) || self.network.blocked.contains(&(server, peer));
        if !it.lives || !it.is_up[end] || blocked {
            return Ok(());
        }
        self.input(server, Input::Progress { peer: id(peer), link })
    }

    pub(super) fn send_snapshot(&mut self, server: usize, link: Link, session: Session, zxid: Zxid) {
        let (state, summary) = match self.servers[server].disk.snapshots.get(&zxid) {
            Some((state, summary)) => (*state, summary.clone()),
            None => (Applied::default(), Summary::default()),
        };
        let blob = Blob(self.blobs.len() as u64);
        self.blobs.push(state);
        let message = Message::ToFollower(session, ToFollower::Snapshot { summary, blob });
        // The receiver makes the snapshot durable and verifies it. Other messages do not wait for it.
        let settles = if self.faults.snapshot_len > 0 { self.servers[server].rng.random_range(0..SECOND) } else { 0 };
        let Some(connection) = self.network.of_link(server, link) else { return };
        let it = &self.network.connections[connection];
        let from = it.end_of(server);
        if !it.lives || !it.is_up[from] {
            return;
        }
        let takes =
            self.faults.bandwidth.map_or(0, |bandwidth| self.faults.snapshot_len * SECOND / bandwidth) + settles;
        self.report_progress(connection, from, (0, takes));
        self.at(takes, Event::SnapshotArrives { connection, from, message: Box::new(message) });
    }

    /// A snapshot has arrived, and is delivered after the messages in flight.
    pub(super) fn snapshot_arrives(&mut self, connection: usize, from: usize, message: Message) {
        let it = &mut self.network.connections[connection];
        if !it.lives || !it.is_up[from] {
            return;
        }
        let to = 1 - from;
        let arrives = (self.now + it.rng.random_range(50..self.faults.latency_max)).max(it.last[to]);
        it.last[to] = arrives;
        it.to[to].push_back((arrives, message));
        self.at(arrives - self.now, Event::Deliver { connection, end: to });
    }

    /// Both ends of a connection get progress reports of a transfer that begins after, and takes, these times.
    fn report_progress(&mut self, connection: usize, from: usize, (begins, takes): (Micros, Micros)) {
        for part in 1..=takes / PROGRESS {
            let at = begins + part * PROGRESS;
            self.at(at, Event::Progress { connection, end: from });
            self.at(at + MILLI, Event::Progress { connection, end: 1 - from });
        }
    }

    pub(super) fn deliver(&mut self, connection: usize, end: usize) -> StepResult {
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
        // Delayed messages still arrive in order.
        let Some((_, message)) = it.to[end].pop_front() else { return Ok(()) };
        if !it.is_up[end] {
            return Ok(());
        }
        self.note(|| format!("{} ← {}: {message:?}", server + 1, peer + 1));
        self.input(server, Input::Received { peer: id(peer), link, message })
    }
}
