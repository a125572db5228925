//! Connections. They deliver messages in order until they break, which the two ends notice at different times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crossdock_zab::{Link, LogId, Message};
use rand_chacha::ChaCha8Rng;

use crate::faults::Micros;

/// A connection between two servers.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) rng: ChaCha8Rng,
    /// The servers, by number.
    pub(crate) ends: [usize; 2],
    /// The link id at each end.
    pub(crate) links: [Link; 2],
    /// The log of the server at each end.
    pub(crate) logs: [LogId; 2],
    /// Whether each end considers the connection open.
    pub(crate) is_up: [bool; 2],
    /// Whether it still carries data.
    pub(crate) lives: bool,
    /// Messages in flight to each end, with their arrival times.
    pub(crate) to: [VecDeque<(Micros, Message)>; 2],
    /// When the last message to each end arrives.
    pub(crate) last: [Micros; 2],
    /// When everything sent to each end has left the other end.
    pub(crate) sent: [Micros; 2],
}

impl Connection {
    /// The index of a server's end.
    pub(crate) fn end_of(&self, server: usize) -> usize {
        usize::from(self.ends[1] == server)
    }
}

/// All connections, and the blocked directions.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: Vec<Connection>,
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// The number of connections per pair of servers so far.
    pub(crate) made: BTreeMap<(usize, usize), u32>,
}

impl Network {
    /// The index of the open connection between two servers.
    pub(crate) fn between(&self, a: usize, b: usize) -> Option<usize> {
        let joins =
            |connection: &Connection| connection.lives && (connection.ends == [a, b] || connection.ends == [b, a]);
        self.connections.iter().rposition(joins)
    }

    /// The index of the connection with that link id at the server.
    pub(crate) fn of_link(&self, server: usize, link: Link) -> Option<usize> {
        let called = |connection: &Connection| {
            connection.ends.contains(&server) && connection.links[connection.end_of(server)] == link
        };
        self.connections.iter().rposition(called)
    }
}
