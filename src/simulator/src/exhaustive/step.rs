//! What can happen next.

/// One thing that happens. Servers are told by number, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The next message from one server to another arrives, or the end of their connection is heard of.
    Deliver {
        /// From.
        from: usize,
        /// To.
        to: usize,
    },
    /// All writes that a server has begun are durable.
    Written(usize),
    /// A server crashes.
    Crash {
        /// The server.
        server: usize,
        /// How many of its writes are durable.
        kept: usize,
        /// What it has sent is lost on the way.
        lost: bool,
    },
    /// A server crashes and loses its log; what it has sent is on its way.
    Lose(usize),
    /// A server that has crashed comes back.
    Start(usize),
    /// A connection breaks.
    Cut {
        /// One end.
        a: usize,
        /// The other.
        b: usize,
        /// What is under way is lost.
        lost: bool,
    },
    /// A client proposes a command to a leader.
    Propose(usize),
    /// Time goes on for all.
    Tick,
    /// A server waits in vain.
    TimeOut(usize),
}
