//! Messages between servers.

use crate::{Blob, Epoch, Notification, Request, ServerId, Session, Txn, Zxid};

/// A message. Messages between leader and follower carry their session; those of other sessions are stale and dropped.
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
    /// CEPOCH: asks to follow, and starts the session.
    FollowerInfo {
        /// The follower's acceptedEpoch.
        accepted: Epoch,
        /// The id of its log if the log replaces a lost one; the follower does not count toward a quorum then.
        returning: Option<u64>,
    },
    /// ACKEPOCH: accepts the epoch and reports the follower's durable history.
    AckEpoch {
        /// The accepted epoch.
        epoch: Epoch,
        /// The follower's currentEpoch.
        current: Epoch,
        /// The end of its history.
        last: Zxid,
        /// Whether this epoch was accepted just now. A repeated acceptance, perhaps first given to another leader, does
        /// not count.
        is_new: bool,
    },
    /// ACK of NEWLEADER: the epoch and the history through `through` are durable.
    AckNewLeader {
        /// The epoch.
        epoch: Epoch,
        /// The end of the follower's history.
        through: Zxid,
    },
    /// ACK: all transactions through this one are durable.
    Ack(Zxid),
    /// Answers a heartbeat.
    Pong {
        /// The number of the heartbeat.
        number: u64,
    },
    /// Forwards a proposal of a client of the follower.
    Forward {
        /// The follower's id for it.
        request: Request,
        /// The command.
        payload: bytes::Bytes,
    },
    /// Asks which transaction a linearizable read must see.
    ReadIndex {
        /// The follower's id for it.
        request: Request,
    },
    /// The follower stops following.
    Left,
}

/// From a leader to a follower.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToFollower {
    /// NEWEPOCH: asks to accept this epoch.
    NewEpoch(Epoch),
    /// DIFF: the follower's history is a prefix of the leader's; SYNC messages complete it.
    Diff,
    /// TRUNC: drop all transactions after this one; SYNC messages follow.
    Truncate(Zxid),
    /// SNAP: a snapshot replaces the follower's history; SYNC messages follow.
    Snapshot {
        /// The last transaction in it.
        zxid: Zxid,
        /// The receiving driver's handle for the snapshot.
        blob: Blob,
    },
    /// SYNC: transactions of the synchronisation.
    Sync {
        /// The zxid before them.
        after: Zxid,
        /// The transactions.
        txns: Vec<Txn>,
    },
    /// NEWLEADER: the follower now has the leader's history and makes it durable.
    NewLeader(Epoch),
    /// UPTODATE: the epoch is established.
    UpToDate {
        /// All transactions through this one are committed.
        commit: Zxid,
    },
    /// PROPOSE: new transactions, for voters.
    Propose {
        /// The zxid before them.
        after: Zxid,
        /// The transactions.
        txns: Vec<Txn>,
    },
    /// COMMIT: all transactions through this one are committed.
    Commit(Zxid),
    /// INFORM: committed transactions, for observers.
    Inform {
        /// The zxid before them.
        after: Zxid,
        /// The transactions.
        txns: Vec<Txn>,
    },
    /// A heartbeat.
    Ping {
        /// Numbers increase.
        number: u64,
    },
    /// The reply to a forwarded proposal.
    Forwarded {
        /// The follower's id for it.
        request: Request,
        /// Its zxid; `None` if it was refused.
        zxid: Option<Zxid>,
    },
    /// The reply to a read request: the read may be answered once all transactions through `zxid` are applied.
    ReadIndexed {
        /// The follower's id for it.
        request: Request,
        /// The last transaction to see; `None` if the read was refused.
        zxid: Option<Zxid>,
    },
    /// The follower has recovered everything it may have acknowledged before it lost its log.
    Returned,
    /// The leader steps down and names a preferred successor.
    Resigned {
        /// The successor.
        successor: Option<ServerId>,
    },
}

impl Message {
    /// The name of the message type, as in the Zab paper and ZooKeeper.
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
