//! What goes in, and what comes out.

use bytes::Bytes;

use crate::{Epoch, Inconsistent, Io, Link, Message, Request, ServerId, Session, Txn, Write, Zxid};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time goes on by one tick.
    Tick,
    /// A connection with a server is there; an earlier one with it is not any more.
    LinkUp {
        /// The server.
        peer: ServerId,
        /// The connection.
        link: Link,
    },
    /// A connection has ended.
    LinkDown {
        /// The server.
        peer: ServerId,
        /// The connection.
        link: Link,
    },
    /// A message came. Those of one connection come in the order in which they were sent, none twice and none left out.
    Received {
        /// From whom.
        peer: ServerId,
        /// On which connection.
        link: Link,
        /// What.
        message: Message,
    },
    /// Something large is on its way over a connection, to here or from here, and gets on: whoever is at its other end lives, though no
    /// message comes.
    Progress {
        /// The server.
        peer: ServerId,
        /// The connection.
        link: Link,
    },
    /// All writes through this one are durable, and what they unlock is on its way.
    Written(Io),
    /// Somebody here proposes a command.
    Propose {
        /// Its name here.
        request: Request,
        /// The command.
        payload: Bytes,
    },
    /// Somebody here wants to read what all others would read.
    Read {
        /// Its name here.
        request: Request,
    },
    /// A snapshot is durable that holds all through here, all of which was delivered and is durable in the log.
    SnapshotTaken(Zxid),
    /// A leader shall leave its office to this server, or to whoever is ready.
    HandOver(Option<ServerId>),
}

/// Something to do. Actions are done in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message; where the connection is gone, it is dropped.
    Send {
        /// On which connection.
        link: Link,
        /// What.
        message: Message,
    },
    /// Send the latest snapshot as a message [`ToFollower::Snapshot`](crate::ToFollower::Snapshot) of this session, in its place among
    /// the other messages.
    SendSnapshot {
        /// On which connection.
        link: Link,
        /// The session.
        session: Session,
        /// The last transaction in it.
        zxid: Zxid,
    },
    /// Make a write durable behind all earlier ones, then send what it unlocks, then say so by [`Input::Written`]. A write that fails
    /// ends the server: what came of it is not known.
    Persist {
        /// Its number.
        io: Io,
        /// What is written.
        write: Write,
        /// What must not be sent before.
        then: Vec<(Link, Message)>,
    },
    /// Apply a committed transaction. Each is delivered once in a process's life, in order.
    Deliver(Txn),
    /// Take the state of the installed snapshot in the place of what was applied.
    Restore(Zxid),
    /// A proposal of somebody here has its place. It is done once that is delivered; where the role changes before, nobody knows.
    Proposed {
        /// Its name.
        request: Request,
        /// Its place.
        zxid: Zxid,
    },
    /// A proposal or read of somebody here was not taken.
    Refused {
        /// Its name.
        request: Request,
        /// Why.
        refusal: Refusal,
    },
    /// A read may be answered once all through here is applied.
    ReadReady {
        /// Its name.
        request: Request,
        /// The place.
        zxid: Zxid,
    },
    /// The role has changed. With [`Role::Looking`], nothing that was asked for before is answered any more.
    Became(Role),
    /// End a connection: what came over it cannot be.
    Close {
        /// Which.
        link: Link,
        /// What was wrong.
        problem: &'static str,
    },
    /// End the server: going on could lose what was acknowledged.
    Stop(Fatal),
}

/// Why a proposal or a read was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// There is no leader that a majority follows.
    #[error("there is no leader")]
    NoLeader,
    /// As many are under way as may be.
    #[error("too many proposals or reads are under way")]
    Busy,
    /// The command is longer than one may be.
    #[error("the command is too long")]
    TooLong,
    /// The leader is about to leave its office.
    #[error("the leader is handing over")]
    HandingOver,
}

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It looks for a leader, or is about to.
    Looking,
    /// It leads an established epoch.
    Leading(Epoch),
    /// It follows, votes, and is up to date.
    Following(ServerId, Epoch),
    /// It follows without a vote, and is up to date.
    Observing(ServerId, Epoch),
}

/// Why a server cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fatal {
    /// The leader's history lacks what was applied here.
    #[error("the leader's history ends at {to}, and {delivered} was applied here as committed")]
    CommittedLost {
        /// Where the leader's ends.
        to: Zxid,
        /// What was applied.
        delivered: Zxid,
    },
    /// Histories differ in a way in which they never can.
    #[error("the leader's history is not one that this server can have: {0}")]
    Diverged(Inconsistent),
    /// There are no more epochs.
    #[error("all epochs are used up")]
    EpochsUsedUp,
}
