//! What servers say to one another.

use crate::{Blob, Epoch, Notification, Request, ServerId, Session, Txn, Zxid};

/// A message. Those of a leader and its follower belong to a session; those of another session are old, and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// A vote (phase 0).
    Vote(Notification),
    /// From a follower to its leader.
    ToLeader(Session, ToLeader),
    /// From a leader to a follower.
    ToFollower(Session, ToFollower),
}

/// From a follower to its leader.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToLeader {
    /// CEPOCH: I will follow; the last epoch that I promised is this. It begins the session.
    FollowerInfo {
        /// Its acceptedEpoch.
        accepted: Epoch,
        /// The number of its log, where that has the place of one that was lost: it does not count before it has all again.
        returning: Option<u64>,
    },
    /// ACKEPOCH: I follow nobody of an earlier epoch; the history that I have is this, and is durable.
    AckEpoch {
        /// The epoch that is promised.
        epoch: Epoch,
        /// Its currentEpoch.
        current: Epoch,
        /// The end of its durable history.
        last: Zxid,
        /// The promise is new: a promise that was given before, perhaps to another, does not count.
        counts: bool,
    },
    /// ACK of NEWLEADER: the history through here and the epoch are durable.
    AckNewLeader {
        /// The epoch.
        epoch: Epoch,
        /// The end of its durable history.
        through: Zxid,
    },
    /// ACK: all transactions through this one are durable.
    Ack(Zxid),
    /// A sign of life, in answer to one.
    Pong {
        /// The number of the leader's.
        number: u64,
    },
    /// Somebody here proposes this.
    Forward {
        /// Its name there.
        request: Request,
        /// The command.
        payload: bytes::Bytes,
    },
    /// Somebody here reads.
    ReadIndex {
        /// Its name there.
        request: Request,
    },
    /// The follower leaves.
    Left,
}

/// From a leader to a follower.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToFollower {
    /// NEWEPOCH: promise to follow nobody of an earlier epoch.
    NewEpoch(Epoch),
    /// DIFF: what you have is a beginning of what I have; the rest follows.
    Diff,
    /// TRUNC: drop what stands behind this transaction; the rest follows.
    Truncate(Zxid),
    /// SNAP: a snapshot in the place of all that you have; the rest follows.
    Snapshot {
        /// The last transaction in it.
        zxid: Zxid,
        /// The snapshot, as the receiver's outside keeps it.
        blob: Blob,
    },
    /// Transactions of the synchronisation.
    Sync {
        /// The one before them.
        after: Zxid,
        /// They.
        txns: Vec<Txn>,
    },
    /// NEWLEADER: you have my history now; make it yours.
    NewLeader(Epoch),
    /// UPTODATE: the epoch is established.
    UpToDate {
        /// All through here is committed.
        commit: Zxid,
    },
    /// PROPOSE.
    Propose {
        /// The transaction before them.
        after: Zxid,
        /// They.
        txns: Vec<Txn>,
    },
    /// COMMIT: all through here.
    Commit(Zxid),
    /// INFORM: proposals that are committed, for observers.
    Inform {
        /// The transaction before them.
        after: Zxid,
        /// They.
        txns: Vec<Txn>,
    },
    /// A sign of life.
    Ping {
        /// Rises.
        number: u64,
    },
    /// What became of a forwarded proposal.
    Forwarded {
        /// The follower's name for it.
        request: Request,
        /// Its place; nothing where it was refused.
        zxid: Option<Zxid>,
    },
    /// A read may be answered by whoever has applied all through here.
    ReadIndexed {
        /// The follower's name for it.
        request: Request,
        /// The place; nothing where it was refused.
        zxid: Option<Zxid>,
    },
    /// You have all again that you may have acknowledged before you lost your log.
    Returned,
    /// The leader leaves its office, and names whom it would like to follow it.
    Resigned {
        /// Whom.
        successor: Option<ServerId>,
    },
}

impl Message {
    /// The field's name of the message's kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Vote(_) => "VOTE",
            Self::ToLeader(_, message) => match message {
                ToLeader::FollowerInfo { .. } => "CEPOCH",
                ToLeader::AckEpoch { .. } => "ACKEPOCH",
                ToLeader::AckNewLeader { .. } => "ACKLD",
                ToLeader::Ack(_) => "ACK",
                ToLeader::Pong { .. } => "PONG",
                ToLeader::Forward { .. } => "FORWARD",
                ToLeader::ReadIndex { .. } => "READINDEX",
                ToLeader::Left => "LEFT",
            },
            Self::ToFollower(_, message) => match message {
                ToFollower::NewEpoch(_) => "NEWEPOCH",
                ToFollower::Diff => "DIFF",
                ToFollower::Truncate(_) => "TRUNC",
                ToFollower::Snapshot { .. } => "SNAP",
                ToFollower::Sync { .. } => "SYNC",
                ToFollower::NewLeader(_) => "NEWLEADER",
                ToFollower::UpToDate { .. } => "UPTODATE",
                ToFollower::Propose { .. } => "PROPOSE",
                ToFollower::Commit(_) => "COMMIT",
                ToFollower::Inform { .. } => "INFORM",
                ToFollower::Ping { .. } => "PING",
                ToFollower::Forwarded { .. } => "FORWARDED",
                ToFollower::ReadIndexed { .. } => "READINDEXED",
                ToFollower::Returned => "RETURNED",
                ToFollower::Resigned { .. } => "RESIGNED",
            },
        }
    }
}
