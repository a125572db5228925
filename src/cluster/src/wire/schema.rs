//! The messages of `schemas/cluster.proto`.

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Frame {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Kind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Vote(Vote),
    #[prost(message, tag = "3")]
    ToLeader(ToLeader),
    #[prost(message, tag = "4")]
    ToFollower(ToFollower),
    #[prost(message, tag = "5")]
    Snapshot(SnapshotPart),
    #[prost(message, tag = "6")]
    Alive(Alive),
    #[prost(message, tag = "7")]
    Forming(Forming),
    #[prost(message, tag = "8")]
    Formed(Membership),
    #[prost(message, tag = "9")]
    Refused(Refused),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Alive {
    #[prost(bool, tag = "1")]
    pub(crate) busy: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    #[prost(string, tag = "2")]
    pub(crate) cluster: String,
    #[prost(uint64, tag = "3")]
    pub(crate) server: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) peer: u64,
    #[prost(uint32, tag = "5")]
    pub(crate) version_min: u32,
    #[prost(fixed64, tag = "6")]
    pub(crate) log: u64,
    #[prost(fixed64, tag = "7")]
    pub(crate) cluster_id: u64,
    #[prost(message, repeated, tag = "8")]
    pub(crate) machines: Vec<MachineVersion>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Refused {
    #[prost(string, tag = "1")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Forming {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) founders: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Membership {
    #[prost(fixed64, tag = "1")]
    pub(crate) cluster: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) voters: Vec<Voter>,
    #[prost(uint64, repeated, tag = "3")]
    pub(crate) replacing: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Voter {
    #[prost(uint64, tag = "1")]
    pub(crate) server: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) log: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Point {
    #[prost(uint64, tag = "1")]
    pub(crate) zxid: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) time: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) hash: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Summary {
    #[prost(message, optional, tag = "1")]
    pub(crate) point: Option<Point>,
    #[prost(message, optional, tag = "2")]
    pub(crate) membership: Option<Membership>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Idle {}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Vote {
    #[prost(uint32, tag = "1")]
    pub(crate) epoch: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) zxid: u64,
    #[prost(bool, tag = "3")]
    pub(crate) preferred: bool,
    #[prost(uint64, tag = "4")]
    pub(crate) server: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) round: u64,
    #[prost(uint32, tag = "6")]
    pub(crate) doing: u32,
    #[prost(bool, tag = "7")]
    pub(crate) unelectable: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Txn {
    #[prost(uint64, tag = "1")]
    pub(crate) zxid: u64,
    #[prost(oneof = "Payload", tags = "2, 3")]
    pub(crate) payload: Option<Payload>,
    #[prost(uint64, tag = "4")]
    pub(crate) time: u64,
    #[prost(fixed64, tag = "5")]
    pub(crate) hash: u64,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Payload {
    #[prost(bytes = "bytes", tag = "2")]
    Command(Bytes),
    #[prost(message, tag = "3")]
    Membership(Membership),
}

/// A command for a state machine: what a transaction holds.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Envelope {
    #[prost(uint32, tag = "1")]
    pub(crate) machine: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
    #[prost(fixed64, tag = "3")]
    pub(crate) origin: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) request: u64,
    #[prost(message, optional, tag = "5")]
    pub(crate) numbered: Option<Numbered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Numbered {
    #[prost(uint64, tag = "1")]
    pub(crate) client: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) number: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ClusterChange {
    #[prost(bool, tag = "1")]
    pub(crate) open: bool,
    #[prost(uint64, tag = "2")]
    pub(crate) close: u64,
    #[prost(message, optional, tag = "3")]
    pub(crate) raised: Option<MachineVersion>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct MachineVersion {
    #[prost(uint32, tag = "1")]
    pub(crate) machine: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) version: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Txns {
    #[prost(uint64, tag = "1")]
    pub(crate) after: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) txns: Vec<Txn>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToLeader {
    #[prost(uint64, tag = "1")]
    pub(crate) session: u64,
    #[prost(oneof = "LeaderKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub(crate) kind: Option<LeaderKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum LeaderKind {
    #[prost(message, tag = "2")]
    FollowerInfo(FollowerInfo),
    #[prost(message, tag = "3")]
    AckEpoch(AckEpoch),
    #[prost(message, tag = "4")]
    AckNewLeader(AckNewLeader),
    #[prost(uint64, tag = "5")]
    Ack(u64),
    #[prost(message, tag = "6")]
    Pong(Pong),
    #[prost(message, tag = "7")]
    Forward(Forward),
    #[prost(uint64, tag = "8")]
    ReadIndex(u64),
    #[prost(message, tag = "9")]
    Left(Idle),
    #[prost(message, tag = "10")]
    ChangeMembers(ChangeMembers),
    #[prost(uint64, tag = "11")]
    Differs(u64),
    #[prost(uint64, tag = "12")]
    Received(u64),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct FollowerInfo {
    #[prost(uint32, tag = "1")]
    pub(crate) accepted: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Pong {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(message, optional, tag = "2")]
    pub(crate) delivered: Option<Point>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct ChangeMembers {
    #[prost(uint64, tag = "1")]
    pub(crate) request: u64,
    #[prost(oneof = "Change", tags = "2, 3")]
    pub(crate) change: Option<Change>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Change {
    #[prost(uint64, tag = "2")]
    Add(u64),
    #[prost(uint64, tag = "3")]
    Remove(u64),
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AckEpoch {
    #[prost(uint32, tag = "1")]
    pub(crate) epoch: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) current: u32,
    #[prost(message, optional, tag = "3")]
    pub(crate) last: Option<Point>,
    #[prost(bool, tag = "4")]
    pub(crate) counts: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct AckNewLeader {
    #[prost(uint32, tag = "1")]
    pub(crate) epoch: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) through: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Forward {
    #[prost(uint64, tag = "1")]
    pub(crate) request: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
    #[prost(bool, tag = "3")]
    pub(crate) is_reserved: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ToFollower {
    #[prost(uint64, tag = "1")]
    pub(crate) session: u64,
    #[prost(oneof = "FollowerKind", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub(crate) kind: Option<FollowerKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum FollowerKind {
    #[prost(uint32, tag = "2")]
    NewEpoch(u32),
    #[prost(message, tag = "3")]
    Diff(Summary),
    #[prost(message, tag = "4")]
    Truncate(Point),
    #[prost(message, tag = "5")]
    Sync(Txns),
    #[prost(uint32, tag = "6")]
    NewLeader(u32),
    #[prost(uint64, tag = "7")]
    UpToDate(u64),
    #[prost(message, tag = "8")]
    Propose(Txns),
    #[prost(uint64, tag = "9")]
    Commit(u64),
    #[prost(uint64, tag = "10")]
    Ping(u64),
    #[prost(message, tag = "11")]
    Forwarded(Answer),
    #[prost(message, tag = "12")]
    ReadIndexed(Answer),
    #[prost(message, tag = "13")]
    Resigned(Resigned),
    #[prost(message, tag = "14")]
    Diverged(Points),
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Points {
    #[prost(message, repeated, tag = "1")]
    pub(crate) points: Vec<Point>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(crate) request: u64,
    #[prost(oneof = "Outcome", tags = "2, 3")]
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Clone, Copy, PartialEq, Oneof)]
pub(crate) enum Outcome {
    #[prost(uint64, tag = "2")]
    Zxid(u64),
    #[prost(enumeration = "Refusal", tag = "3")]
    Refusal(i32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Enumeration)]
pub(crate) enum Refusal {
    Unspecified = 0,
    NoLeader = 1,
    Busy = 2,
    TooLong = 3,
    TransferringLeadership = 4,
    OtherEpoch = 5,
    ChangeInProgress = 6,
    AlreadyVotes = 7,
    NoVoter = 8,
    NotFollowing = 9,
    Leads = 10,
    NoQuorum = 11,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Resigned {
    #[prost(uint64, optional, tag = "1")]
    pub(crate) successor: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotPart {
    #[prost(uint64, tag = "1")]
    pub(crate) session: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) zxid: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) bytes: Bytes,
}
