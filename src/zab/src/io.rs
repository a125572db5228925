//! Inputs and actions of the state machine.

use bytes::Bytes;

use crate::{
    Blob, Epoch, InvalidWrite, Link, LogId, MemberChange, Message, Request, ServerId, Session, Txn, Write, WriteId,
    Zxid,
};

/// An event that the driver reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// One tick has passed.
    Tick,
    /// The time of the clock, in milliseconds since the Unix epoch: for the transactions that this server proposes from
    /// now on. It may jump.
    Now(u64),
    /// A connection to a peer is open. It replaces an earlier one.
    LinkUp {
        /// The peer.
        peer: ServerId,
        /// The connection.
        link: Link,
        /// The log of the peer.
        log: LogId,
    },
    /// A connection has ended.
    LinkDown {
        /// The peer.
        peer: ServerId,
        /// The connection.
        link: Link,
    },
    /// A message arrived. Each connection delivers its messages in order, without duplicates or gaps.
    Received {
        /// The sender.
        peer: ServerId,
        /// The connection.
        link: Link,
        /// The message.
        message: Message,
    },
    /// A large transfer over the connection, in either direction, has advanced. It counts as a heartbeat of the peer.
    Progress {
        /// The peer.
        peer: ServerId,
        /// The connection.
        link: Link,
    },
    /// All writes through this one are durable, and the messages that they unlock are sent.
    Written(WriteId),
    /// A local client proposes a command.
    Propose {
        /// The id of the request.
        request: Request,
        /// The command.
        payload: Bytes,
        /// Only if this server leads this epoch; the command is never forwarded. A leader that was deposed without
        /// knowing it can therefore not decide anything, such as that a lease has expired.
        in_epoch: Option<Epoch>,
        /// It may use the capacity that is reserved for what must not fail under load, such as keep-alives.
        is_reserved: bool,
    },
    /// Whether this server applies transactions more slowly than they are committed. A leader that is behind refuses all
    /// proposals but reserved ones.
    Behind(bool),
    /// A local client changes the voters.
    ChangeMembers {
        /// The id of the request.
        request: Request,
        /// The change.
        change: MemberChange,
    },
    /// A local client requests a linearizable read.
    Read {
        /// The id of the request.
        request: Request,
    },
    /// A snapshot of all transactions through this one is durable. All of them were delivered and are durable in the
    /// log.
    SnapshotTaken(Zxid),
    /// Transactions that were read from the log on disk ([`Action::ReadLog`]); none if they are no longer there.
    LogRead {
        /// The connection.
        link: Link,
        /// The session.
        session: Session,
        /// Consecutive transactions.
        txns: Vec<Txn>,
    },
    /// If this server leads, transfer leadership to that server, or to any that is ready.
    TransferLeadership(Option<ServerId>),
}

