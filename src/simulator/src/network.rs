//! Connections: in order, until they break; the two ends hear of that at different times.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crossdock_zab::{Link, Message};
use rand_chacha::ChaCha8Rng;

use crate::faults::Micros;

/// One connection of two servers.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) rng: ChaCha8Rng,
    /// The servers, by number.
    pub(crate) ends: [usize; 2],
    /// What each calls it.
    pub(crate) links: [Link; 2],
    /// Whether each has been told that it is there, and not yet that it is not.
    pub(crate) is_up: [bool; 2],
    /// Whether bytes still go through.
    pub(crate) lives: bool,
    /// What is on its way to each end, and when it arrives.
    pub(crate) to: [VecDeque<(Micros, Message)>; 2],
    /// When the last of it arrives.
    pub(crate) last: [Micros; 2],
    /// When all that was sent to each end has left the other.
    pub(crate) sent: [Micros; 2],
}

impl Connection {
    /// The end that a server has.
    pub(crate) fn end_of(&self, server: usize) -> usize {
        usize::from(self.ends[1] == server)
    }
}

/// All connections, and which ways are blocked.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) connections: Vec<Connection>,
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// How many connections two servers have had.
    pub(crate) made: BTreeMap<(usize, usize), u32>,
}

impl Network {
    /// The connection of two servers over which bytes go.
    pub(crate) fn between(&self, a: usize, b: usize) -> Option<usize> {
        let joins =
            |connection: &Connection| connection.lives && (connection.ends == [a, b] || connection.ends == [b, a]);
        self.connections.iter().rposition(joins)
    }

    /// The connection that a server calls by that name.
    pub(crate) fn of_link(&self, server: usize, link: Link) -> Option<usize> {
        let called = |connection: &Connection| {
            connection.ends.contains(&server) && connection.links[connection.end_of(server)] == link
        };
        self.connections.iter().rposition(called)
    }
}
