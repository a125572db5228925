//! The steps of a search.

/// A step. Servers are numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The next message in flight between two servers arrives, or the end of their connection.
    Deliver {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
    },
    /// All pending writes of a server become durable.
    Written(usize),
    /// A server crashes.
    Crash {
        /// The server.
        server: usize,
        /// The number of pending writes that become durable.
        kept: usize,
        /// Whether its messages in flight are lost.
        lost: bool,
    },
    /// A server crashes and loses its log; its messages in flight arrive.
    Lose(usize),
    /// A crashed server restarts.
    Start(usize),
    /// A connection breaks.
    Cut {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// Whether messages in flight are lost.
        lost: bool,
    },
    /// A client proposes a command to a leader.
    Propose(usize),
    /// One tick passes on all servers.
    Tick,
    /// A server times out.
    TimeOut(usize),
}
