//! Connections: made, cut, and what goes over them.

use std::collections::VecDeque;

use crossdock_zab::{Blob, Input, Link, Message, Session, ToFollower, Zxid};
use rand::Rng;

use super::{Event, Stepped, World, id};
use crate::checks::Applied;
use crate::faults::{MILLI, Micros, SECOND};
use crate::network::Connection;

impl World {
    pub(super) fn connect(&mut self, a: usize, b: usize) {
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

    pub(super) fn reconnect(&mut self, connection: usize) {
        let [a, b] = self.network.connections[connection].ends;
        let after = self.rng.random_range(MILLI..100 * MILLI);
        self.at(after, Event::Connect { a, b });
    }

    /// Ends a connection. Of what is on its way, a beginning arrives; each end hears of it in its own time.
    pub(super) fn cut(&mut self, connection: usize) {
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

    pub(super) fn send(&mut self, server: usize, link: Link, message: Message) {
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

    pub(super) fn send_snapshot(&mut self, server: usize, link: Link, session: Session, zxid: Zxid) {
        let state = if zxid == Zxid::ZERO { Applied::default() } else { self.servers[server].disk.snapshots[&zxid] };
        let blob = Blob(self.blobs.len() as u64);
        self.blobs.push(state);
        self.send(server, link, Message::ToFollower(session, ToFollower::Snapshot { zxid, blob }));
    }

    pub(super) fn deliver(&mut self, connection: usize, end: usize) -> Stepped {
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
}