/// An effect for the driver. Actions are executed in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message. It is dropped if the connection is gone.
    Send {
        /// The connection.
        link: Link,
        /// The message.
        message: Message,
    },
    /// Send the latest snapshot as [`ToFollower::Snapshot`](crate::ToFollower::Snapshot) of this session, beside the other
    /// messages, which must not wait for it. It replaces one that is still being sent over the connection.
    SendSnapshot {
        /// The connection.
        link: Link,
        /// The session.
        session: Session,
        /// The last transaction in it.
        zxid: Zxid,
    },
    /// Read transactions that are no longer in memory from the log on disk, for this session, and report
    /// [`Input::LogRead`]: those that follow `after`, up to the limits of one SYNC message.
    ReadLog {
        /// The connection.
        link: Link,
        /// The session.
        session: Session,
        /// The transaction before them.
        after: Zxid,
    },
    /// Delete a received snapshot, which will not be installed.
    DiscardSnapshot(Blob),
    /// Make a write durable after all earlier ones, then send the messages it unlocks, then report [`Input::Written`].
    /// A failed write ends the server: it is unknown what became durable.
    Persist {
        /// The id of the write.
        id: WriteId,
        /// The write.
        write: Write,
        /// Messages that must not be sent before the write is durable.
        then: Vec<(Link, Message)>,
    },
    /// Apply a committed transaction. Each is delivered once per process, in order.
    Deliver(Txn),
    /// Replace the applied state by the state of the installed snapshot.
    Restore(Zxid),
    /// A local proposal has a zxid. It succeeds once that is delivered; if the role changes first, its outcome is
    /// unknown.
    Proposed {
        /// The id of the request.
        request: Request,
        /// Its zxid.
        zxid: Zxid,
    },
    /// A local proposal or read was refused.
    Refused {
        /// The id of the request.
        request: Request,
        /// The reason.
        refusal: Refusal,
    },
    /// A local read may be answered once all transactions through `zxid` are applied.
    ReadReady {
        /// The id of the request.
        request: Request,
        /// The last transaction that the read must see.
        zxid: Zxid,
    },
    /// The role has changed. With [`Role::Looking`], the outcome of all pending requests is unknown.
    Became(Role),
    /// Close a connection whose peer violated the protocol.
    Close {
        /// The connection.
        link: Link,
        /// The violation.
        problem: &'static str,
    },
    /// Stop the server: continuing could lose acknowledged transactions.
    Stop(Fatal),
}

/// Why a proposal or read was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// No leader is established.
    #[error("there is no leader")]
    NoLeader,
    /// A limit on pending requests is reached.
    #[error("too many pending proposals or reads")]
    Busy,
    /// The command exceeds [`Config::payload_max`](crate::Config::payload_max).
    #[error("the command is too long")]
    TooLong,
    /// The leader is about to step down.
    #[error("the leader is transferring leadership")]
    TransferringLeadership,
    /// This server does not lead the named epoch.
    #[error("this server does not lead that epoch")]
    OtherEpoch,
    /// Another change of the voters is not committed yet.
    #[error("another change of the voters is in progress")]
    ChangeInProgress,
    /// The server is a voter already.
    #[error("the server is a voter already")]
    AlreadyVotes,
    /// The server is not a voter.
    #[error("the server is not a voter")]
    NoVoter,
    /// The server is not connected to the leader, or does not have all transactions yet.
    #[error("the server is not up to date with the leader")]
    NotFollowing,
    /// The leader itself is to be removed.
    #[error("the leader cannot be removed: transfer leadership first")]
    Leads,
    /// Of the voters that would remain, no majority is up to date with the leader.
    #[error("no majority of the remaining voters is up to date with the leader")]
    NoQuorum,
}

/// The role of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It looks for a leader, or its leader is not established yet.
    Looking,
    /// It leads an established epoch.
    Leading(Epoch),
    /// It follows, votes and is up to date.
    Following(ServerId, Epoch),
    /// It follows without voting and is up to date.
    Observing(ServerId, Epoch),
}

/// Why a server must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fatal {
    /// The leader's history lacks a transaction that was applied here.
    #[error("the leader's history ends at {to}, but {delivered} was committed and applied here")]
    CommittedLost {
        /// The end of the leader's history.
        to: Zxid,
        /// The last transaction applied here.
        delivered: Zxid,
    },
    /// A quorum has another history.
    #[error(
        "this server's history differs from that of the other voters: the same through {same}, different at {different}"
    )]
    OtherHistory {
        /// The last transaction that is known to be the same.
        same: Zxid,
        /// The first transaction that is known to differ.
        different: Zxid,
    },
    /// A quorum of followers has another history.
    #[error("the histories of a quorum differ from this server's at or before {0}")]
    Outnumbered(Zxid),
    /// The histories differ in a way that Zab excludes.
    #[error("the leader's history conflicts with this server's: {0}")]
    Diverged(InvalidWrite),
    /// The epoch space is exhausted.
    #[error("no epoch is left")]
    EpochsExhausted,
}
