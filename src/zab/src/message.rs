//! Messages between servers.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::{
    Blob, Epoch, MemberChange, Membership, Notification, Point, Refusal, Request, ServerId, Session, Summary, Txn, Zxid,
};

/// A message. Messages between leader and follower carry their session; those of other sessions are stale and dropped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// The sender has a new log, and wants to form a cluster of these voters.
    Forming(BTreeSet<ServerId>),
    /// The cluster is formed with this membership, which includes the receiver and its log.
    Formed(Arc<Membership>),
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
    },
    /// ACKEPOCH: accepts the epoch and reports the follower's durable history.
    AckEpoch {
        /// The accepted epoch.
        epoch: Epoch,
        /// The follower's currentEpoch.
        current: Epoch,
        /// The end of its history.
        last: Point,
        /// Whether this epoch was accepted just now. A repeated acceptance, perhaps first given to another leader, does
        /// not count.
        is_new: bool,
    },
    /// The snapshot of all transactions through this one has arrived, or those of SYNC are durable: the leader sends what
    /// comes next.
    Received(Zxid),
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
        /// The last transaction that was delivered at the follower.
        delivered: Point,
    },
    /// Forwards a proposal of a client of the follower.
    Forward {
        /// The follower's id for it.
        request: Request,
        /// The command.
        payload: bytes::Bytes,
        /// It may use the reserved capacity.
        is_reserved: bool,
    },
    /// Asks which transaction a linearizable read must see.
    ReadIndex {
        /// The follower's id for it.
        request: Request,
    },
    /// Forwards a change of the voters.
    ChangeMembers {
        /// The follower's id for it.
        request: Request,
        /// The change.
        change: MemberChange,
    },
    /// The follower's history through this transaction differs from the leader's.
    Differs(Zxid),
    /// The follower stops following.
    Left,
}

/// From a leader to a follower.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ToFollower {
    /// NEWEPOCH: asks to accept this epoch.
    NewEpoch(Epoch),
    /// DIFF: the follower's history, through this point, is a prefix of the leader's; SYNC messages complete it.
    Diff(Summary),
    /// TRUNC: drop all transactions after this point; SYNC messages follow.
    Truncate(Point),
    /// SNAP: a snapshot, which will replace the follower's history. Once it has arrived, the follower says so, and gets
    /// DIFF from there.
    Snapshot {
        /// The transactions in it.
        summary: Summary,
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
    /// PROPOSE: new transactions.
    Propose {
        /// The zxid before them.
        after: Zxid,
        /// The transactions.
        txns: Vec<Txn>,
    },
    /// COMMIT: all transactions through this one are committed.
    Commit(Zxid),
    /// A heartbeat.
    Ping {
        /// Numbers increase.
        number: u64,
    },
    /// The reply to a forwarded proposal.
    Forwarded {
        /// The follower's id for it.
        request: Request,
        /// Its zxid, or why it was refused.
        zxid: Result<Zxid, Refusal>,
    },
    /// The reply to a read request: the read may be answered once all transactions through `zxid` are applied.
    ReadIndexed {
        /// The follower's id for it.
        request: Request,
        /// The last transaction to see, or why the read was refused.
        zxid: Result<Zxid, Refusal>,
    },
    /// The follower's history is not the one that a quorum has. The points are a sample of the leader's.
    Differs(Vec<Point>),
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
            Self::Forming(_) => "FORMING",
            Self::Formed(_) => "FORMED",
            Self::Vote(_) => "VOTE",
            Self::ToLeader(_, message) => match message {
                ToLeader::FollowerInfo { .. } => "CEPOCH",
                ToLeader::AckEpoch { .. } => "ACKEPOCH",
                ToLeader::Received(_) => "RECEIVED",
                ToLeader::AckNewLeader { .. } => "ACKLD",
                ToLeader::Ack(_) => "ACK",
                ToLeader::Pong { .. } => "PONG",
                ToLeader::Forward { .. } => "FORWARD",
                ToLeader::ReadIndex { .. } => "READINDEX",
                ToLeader::ChangeMembers { .. } => "CHANGEMEMBERS",
                ToLeader::Differs(_) => "DIFFERS",
                ToLeader::Left => "LEFT",
            },
            Self::ToFollower(_, message) => match message {
                ToFollower::NewEpoch(_) => "NEWEPOCH",
                ToFollower::Diff(_) => "DIFF",
                ToFollower::Truncate(_) => "TRUNC",
                ToFollower::Snapshot { .. } => "SNAP",
                ToFollower::Sync { .. } => "SYNC",
                ToFollower::NewLeader(_) => "NEWLEADER",
                ToFollower::UpToDate { .. } => "UPTODATE",
                ToFollower::Propose { .. } => "PROPOSE",
                ToFollower::Commit(_) => "COMMIT",
                ToFollower::Ping { .. } => "PING",
                ToFollower::Forwarded { .. } => "FORWARDED",
                ToFollower::ReadIndexed { .. } => "READINDEXED",
                ToFollower::Differs(_) => "DIVERGED",
                ToFollower::Resigned { .. } => "RESIGNED",
            },
        }
    }
}
